"""Configurations that tests/quick_hydra.py remembers: the same as Hydra makes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from tests.conftest import REPOSITORY
from twinlens.conf.checking.config_sources import compose

CHANGED = (
    (yaml, "load"),
    (defaults_list, "_create_interpolation_map"),
    (config_loader_impl, "create_defaults_list"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (ConfigLoaderImpl, "_load_configuration_impl"),
)


def seen(config: DictConfig) -> list[Any]:
    """All of a configuration, with what OmegaConf lets be done with it and the types that it checks."""
    nodes = [config, config.hydra, config.hydra.job, config.trainer, config.method]
    flags = [node._get_flag(flag) for node in nodes for flag in ("struct", "readonly")]
    return [OmegaConf.to_container(config), flags, [OmegaConf.get_type(node) for node in nodes]]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["method=[ig,gradsim]", "debug=fdr"],
        ["experiment=unified/table3"],
        ["hydra.job.name=mine", "++data.x=${seed}"],
    ],
)
def test_a_configuration_is_the_same_however_often_it_is_composed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overrides: list[str]
) -> None:
    first = compose(REPOSITORY / "conf", "train", overrides)
    first.seed = 17  # changes nothing of what is remembered
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(ConfigLoaderImpl, "_load_single_config", None)  # no file is read
        again = compose(REPOSITORY / "conf", "train", overrides)
    for owner, name in CHANGED:
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    hydras = compose(REPOSITORY / "conf", "train", overrides)
    assert seen(again) == seen(hydras)
    assert again.hydra.runtime.cwd == os.getcwd()


@pytest.mark.parametrize(
    "choices", [["method=ig"], ["experiment=unified/table3"], ["data=averitec", "method=[gradsim,influence]"]]
)
def test_values_are_put_into_what_is_remembered_of_the_choices(
    monkeypatch: pytest.MonkeyPatch, choices: list[str]
) -> None:
    def composed(seed: int) -> DictConfig:
        return compose(REPOSITORY / "conf", "train", [f"seed={seed}", *choices, f"++data.more.x={seed}", "debug=fdr"])

    composed(1)
    with monkeypatch.context() as patched:
        patched.setattr(ConfigLoaderImpl, "_load_single_config", None)  # no file is read
        quick = composed(2)
    for owner, name in CHANGED:
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    assert quick.data.more.x == 2
    assert seen(quick) == seen(composed(2))


def test_a_choice_outside_the_folder_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    choice = f"+data@own=../{os.path.relpath(file.with_suffix(''), REPOSITORY / 'conf')}"
    for value in (1, 2):
        file.write_text(f"x: {value}", encoding="utf-8")
        assert compose(REPOSITORY / "conf", "train", [choice]).own.x == value


def test_an_error_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("a: [", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(yaml.YAMLError, match=r"bad\.yaml"), file.open(encoding="utf-8") as opened:
            yaml.load(opened, yaml.SafeLoader)
