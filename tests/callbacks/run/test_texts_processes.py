"""Documents over two processes: the fit, every list and the steps behind them are those of one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from tests.faults import starting
from tests.running import CommandLine
from tests.small_texts import documents

DOCUMENTS = documents(6)
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris.", "topic": "a"},
    {"prompt": "In most years the month after May is", "completion": " June.", "topic": "b"},
    {"prompt": "Snow is", "completion": " white.", "topic": "b"},
    *({"prompt": f"{word} is", "completion": " white.", "topic": ""} for word in ("Grass", "Rome", "Paris", "June")),
]
ROWS = ("gradsim_cosine", "influence_ekfac", "tracin")
METHODS = (*ROWS, "bm25", "similarity")
ASKED = (
    "model=facts", "data=texts", "data.train=docs.jsonl", "data.queries=questions.jsonl", "data.max_length=48",
    "data.group=topic", "logger=none", "fit=true", "trainer.max_epochs=2",
    f"method=[{','.join(METHODS)},logprob_increase]", "evaluation=[tail_patch]", "evaluation.tail_patch.first=[2]",
    *(f"method.{name}.projection_dim=4" for name in ROWS),
)  # fmt: skip


@pytest.mark.long
def test_two_processes_give_what_one_does(command: CommandLine, tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.mkdir()
    for folder in (command.folder, two):
        for name, rows in (("docs", DOCUMENTS), ("questions", QUERIES)):
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = command(*ASKED, "data.batch_size=4", "trainer.accelerator=cpu", base=())
    assert one.code == 0, one.err
    process = starting.start(two, *ASKED, "trainer=ddp_cpu", "trainer.devices=2", "data.batch_size=2",
                             "hydra.run.dir=run")  # fmt: skip
    assert process.wait(timeout=4 * starting.SECONDS) == 0, (two / "err").read_text()
    runs = one.folder, two / "run"
    for name in METHODS:
        for part in ("test", "groups"):
            lists = [datasets.load_from_disk(str(run / "scores" / name / part)) for run in runs]
            for first, second in zip(*lists, strict=True):
                scores = [dict(zip(row["top_index"], row["top_score"], strict=True)) for row in (first, second)]
                found = np.array([[own[document] for document in range(len(DOCUMENTS))] for own in scores])
                largest = np.abs(found).max()
                np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4 * largest, err_msg=name)
    neurons = [datasets.load_from_disk(str(run / "scores" / "logprob_increase" / "test")) for run in runs]
    for first, second in zip(*neurons, strict=True):
        np.testing.assert_allclose(second["score"][:20], first["score"][:20], rtol=1e-3, atol=1e-5)
    rises = []
    for run in runs:
        rows = csv.DictReader((run / "results.csv").open())
        rises.append({(row["method"], row["reference_group"]): float(row["value"]) for row in rows})
    assert rises[1] == pytest.approx(rises[0], rel=1e-2, abs=1e-4)
