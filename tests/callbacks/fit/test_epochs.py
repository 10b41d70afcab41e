"""A fit keeps the weights of every epoch where a method reads them, with the learning rate each was reached with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.callbacks.plan.test_planner import in_store
from tests.running import CommandLine
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.inputs import HeadInputs

FOLLOWED = (
    "method=tracin",
    "evaluation=accuracy",
    "explain=gold",
    "model.schedule=linear",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=2",
)


def epochs(command: CommandLine) -> list[Path]:
    return sorted(command.folder.glob("outputs/store/fit/*/epochs/*"))


def head_at(epoch: Path, rows: Any) -> HeadInputs:
    """Head inputs of a split by a plain forward over the kept weights."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(epoch).eval()
    with torch.no_grad():
        features = [model.base_model(torch.tensor([row["input_ids"]])).last_hidden_state[0, -1] for row in rows]
    return HeadInputs(torch.stack(features), torch.tensor([row["label"] for row in rows]), model.score)


def test_epochs_are_kept_where_a_method_reads_them(command: CommandLine) -> None:
    plain = command("method=gradsim", *FOLLOWED[1:])
    assert plain.code == 0, plain.err
    assert epochs(command) == []
    finished = command(*FOLLOWED)
    assert finished.code == 0, finished.err
    assert "fit: computed" in finished.out
    kept = epochs(command)
    assert [path.name for path in kept] == ["1", "2", "3"]
    rates = [json.loads((path / "epoch.json").read_text())["learning_rate"] for path in kept]
    # a linear decay over 6 steps: what the second, fourth and sixth were made with
    start = rates[0] / (5 / 6)
    assert rates == pytest.approx([start * 5 / 6, start * 3 / 6, start * 1 / 6])
    weights = [load_file(path / "model.safetensors")["score.weight"] for path in kept]
    assert not torch.equal(weights[0], weights[2])
    # the same weights are learned, and what is made of them is shared
    assert (plain.folder / "examples" / "test").resolve() == (finished.folder / "examples" / "test").resolve()

    train, test = (list(datasets.load_from_disk(str(finished.folder / "examples" / s))) for s in ("train", "test"))
    expected = torch.zeros(len(test), len(train), dtype=torch.float64)
    for path, rate in zip(kept, rates, strict=True):
        scorer = GradientSimilarity().prepare(head_at(path, train), 2**30)
        query = scorer.query(head_at(path, test), torch.arange(len(test)))
        expected += rate * scorer.scores(query, 0, len(train))
    for row in datasets.load_from_disk(str(finished.folder / "scores" / "tracin" / "test")):
        wanted = expected[row["index"]].sort(descending=True).values
        assert row["top_score"] == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-6 * float(wanted.abs().max()))

    again = command(*FOLLOWED)
    assert "tracin: read from the store" in again.out
    planned = in_store(command(*FOLLOWED, "plan=true").out)
    assert {f"predict {split}, epoch {n}" for split in ("train", "test") for n in (1, 2, 3)} <= set(planned)
    assert set(planned.values()) == {"yes"}
