"""Name of a run's data in its folder: the same as in its results, as one part of a path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.utils import instantiate

from tests.conf.checking.composing import compose
from twinlens.conf.checking.data_name import data_name, of_experiment

CONF = Path(__file__).parents[3] / "conf"
HANS = ["data.test=hans", "data.test_path=hans.txt"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["data=demo"], "demo"),
        (["data=demo_challenge"], "demo-challenge"),
        (["data=mnli"], "mnli"),
        (["data=mnli", *HANS], "mnli-hans"),
        (["data=mnli", "data.split_validation=true"], "mnli-split-validation"),
        (["data=mnli", "data.split_validation=true", *HANS], "mnli-split-validation-hans"),
        (["data=mnli", "data.name=mine", *HANS], "mine-hans"),
    ],
)
def test_folders_and_results_agree(overrides: list[str], name: str) -> None:
    config = compose(CONF, "train", [*overrides, "logger=wandb"])
    assert f"_tiny_{name}_s0" in config.hydra.run.dir
    assert config.logger.wandb.group == f"tiny_{name}"
    assert instantiate(config.data).name.replace("/", "-") == name


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ([], "_tiny_demo_s0"),
        (["experiment=unified/table2"], "_unified-table2_tiny_demo_s0"),
        (["experiment=averitec_tiny", "seed=3"], "_averitec_tiny_tiny_averitec_s3"),
    ],
)
def test_a_run_folder_says_its_experiment(overrides: list[str], named: str) -> None:
    config = compose(CONF, "train", overrides)
    assert re.fullmatch(rf"outputs/runs/[\d-]+_[\d-]+{named}", config.hydra.run.dir)
    assert re.fullmatch(r"outputs/sweeps/[\d-]+_[\d-]+", config.hydra.sweep.dir)  # one folder for all jobs


def test_no_name_of_an_experiment_leaves_its_folder() -> None:
    assert of_experiment(None) == ""
    assert of_experiment("../up/x y") == "up-x-y_"
    assert of_experiment(["a", "b/c"]) == "a-b-c_"


def test_options_of_the_same_name_but_another_kind() -> None:
    assert data_name({"name": "table", "test": {"file": "x"}, "split_validation": "yes"}) == "table"
