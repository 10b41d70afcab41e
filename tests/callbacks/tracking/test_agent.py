"""Sweep file of Weights & Biases: the command lines that an agent makes of it are runs of this project."""

from __future__ import annotations

from pathlib import Path

import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tests.callbacks.tracking.reading import read_wandb
from tests.conf.checking.composing import compose, parse
from tests.running import SMALL_DEMO, CommandLine
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.optimised import check_optimised

REPOSITORY = Path(__file__).parents[3]
SWEEP = yaml.safe_load((REPOSITORY / "docs" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
DRAWN = {"method.influence.damping": {"value": 0.25}, "method.influence.curvature": {"value": "hessian"}}
"""What the server would send for one run."""
FORMS = ("args_no_hyphens", "args")


def typed(form: str) -> list[str]:
    """The arguments of train.py as an agent gives them, made by the agent's own functions."""
    asked = ["${" + form + "}" if word == "${args_no_hyphens}" else word for word in SWEEP["command"]]
    given = create_sweep_command_args({"args": DRAWN})
    words = [word for part in create_sweep_command(asked) for word in given.get(part[2:-1], [part])]
    return words[words.index("${program}") + 1 :]


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_are_the_same_run(form: str) -> None:
    arguments = typed(form)
    assert arguments[-1] == ("--" if form == "args" else "") + "method.influence.curvature=hessian"
    command = check_command_line(arguments, REPOSITORY / "conf", compose, parse)
    config = compose(REPOSITORY / "conf", "train", command.overrides)
    assert (config.method.influence.damping, config.method.influence.curvature) == (0.25, "hessian")
    assert list(config.logger) == ["wandb"]
    assert command.arguments == typed("args_no_hyphens")  # what Hydra and other processes read


def test_the_file_names_parameters_and_a_number_of_its_run() -> None:
    assert set(SWEEP["parameters"]) == set(DRAWN)
    config = compose(REPOSITORY / "conf", "train", typed("args_no_hyphens"))
    names = {"method": dict(config.method), "evaluation": dict(config.evaluation)}
    check_optimised({**names, "optimise": SWEEP["metric"]["name"]}, None)
    assert SWEEP["metric"]["name"].endswith(f"_at_{config.evaluation.lds.subsets}")


def test_options_of_hydra_stay_options() -> None:
    arguments = ["--multirun", "--config-name=train", "--seed=0,1", "--hydra.sweep.dir=x"]
    command = check_command_line(arguments, REPOSITORY / "conf", compose, parse)
    assert command.arguments == ["--multirun", "--config-name=train", "seed=0,1", "hydra.sweep.dir=x"]
    assert command.multirun


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
def test_an_agents_command_lines_run(form: str, command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()  # an agent starts a process for each run, which reads the environment anew
    for name, value in {"HOME": str(command.folder), "WANDB_MODE": "offline", "WANDB_RUN_ID": "drawn123"}.items():
        monkeypatch.setenv(name, value)
    small = (*SMALL_DEMO, "evaluation.lds.subsets=5", "hydra.run.dir=run")
    finished = command(*typed(form), base=small)
    assert finished.code == 0, finished.err
    found = read_wandb(command.folder / "run")
    assert found.run.run_id == "drawn123"  # the agent's, which knows it by this name
    assert found.config["method"]["influence"]["damping"] == 0.25
    assert "influence/lds/lds_at_5" in found.summary
