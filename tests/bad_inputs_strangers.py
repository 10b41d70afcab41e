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
    (
        "a file that says yes",
        (*REPLAY, "store.prune=all"),
        ("yes=true", "command line"),
        config_file(START + "'yes': true\n"),
    ),
    ("a file that clears the store", REPLAY, ("store.prune=all",), config_file(START + "store: {prune: all}\n")),
    (
        "a function of this project in the place of a method",
        REPLAY,
        ("twinlens.callbacks.sweep.job_process.run_as_process", "not allowed"),
        config_file(
            START + "method: {evil: {_target_: twinlens.callbacks.sweep.job_process.run_as_process, script: x}}\n"
        ),
    ),
    (
        "a class that belongs elsewhere",
        REPLAY,
        ("method.evil", "is not a method"),
        config_file(START + "method: {evil: {_target_: twinlens.data.demo.DemoDataModule}}\n"),
    ),
    (
        "arguments by position in a file",
        REPLAY,
        ("model._args_", "by their names"),
        config_file(START + "model: {_args_: [x]}\n"),
    ),
    (
        "a log file in a file from elsewhere",
        REPLAY,
        ("hydra.job_logging", "not allowed", "command line"),
        config_file(START + "hydra: {job_logging: {handlers: {h: {class: logging.FileHandler, filename: x}}}}\n"),
    ),
    (
        "a folder to write to in a file from elsewhere",
        REPLAY,
        ("dirpath", "outside the run's folder"),
        config_file(
            START + "callbacks: {c: {_target_: lightning.pytorch.callbacks.ModelCheckpoint, dirpath: elsewhere}}\n"
        ),
    ),
    (
        "a name that leads out of its folder",
        REPLAY,
        ("method.../../escaped", "rename it"),
        config_file(
            START
            + "method: {../../escaped: {_target_: twinlens.attribution.instance.random_instances.RandomInstances}}\n"
        ),
    ),
    (
        "a file that reads the environment",
        REPLAY,
        ("config.yaml, name", "calls a resolver"),
        config_file(START + "name: ${oc.env:HOME}\n"),
    ),
    (
        "aliases that multiply",
        REPLAY,
        ("its aliases stand for",),
        config_file(
            "a: &a [x]\n" + "".join(f"{c}: &{c} [{f'*{p}, ' * 40}]\n" for p, c in ("ab", "bc", "cd", "de")) + START
        ),
    ),
    (
        "references in a circle",
        REPLAY,
        ("circle",),
        config_file(START + "name: ${tags}\ntags: ['${name}']\n"),
    ),
    (
        "a function of a package that is allowed",
        ("+callbacks.c._target_=json.loads", "allow_targets=[json]"),
        ("json.loads is no class", "name a class"),
        None,
    ),
    ("a sweep without end", ("-m", "seed=range(0,1000000000)"), ("at most 10000",), None),
    ("a model of ten million layers", ("model.architecture.num_hidden_layers=10000000",), ("at most 1024",), None),
    ("kernels of somebody else", ("model.attention=kernels-community/flash-attn",), ("may name kernels",), None),
    ("a pickle of Hydra's", ("--experimental-rerun=config.pickle",), ("pickle",), None),
]
