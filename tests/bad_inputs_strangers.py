"""Configurations from somebody else that are refused."""

from __future__ import annotations

from tests.bad_input_files import REPLAY, START, Entry, config_file

STRANGERS: list[Entry] = [
    (
        "a folder of configurations that does not exist",
        ("--config-dir", "nowhere", "--config-name", "config"),
        ("nowhere",),
        None,
    ),
    ("a folder of configurations without that file", REPLAY, ("config", "run"), config_file(START, name="other")),
    ("a configuration that is no YAML", REPLAY, ("config.yaml", "YAML"), config_file(START + "seed: [1\n")),
    ("an unknown key in a file", REPLAY, ("sede", "seed"), config_file(START + "sede: 1\n")),
    (
        "a choice by name in a run that is repeated",
        (*REPLAY, "model=gpt2"),
        ("repeats a run", "model.KEY=VALUE"),
        config_file("defaults: [{hydra: default}, _self_]\nseed: 0\nmodel: {name: tiny}\n"),
    ),
    (
        "a class outside the allowed packages",
        REPLAY,
        ("method.ig._target_=os.system", "allow_targets"),
        config_file(START + "method: {ig: {_target_: os.system}}\n"),
    ),
    (
        "a function that an allowed module has imported",
        REPLAY,
        ("twinlens.data.text_data_module.json.loads", "not allowed"),
        config_file(START + "data: {_target_: twinlens.data.text_data_module.json.loads}\n"),
    ),
    (
        "a class of Hydra's own that runs programs",
        REPLAY,
        ("subprocess.Popen", "not allowed"),
        config_file(START + "hydra: {launcher: {_target_: subprocess.Popen}}\n"),
    ),
    (
        "environment variables in a file",
        REPLAY,
        ("hydra.job.env_set",),
        config_file(START + "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}\n"),
    ),
    (
        "a file that allows itself a package",
        REPLAY,
        ("not allowed",),
        config_file(START + "allow_targets: [os]\nmethod: {ig: {_target_: os.system}}\n"),
    ),
    (
        "a file that trusts a checkpoint's code",
        REPLAY,
        ("model.trust_remote_code", "command line"),
        config_file(START + "model: {trust_remote_code: true}\n"),
    ),
    ("a file that clears the store", REPLAY, ("store.prune=all",), config_file(START + "store: {prune: all}\n")),
    ("a pickle of Hydra's", ("--experimental-rerun=config.pickle",), ("pickle",), None),
]
