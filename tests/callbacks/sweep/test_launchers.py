"""Sweeps whose jobs a launcher of Hydra runs in other processes at the same time."""

from __future__ import annotations

import csv
import pickle
import signal
import time
from pathlib import Path

import pytest
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.singleton import Singleton
from omegaconf.basecontainer import BaseContainer

from tests.faults.ranks import processes_of
from tests.faults.starting import SECONDS, finished_shards, wait_until
from tests.faults.starting import start as begin
from tests.running import SMALL_DEMO, CommandLine, installed
from tests.test_processes import start
from twinlens.conf.checking.config_sources import CheckedFiles, check_what_is_read

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


@pytest.mark.long
def test_workers_of_joblib_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    if not installed(PACKAGES["joblib"]):
        pytest.skip("the extra for hydra/launcher=joblib is not installed")
    slow = ("debug=fdr", "data.limit.train=48", "data.limit.test=32", "method=ig", "method.ig.n_steps=400")
    sweep = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "trainer.accelerator=cpu")
    process = begin(tmp_path, *sweep, *slow, "evaluation=accuracy")
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 0, process)
    workers = [other for other in processes_of(process.pid) if other.pid != process.pid]
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + SECONDS
    while processes_of(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    left = [(other.pid, other.cmdline()[-3:]) for other in processes_of(process.pid)]
    for other in processes_of(process.pid):
        other.kill()
    assert left == []


@pytest.mark.parametrize("launcher", [*PACKAGES, "submitit_slurm"])
def test_a_launcher_that_is_not_installed_is_one_sentence(launcher: str, command: CommandLine) -> None:
    if installed(PACKAGES.get(launcher, PACKAGES["submitit_local"])):
        pytest.skip(f"the extra for hydra/launcher={launcher} is installed")
    finished = command("-m", f"hydra/launcher={launcher}", "seed=0,1")
    assert finished.code == 2
    assert f"pip install -c constraints.txt -e '.[{launcher.partition('_')[0]}]'" in finished.err


def test_a_worker_of_a_launcher_reads_files_as_the_sweep_does(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_what_is_read(repository / "conf")
    monkeypatch.setattr(Singleton, "_instances", Singleton._instances)  # put back afterwards
    monkeypatch.setattr(BaseContainer, "_resolvers", BaseContainer._resolvers)
    types = SourcesRegistry.instance().types
    assert pickle.loads(pickle.dumps(types)) == types  # by their names in this project
    Singleton.set_state(Singleton.get_state())  # what joblib's and submitit's launchers do in a worker
    assert SourcesRegistry.instance().types["file"] is CheckedFiles
