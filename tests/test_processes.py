"""Several processes: the same scores as one, said once; sweeps run each job as its own."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.faults import starting
from tests.running import SMALL_DEMO, SMALLER_MODEL, CommandLine, once

SCORES = {
    "ig": "score",
    "gradsim": "top_score",
    "influence": "top_score",
    "na_instances": "top_score",
    "gradsim_neurons": "score",
    "logprob_increase": "score",
    "head_positions": "score",
    "query_neurons": "score",
    "gradsim_cosine": "top_score",
    "influence_ekfac": "top_score",
}
LAYERS = (
    "method.gradsim_cosine.params=all",
    "method.gradsim_cosine.projection=pca",
    "method.gradsim_cosine.projection_dim=4",
    "method.influence_ekfac.params=all",
)
"""Stored rows of projected gradients, and whole gradients with factors of every layer."""
SOME = ("ig", "gradsim", "logprob_increase")
"""Of these alone three processes give scores."""
SIZES = ("data.n_train=60", "data.n_validation=10", "data.n_test=23", "data.n_twins=2", "trainer.max_epochs=1")
"""Rows that do not divide evenly."""
WHAT = (
    f"method=[{','.join(SCORES)}]",
    "evaluation=[accuracy,faithfulness,interventions,head_importance]",
    *LAYERS,
    *SIZES,
    *SMALLER_MODEL,
)
TWO = ("trainer=ddp_cpu", "trainer.devices=2", "data.batch_size=4")
"""As many rows in a step as one process has in a batch of 8."""


def start(
    repository: Path, folder: Path, *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """`python train.py …` as a user starts it, on one thread per process; killed after `timeout` seconds."""
    return subprocess.run(
        [sys.executable, str(repository / "train.py"), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def start_together(folder: Path, count: int) -> list[int]:
    """Exit codes of so many runs of two processes each, run0 and so on, started together on one store."""
    runs = [starting.start(folder, *WHAT, *TWO, f"hydra.run.dir=run{n}") for n in range(count)]
    return [run.wait(timeout=4 * starting.SECONDS) for run in runs]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes."""

    def build(folder: Path) -> None:
        assert start_together(folder, 1) == [0], (folder / "err").read_text()

    return once(tmp_path_factory, "of_two", build)


def compare(one: Path, several: Path, names: Iterable[str]) -> None:
    """The scores of one run are those of another."""
    for name in names:
        tables = [
            datasets.load_from_disk(str(run / "scores" / name / "test")).with_format("numpy") for run in (one, several)
        ]
        assert np.array_equal(*(table["index"][:] for table in tables))
        # a sentence has as many heads at tokens as it has tokens: lists of different lengths, joined
        expected, found = (np.concatenate(list(table[SCORES[name]][:])) for table in tables)
        smallest = 1e-7 + 1e-6 * np.abs(expected).max()  # sums over many parameters round with their largest
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=smallest, err_msg=name)


@pytest.mark.long
def test_two_runs_of_two_processes_each_share_a_store(tmp_path: Path) -> None:
    assert start_together(tmp_path, 2) == [0, 0], (tmp_path / "err").read_text()
    told = (tmp_path / "out").read_text()
    for what in ("fit", *SCORES):
        assert told.count(f"{what}: computed") == 1
        assert told.count(f"{what}: read from the store") == 1
    assert (tmp_path / "run0" / "results.csv").read_text() == (tmp_path / "run1" / "results.csv").read_text()
    assert not list((tmp_path / "outputs").rglob("*.partial"))


def test_two_processes_give_the_scores_of_one(command: CommandLine, of_two: Path) -> None:
    """At the same weights: one process reads the fit that two have stored."""
    shutil.copytree(of_two / "outputs" / "store" / "fit", command.folder / "outputs" / "store" / "fit")
    one = command(*WHAT, "trainer.accelerator=cpu", base=())
    assert one.code == 0, one.err
    assert "fit: read from the store" in one.out
    compare(one.folder, of_two / "run0", SCORES)
    for what in ("fit", *SCORES):
        assert (of_two / "out").read_text().count(f"{what}: computed") == 1
    assert not list((of_two / "outputs").rglob("*.partial"))
    assert (of_two / "run0" / "results.csv").read_text() == (one.folder / "results.csv").read_text()


@pytest.mark.long
def test_three_processes_give_the_scores_of_one(command: CommandLine, repository: Path, trained: Path) -> None:
    arguments = ("fit=false", "model=local", f"model.path={trained / 'model'}", "evaluation=accuracy", *SIZES[:-1])
    one = command(*arguments, f"method=[{','.join(SOME)}]", "trainer.accelerator=cpu", "paths.store=store1", base=())
    assert one.code == 0, one.err
    three = ("trainer=ddp_cpu", "trainer.devices=3", "paths.store=store3")
    finished = start(repository, command.folder, *arguments, f"method=[{','.join(SOME)}]", *three)
    assert finished.returncode == 0, finished.stderr
    for name in SOME:
        assert finished.stdout.count(f"{name}: computed") == 1
    several = command.folder / finished.stdout.strip().splitlines()[-1]
    compare(one.folder, several, SOME)
    assert (several / "results.csv").read_text() == (one.folder / "results.csv").read_text()


@pytest.mark.long
def test_fewer_examples_than_processes_are_served(command: CommandLine, repository: Path) -> None:
    """The second process computes what the first does, and writes nothing."""
    few = (*SMALL_DEMO[:-2], "data.limit.test=1", "method=[ig,gradsim]", "evaluation=accuracy")
    finished = start(repository, command.folder, *few, "trainer=ddp_cpu", "paths.store=two", "data.batch_size=4")
    assert finished.returncode == 0, finished.stderr
    shutil.copytree(command.folder / "two" / "fit", command.folder / "one" / "fit")
    one = command(*few, "trainer.accelerator=cpu", "paths.store=one", "data.batch_size=8", base=())
    assert one.code == 0, one.err
    compare(one.folder, command.folder / finished.stdout.strip().splitlines()[-1], ("ig", "gradsim"))


@pytest.mark.long
def test_a_sweep_with_several_devices_runs_each_job_as_its_own_run_shares_the_training_rows_and_overwrites(
    command: CommandLine, repository: Path, of_two: Path
) -> None:
    shutil.copytree(of_two / "outputs" / "store", command.folder / "outputs" / "store")
    arguments = (*SIZES, *SMALLER_MODEL, *TWO, "method=gradsim", "evaluation=[accuracy]", "seed=0", "overwrite=true")
    finished = start(repository, command.folder, "-m", *arguments)
    assert finished.returncode == 0, finished.stderr
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    assert [row["status"] for row in csv.DictReader((sweep / "sweep.csv").open())] == ["done"]
    assert [path.name for path in sweep.iterdir() if path.is_dir() and path.name.isdigit()] == ["0"]
    for what in ("fit", "gradsim"):
        assert finished.stdout.count(f"{what}: computed") == 1
    steps = [json.loads(path.read_text())["steps"] for path in command.folder.glob("outputs/store/fit/*/fit.json")]
    # 60 rows in batches of 4 on each of two processes; one process alone would take 15 steps
    assert steps == [8]
    before, again = ((run / "results.csv").read_text().splitlines() for run in (of_two / "run0", sweep / "0"))
    assert again == before[: len(again)]
    scores = [datasets.load_from_disk(str(run / "scores/gradsim/test")) for run in (of_two / "run0", sweep / "0")]
    assert scores[0]["top_score"][:] == scores[1]["top_score"][:]
    assert not list((command.folder / "outputs").rglob("*.partial"))
