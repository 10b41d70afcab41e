"""A fit keeps the weights of every epoch where a method reads them, with the learning rate each was reached with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import one_hot

from tests.callbacks.plan.test_planner import in_store
from tests.running import SMALLER_MODEL, CommandLine
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


@pytest.mark.long
def test_unrolling_goes_back_through_the_kept_epochs(command: CommandLine) -> None:
    """Only the head, nothing projected: the formula by matrix functions over plain forwards of the kept weights."""
    run = command(
        "method=source", "method.source.params=score", "method.source.projection_dim=64",
        "method.source.rate_scale=300", *SMALLER_MODEL, *FOLLOWED[1:],
    )  # fmt: skip
    assert run.code == 0, run.err
    told = yaml.safe_load((run.folder / "scores" / "source" / "method.yaml").read_text())
    explained = load_file(run.folder / "model" / "model.safetensors")["score.weight"]
    found = epochs(command)
    ends = [torch.equal(load_file(path / "model.safetensors")["score.weight"], explained) for path in found]
    kept = found[: ends.index(True) + 1]
    sums = [json.loads((path / "epoch.json").read_text())["rate_sum"] for path in kept]
    rates = [json.loads((path / "epoch.json").read_text())["learning_rate"] for path in found]
    start = rates[0] / (5 / 6)
    assert sums == pytest.approx([start * (6 + 5) / 6, start * (4 + 3) / 6, start * (2 + 1) / 6][: len(kept)])
    assert told["segments"] == len(kept)
    assert told["rate_sums"] == pytest.approx(sums)

    train, test = (list(datasets.load_from_disk(str(run.folder / "examples" / s))) for s in ("train", "test"))
    left = gradients_at(kept[-1], test)
    expected = torch.zeros(len(test), len(train), dtype=torch.float64)
    for path, rate_sum in zip(reversed(kept), reversed(sums), strict=True):
        fisher, time = fisher_at(path, train), 300 * rate_sum
        decay = torch.linalg.matrix_exp(-time * fisher)
        gain = torch.linalg.solve(fisher, torch.eye(len(fisher)).double() - decay)
        expected += left @ gain @ gradients_at(path, train).T
        left = left @ decay
    for row in datasets.load_from_disk(str(run.folder / "scores" / "source" / "test")):
        wanted = expected[row["index"]].sort(descending=True).values
        assert row["top_score"] == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-4 * float(wanted.abs().max()))


def gradients_at(epoch: Path, rows: Any) -> torch.Tensor:
    """Of the loss with respect to the head's weight, [examples, classes · hidden], float64."""
    inputs = head_at(epoch, rows)
    states = inputs.features.double()
    errors = inputs.head.double()(states).softmax(-1) - one_hot(inputs.labels, inputs.head.out_features)
    return (errors[:, :, None] * states[:, None, :]).flatten(1).detach()


def fisher_at(epoch: Path, rows: Any) -> torch.Tensor:
    """EK-FAC's matrix of the head's weight, with labels weighted one by one."""
    inputs = head_at(epoch, rows)
    states = inputs.features.double()
    scores = inputs.head.double()(states).detach()
    p = scores.softmax(-1)
    errors = p[:, None, :] - torch.eye(p.shape[1]).double()  # of every label
    outputs = torch.einsum("ny,nyc,nyd->cd", p, errors, errors) / len(p)
    basis = torch.kron(torch.linalg.eigh(outputs)[1], torch.linalg.eigh(states.T @ states / len(states))[1])
    each = (errors[..., None] * states[:, None, None, :]).flatten(2) @ basis
    values = torch.einsum("ny,nyk->k", p, each.square()) / len(p)
    return basis @ torch.diag(values + 1e-12) @ basis.T
