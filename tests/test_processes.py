"""Several processes: the same scores as one, said once; sweeps run each job as its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.running import SMALL_DEMO, CommandLine

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
"""Of these alone three processes give scores: what matters is that the rows do not divide evenly."""


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


def test_one_two_and_three_processes_give_the_same_scores(command: CommandLine, repository: Path) -> None:
    trained = command("method=gradsim", "evaluation=accuracy").folder
    folders = {}
    for n in (1, 2, 3):
        arguments = (
            "fit=false",
            "model=local",
            f"model.path={trained / 'model'}",
            f"method=[{','.join(SOME if n == 3 else SCORES)}]",
            f"evaluation=[{'accuracy' if n == 3 else 'accuracy,faithfulness,interventions,head_importance'}]",
            "data.n_train=60",
            "data.n_validation=10",
            "data.n_test=23",
            "data.n_twins=2",
            f"paths.store=store{n}",
            *(LAYERS if n < 3 else ()),
        )
        if n == 1:
            code, out, err = vars(command(*arguments, "trainer.accelerator=cpu", base=())).values()
        else:
            finished = start(repository, command.folder, *arguments, "trainer=ddp_cpu", f"trainer.devices={n}")
            code, out, err = finished.returncode, finished.stdout, finished.stderr
        assert code == 0, err
        for name in SOME if n == 3 else SCORES:
            assert out.count(f"{name}: computed") == 1
        folders[n] = command.folder / out.strip().splitlines()[-1]
    for n in (2, 3):
        for name in SOME if n == 3 else SCORES:
            column = SCORES[name]
            one, several = (
                datasets.load_from_disk(str(folders[k] / "scores" / name / "test")).with_format("numpy") for k in (1, n)
            )
            assert np.array_equal(one["index"][:], several["index"][:])
            # a sentence has as many heads at tokens as it has tokens: lists of different lengths, joined
            expected, found = (np.concatenate(list(table[column][:])) for table in (one, several))
            smallest = 1e-7 + 1e-6 * np.abs(expected).max()  # sums over many parameters round with their largest
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=smallest, err_msg=name)
        results = [(folders[k] / "results.csv").read_text().splitlines() for k in (1, n)]
        assert results[1] == (results[0][: len(results[1])] if n == 3 else results[0])


@pytest.mark.parametrize("n_test", [1])
def test_fewer_examples_than_processes_is_one_sentence(command: CommandLine, repository: Path, n_test: int) -> None:
    finished = start(repository, command.folder, *SMALL_DEMO[:-2], f"data.limit.test={n_test}", "trainer=ddp_cpu")
    assert finished.returncode == 2, finished.stderr
    refused = [line for line in finished.stderr.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 1
    assert "trainer.devices=1" in refused[0]


def test_a_sweep_with_several_devices_runs_each_job_as_its_own_run_and_shares_the_training_rows(
    command: CommandLine, repository: Path
) -> None:
    finished = start(
        repository,
        command.folder,
        "-m",
        *(argument for argument in SMALL_DEMO[1:-1] if "limit" not in argument),
        "trainer=ddp_cpu",
        "trainer.max_epochs=1",
        "method=gradsim",
        "evaluation=[accuracy]",
        "seed=3",
    )
    assert finished.returncode == 0, finished.stderr
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    assert [row["status"] for row in csv.DictReader((sweep / "sweep.csv").open())] == ["done"]
    assert [path.name for path in sweep.iterdir() if path.is_dir() and path.name.isdigit()] == ["0"]
    assert finished.stdout.count("fit: computed") == 1
    steps = [json.loads(path.read_text())["steps"] for path in command.folder.glob("outputs/store/fit/*/fit.json")]
    # 60 rows in batches of 8 on each of two processes; one process alone would take 8 steps
    assert steps == [4]
