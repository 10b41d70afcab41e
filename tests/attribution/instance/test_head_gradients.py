from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests import oracles
from tests.attribution.instance.cases import make_head, make_split
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.factors import dense, gram, squared_norms
from twinlens.attribution.instance.head_gradients import differentiable_head, loss_factors
from twinlens.attribution.instance.inputs import HeadInputs

HEADS = ["linear", "linear_bias", "mlp", "mlp_no_bias", "deep"]


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("kind", HEADS)
def test_dense_factors_equal_autograd(kind, params):
    head = make_head(kind)
    inputs = make_split(head, 6)
    prepared = differentiable_head(head, params)
    actual = dense(loss_factors(prepared, inputs))
    expected = oracles.head_gradients(head, inputs.features, inputs.labels, weights_only=params == "weight")
    assert actual.shape == (6, prepared.n_parameters)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", HEADS)
def test_gram_and_norms_are_those_of_the_dense_gradients(kind):
    head = make_head(kind)
    prepared = differentiable_head(head, "head")
    left, right = (loss_factors(prepared, make_split(head, n, seed=n)) for n in (4, 7))
    torch.testing.assert_close(gram(left, right), dense(left) @ dense(right).T, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(squared_norms(left), dense(left).square().sum(1), rtol=1e-12, atol=1e-14)


def test_only_a_single_layer_that_yields_the_logits_is_linear():
    assert differentiable_head(make_head("linear_bias"), "head").is_linear
    assert differentiable_head(nn.Sequential(nn.Dropout(0.1), nn.Linear(5, 3)).eval(), "head").is_linear
    assert not differentiable_head(nn.Sequential(nn.Linear(5, 3), nn.Tanh()), "head").is_linear
    assert not differentiable_head(make_head("mlp"), "head").is_linear


def test_the_callers_head_is_left_alone():
    head = make_head("mlp")
    before = copy.deepcopy(head.state_dict())
    loss_factors(differentiable_head(head, "head"), make_split(head, 3))
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())
    assert all(p.dtype == torch.float32 and p.grad is None and p.requires_grad for p in head.parameters())
    assert not any(m._forward_hooks for m in head.modules())


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_gradients_are_taken_inside_gradient_free_contexts(context):
    head = make_head("mlp")
    inputs = make_split(head, 3)
    expected = dense(loss_factors(differentiable_head(head, "head"), inputs))
    with context():
        inside = HeadInputs(inputs.features.clone(), inputs.labels.clone(), head)
        for dtype in (torch.float32, torch.float64):
            cast = HeadInputs(inside.features.to(dtype), inside.labels, head)
            torch.testing.assert_close(dense(loss_factors(differentiable_head(head, "head"), cast)), expected)


def test_foreign_parameters_are_refused_by_name():
    with pytest.raises(UserError, match=r"outside nn.Linear layers: 1.weight, 1.bias; expected nn.Linear"):
        differentiable_head(nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3)), "head")


def test_active_dropout_is_refused():
    head = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.1), nn.Linear(4, 3))
    with pytest.raises(UserError, match="train mode with dropout"):
        differentiable_head(head.train(), "head")
    differentiable_head(head.eval(), "head")


def test_a_layer_that_runs_twice_is_refused():
    shared = nn.Linear(4, 4)
    with pytest.raises(UserError, match="runs 2 times"):
        differentiable_head(nn.Sequential(shared, nn.Tanh(), shared), "head")
