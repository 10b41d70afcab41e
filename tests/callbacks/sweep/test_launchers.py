"""Sweeps whose jobs a launcher of Hydra runs in other processes at the same time."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.running import SMALL_DEMO, CommandLine, installed
from tests.test_processes import start

PACKAGES = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}


@pytest.mark.parametrize("launcher", PACKAGES)
def test_a_sweep_in_other_processes_tells_of_every_job(launcher: str, tmp_path: Path, repository: Path) -> None:
    if not installed(PACKAGES[launcher]):
        pytest.skip(f"the extra for hydra/launcher={launcher} is not installed")
    too_many = "evaluation.faithfulness.comprehensiveness=[101],[100]"
    arguments = (*SMALL_DEMO, "evaluation=faithfulness", "method=ig", too_many)
    finished = start(repository, tmp_path, "-m", f"hydra/launcher={launcher}", *arguments)
    assert finished.returncode == 2, finished.stderr
    refused = [line for line in finished.stderr.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 1
    assert "job 0" in refused[0]
    assert "top_k=100" in refused[0]
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert [row["status"] for row in rows] == ["refused", "done"]
    assert (sweep / "summary.csv").is_file()
    assert finished.stdout.strip().splitlines()[-1].endswith(sweep.name)
    assert not (sweep / "multirun.yaml").exists()
    assert not list(sweep.rglob("*.pkl"))
    assert len([entry for entry in (tmp_path / "outputs" / "store" / "fit").iterdir() if entry.is_dir()]) == 1


@pytest.mark.parametrize("launcher", [*PACKAGES, "submitit_slurm"])
def test_a_launcher_that_is_not_installed_is_one_sentence(launcher: str, command: CommandLine) -> None:
    if installed(PACKAGES.get(launcher, PACKAGES["submitit_local"])):
        pytest.skip(f"the extra for hydra/launcher={launcher} is installed")
    finished = command("-m", f"hydra/launcher={launcher}", "seed=0,1")
    assert finished.code == 2
    assert f"pip install -e '.[{launcher.partition('_')[0]}]'" in finished.err
