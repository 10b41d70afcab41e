from __future__ import annotations

import pytest
import torch

from tests import oracles
from tests.attribution.instance.cases import (
    BUDGET,
    choice_head,
    make_choices,
    make_head,
    make_split,
    prepared_scores,
    score_matrix,
)
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.inputs import CheckpointInputs, HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.instance.tracin import TracIn

RATES = (0.5, 0.2, 0.01)


def checkpoints(kind, n, seed, rates=RATES):
    """One split under several heads; its features change with them, as those of a fine-tuned model do."""
    steps = []
    for number, rate in enumerate(rates):
        head = make_head(kind, seed=number)
        split = make_split(head, n, seed=seed)
        steps.append((HeadInputs(split.features + 0.1 * number, split.labels, head), rate))
    return CheckpointInputs(tuple(steps))


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("kind", ["linear_bias", "mlp"])
def test_equals_the_sum_over_checkpoints_of_autograd_products(kind, params):
    train, test = checkpoints(kind, 9, 1), checkpoints(kind, 4, 2)
    expected, own = torch.zeros(4, 9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    for (left, rate), (right, _) in zip(test.steps, train.steps, strict=True):
        g, h = (oracles.head_gradients(s.head, s.features, s.labels, params == "weight") for s in (left, right))
        expected += rate * g @ h.T
        own += rate * h.square().sum(1)
    scorer = TracIn(params).prepare(train, BUDGET)
    torch.testing.assert_close(score_matrix(scorer, test), expected, rtol=1e-10, atol=1e-12)
    for budget in (1, BUDGET):
        torch.testing.assert_close(TracIn(params).prepare(train, budget).self_influence(), own, rtol=1e-10, atol=0)
    fast = prepared_scores(TracIn(params, dtype="float32"), train, test)
    torch.testing.assert_close(fast.double(), expected, rtol=1e-4, atol=1e-5)


def test_one_checkpoint_is_gradient_similarity_times_the_learning_rate():
    for train, test in (
        (make_split(head := make_head("mlp"), 9), make_split(head, 4, seed=2)),
        (make_choices(head := choice_head("mlp"), 9), make_choices(head, 4, seed=2)),
    ):
        traced = prepared_scores(TracIn(), CheckpointInputs(((train, 0.3),)), CheckpointInputs(((test, 0.3),)))
        product = prepared_scores(GradientSimilarity(), train, test)
        torch.testing.assert_close(traced, 0.3 * product, rtol=1e-10, atol=1e-12)


def test_streams_in_any_blocks():
    train, test = checkpoints("mlp", 15, 1), checkpoints("mlp", 7, 2)
    scorer = TracIn().prepare(train, BUDGET)
    assert isinstance(TracIn(), InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    assert scorer.describe()["learning_rates"] == list(RATES)
    whole, _ = stream_scores(scorer, test, torch.arange(7), 5, BUDGET)
    parts, _ = stream_scores(scorer, test, torch.arange(7), 5, 1)
    assert torch.equal(parts.top_index, whole.top_index)


def test_bad_checkpoints_are_refused():
    with pytest.raises(UserError, match=r"no checkpoint.*fit=true"):
        TracIn().prepare(CheckpointInputs(()), BUDGET)
    with pytest.raises(UserError, match=r"learning rates \[0.5, 0.0\]"):
        TracIn().prepare(checkpoints("linear", 4, 1, rates=(0.5, 0.0)), BUDGET)


@pytest.mark.parametrize("fast", [False, True], ids=["TracInCP", "TracInCPFast"])
def test_equals_captum(fast):
    influence = pytest.importorskip("captum.influence", reason="needs captum (pip install twinlens[bench])")
    kind = "linear_bias"
    train, test = checkpoints(kind, 9, 1), checkpoints(kind, 4, 2)
    features = train.steps[0][0].features
    # captum runs one model on the same inputs under every checkpoint: here only the head changes.
    train, test = (
        CheckpointInputs(tuple((HeadInputs(s.steps[0][0].features, i.labels, i.head), rate) for i, rate in s.steps))
        for s in (train, test)
    )
    model = torch.nn.Sequential(torch.nn.Identity(), make_head(kind))

    def load(net, step):
        net[1].load_state_dict(train.steps[step][0].head.state_dict())
        return train.steps[step][1]

    data = torch.utils.data.TensorDataset(features, train.steps[0][0].labels)
    common = {"checkpoints": list(range(len(RATES))), "checkpoints_load_func": load, "batch_size": 4}
    if fast:
        loss = torch.nn.CrossEntropyLoss(reduction="sum")
        peer = influence.TracInCPFast(model, model[1], data, loss_fn=loss, **common)
    else:
        loss = torch.nn.CrossEntropyLoss(reduction="none")
        peer = influence.TracInCP(model, data, loss_fn=loss, sample_wise_grads_per_batch=False, **common)
    expected = peer.influence((test.steps[0][0].features, test.steps[0][0].labels)).double()
    # The fast form takes the layer's input and output gradient alone, without the bias.
    method = TracIn("weight" if fast else "head")
    torch.testing.assert_close(prepared_scores(method, train, test), expected, rtol=1e-4, atol=1e-5)
    own = peer.self_influence(torch.utils.data.DataLoader(data, batch_size=4)).double()
    torch.testing.assert_close(method.prepare(train, BUDGET).self_influence(), own, rtol=1e-4, atol=1e-5)
