"""Agreement with ablation against loops, and lists put back in their places."""

from __future__ import annotations

import pytest
import torch

from tests import oracles_truth as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.neuron_truth import NeuronTruth
from twinlens.attribution.evaluation.needs import Available
from twinlens.callbacks.evaluate.neuron_truth import dense

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(2, 3, 2, 6, generator=GENERATOR)  # two seeds, three tests
TRUTH = torch.randn(3, 2, 6, generator=GENERATOR).round(decimals=1)


def test_agreement_equals_loops() -> None:
    test = NeuronTruth(recall=[4])
    found = {
        (row.metric, row.group): row
        for row in test.evaluate({"mine": [test.compare(seed, TRUTH) for seed in SCORES]}, controls=["mine"])
    }
    assert len(found) == 3 + 2 * 2
    assert all(row.control and row.n == 3 and row.method == "mine" for row in found.values())
    for metric, oracle in (("neuron_pearson", oracles.pearson), ("neuron_spearman", oracles.spearman)):
        each = [oracle(own.flatten().tolist(), true.flatten().tolist())
                for seed in SCORES for own, true in zip(seed, TRUTH, strict=True)]  # fmt: skip
        assert found[metric, ""].value == pytest.approx(sum(each) / 6)
        layer = [oracle(own[1].tolist(), true[1].tolist())
                 for seed in SCORES for own, true in zip(seed, TRUTH, strict=True)]  # fmt: skip
        assert found[metric, "layer=1"].value == pytest.approx(sum(layer) / 6)

    def first(values: torch.Tensor) -> set[int]:
        flat = values.flatten().tolist()
        return set(sorted(range(12), key=lambda place: (-flat[place], place))[:4])

    shares = [len(first(own) & first(true)) / 4 for seed in SCORES for own, true in zip(seed, TRUTH, strict=True)]
    recall = found["neuron_recall", ""]
    assert (recall.value, recall.k) == (pytest.approx(sum(shares) / 6), 4)
    assert recall.low is not None
    assert recall.high is not None
    assert recall.low <= recall.value <= recall.high


def test_lists_go_back_to_their_places() -> None:
    rows = {
        "layer": [torch.tensor([1, 0]), torch.tensor([0])],
        "unit": [torch.tensor([2, 0]), torch.tensor([1])],
        "score": [torch.tensor([0.5, 0.1]), torch.tensor([0.7])],
    }
    found = dense(rows, (2, 3))
    assert found.tolist() == [
        [[pytest.approx(0.1), 0, 0], [0, 0, 0.5]],
        [[0, pytest.approx(0.7), 0], [0, 0, 0]],
    ]


def test_what_is_missing_or_short_is_said() -> None:
    assert "method=ablation" in NeuronTruth().missing(Available(neuron=("ig",)))
    assert "beside ablation" in NeuronTruth().missing(Available(neuron=("ablation",)))
    assert NeuronTruth().missing(Available(neuron=("ablation", "ig"))) == ""
    with pytest.raises(UserError, match=r"set method\.ig\.top_k=2048"):
        NeuronTruth().require_neurons("ig", 100, 2048)
    with pytest.raises(UserError, match="asks for no neuron"):
        NeuronTruth(recall=[])
