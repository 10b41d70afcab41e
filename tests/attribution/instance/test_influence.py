from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import oracles
from tests.attribution.instance.cases import BUDGET, make_head, make_split, prepared_scores, score_matrix
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.cotangents import softmax_root
from twinlens.attribution.instance.curvature import ggn_matrix, ggn_trace
from twinlens.attribution.instance.direct import DirectScorer, direct_plan
from twinlens.attribution.instance.dual import DualScorer, dual_plan
from twinlens.attribution.instance.factors import gram
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.head_gradients import differentiable_head, loss_factors
from twinlens.attribution.instance.hessian import exact_hessian, smallest_eigenvalue
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer

HEADS = ["linear", "linear_bias", "mlp", "mlp_no_bias", "deep"]


def explicit_influence(matrix, damping, train, test, weights_only=False):
    """∇ᵀ(H + λI)⁻¹∇ with the inverse written out."""
    left, right = (oracles.head_gradients(s.head, s.features, s.labels, weights_only) for s in (test, train))
    absolute = damping * matrix.trace() / len(matrix)
    return left @ torch.linalg.inv(matrix + absolute * torch.eye(len(matrix), dtype=matrix.dtype)) @ right.T


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("solver", ["direct", "dual"])
@pytest.mark.parametrize("kind", HEADS)
def test_ggn_influence_equals_the_explicit_inverse(kind, solver, params):
    head = make_head(kind)
    train, test = make_split(head, 12), make_split(head, 4, seed=2)
    weights_only = params == "weight"
    matrix = oracles.mean_loss_ggn(head, train.features, weights_only)
    scorer = Influence(solver=solver, damping=0.05, params=params).prepare(train, BUDGET)
    expected = explicit_influence(matrix, 0.05, train, test, weights_only)
    assert_close(score_matrix(scorer, test), expected)
    assert_close(scorer.self_influence(), explicit_influence(matrix, 0.05, train, train, weights_only).diagonal())
    assert scorer.describe()["residual"] < 1e-10
    assert scorer.describe()["damping_absolute"] == pytest.approx(0.05 * float(matrix.trace()) / len(matrix))


@pytest.mark.parametrize("params", ["weight", "head"])
@pytest.mark.parametrize("kind", HEADS)
def test_hessian_influence_equals_the_explicit_inverse(kind, params):
    head = make_head(kind)
    train, test = make_split(head, 12), make_split(head, 4, seed=2)
    weights_only = params == "weight"
    matrix = oracles.mean_loss_hessian(head, train.features, train.labels, weights_only)
    # Enough damping for the random, untrained heads, whose Hessians are indefinite.
    damping = 0.1 + 2 * max(0.0, -float(torch.linalg.eigvalsh(matrix)[0])) * len(matrix) / float(matrix.trace())
    scorer = Influence("hessian", damping=damping, params=params).prepare(train, BUDGET)
    assert_close(score_matrix(scorer, test), explicit_influence(matrix, damping, train, test, weights_only))
    assert scorer.describe()["residual"] < 1e-10


@pytest.mark.parametrize("memory_budget", [1, 20_000, BUDGET])
@pytest.mark.parametrize("kind", HEADS)
def test_exact_hessian_and_ggn_equal_the_oracles_in_any_blocks(kind, memory_budget):
    head = make_head(kind)
    train = make_split(head, 7)
    prepared = differentiable_head(head, "head")
    hessian = oracles.mean_loss_hessian(head, train.features, train.labels)
    ggn = oracles.mean_loss_ggn(head, train.features)
    torch.testing.assert_close(exact_hessian(prepared, train, memory_budget), hessian, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(ggn_matrix(prepared, train.features, memory_budget), ggn, rtol=1e-10, atol=1e-13)
    assert ggn_trace(prepared, train.features, memory_budget) == pytest.approx(float(ggn.trace()), rel=1e-12)
    if prepared.is_linear:
        torch.testing.assert_close(hessian, ggn, rtol=1e-10, atol=1e-13)
    else:
        assert not torch.allclose(hessian, ggn, rtol=1e-2)


@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_hessian_of_a_linear_head_takes_the_path_of_the_ggn(solver):
    head = make_head("linear_bias")
    train, test = make_split(head, 10), make_split(head, 3, seed=2)
    exact = Influence("hessian", solver).prepare(train, BUDGET)
    assert exact.describe()["curvature_equals_ggn"]
    assert torch.equal(score_matrix(exact, test), prepared_scores(Influence("ggn", solver), train, test))


def test_closed_form_of_two_class_logistic_regression():
    """With two classes the weight difference w carries everything: H_w = 1/n Xᵀdiag(p(1−p))X."""
    head = nn.Linear(3, 2, bias=False).eval()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.3, -0.2, 0.5], [-0.3, 0.2, -0.5]]))
    train, test = (make_split(head, n, seed=n, hidden=3, classes=2) for n in (20, 5))
    x, z = train.features.double(), test.features.double()
    w = 2 * head.weight[0].double()
    p, q = torch.sigmoid(x @ w), torch.sigmoid(z @ w)
    hessian = x.T @ (x * (p * (1 - p))[:, None]) / len(x)
    g, h = (z * (q - (test.labels == 0).double())[:, None], x * (p - (train.labels == 0).double())[:, None])
    # Each gradient is (g, −g) in the two rows and the Hessian is [[H, −H], [−H, H]], of mean eigenvalue tr(H)/3.
    absolute = 0.1 * hessian.trace() / 3
    expected = 2 * g @ torch.linalg.inv(2 * hessian + absolute * torch.eye(3, dtype=torch.float64)) @ h.T
    assert_close(prepared_scores(Influence(damping=0.1), train, test), expected.detach())


@pytest.mark.parametrize("solver", ["direct", "dual"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_damped_influence_tends_to_the_gradient_product(kind, solver):
    head = make_head(kind)
    train, test = make_split(head, 12), make_split(head, 4, seed=2)
    product = prepared_scores(GradientSimilarity(), train, test)
    errors = []
    for damping in (1e1, 1e3, 1e5):
        scorer = Influence(solver=solver, damping=damping).prepare(train, BUDGET)
        scaled = score_matrix(scorer, test) * float(scorer.describe()["damping_absolute"])
        errors.append(float((scaled - product).norm() / product.norm()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-3


def test_upweighting_a_train_example_lowers_the_test_loss_by_the_score():
    """Against the derivative of retraining: one Newton step from the optimum of the damped mean loss."""
    head = make_head("linear")
    train, test = make_split(head, 30), make_split(head, 3, seed=2)
    decay = 0.05
    x, y = train.features.double(), train.labels
    loss_of = nn.functional.cross_entropy

    def fit(weights):
        w = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, history_size=50)

        def closure():
            optimiser.zero_grad()
            loss = (weights * loss_of(x @ w.T, y, reduction="none")).sum() + decay / 2 * w.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return w.detach()

    base = torch.full((30,), 1 / 30, dtype=torch.float64)
    head = nn.Linear(5, 3, bias=False).double().eval()
    with torch.no_grad():
        head.weight.copy_(fit(base))
    train, test = (HeadInputs(s.features, s.labels, head) for s in (train, test))
    damping = decay / (float(oracles.mean_loss_ggn(head, train.features).trace()) / 15)
    scores = prepared_scores(Influence(damping=damping), train, test)
    step = 1e-4
    for i in (0, 7, 21):
        more, less = base.clone(), base.clone()
        more[i] += step
        less[i] -= step
        change = [loss_of(test.features.double() @ fit(w).T, test.labels, reduction="none") for w in (less, more)]
        torch.testing.assert_close(scores[:, i], (change[0] - change[1]) / (2 * step), rtol=1e-4, atol=1e-6)


def test_softmax_root_has_the_right_square_at_the_edges():
    p = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1e-300, 1e-9, 1 - 1e-9]], dtype=torch.float64)
    root = softmax_root(p)
    assert root.shape == (4, 2, 3)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(root.mT @ root, expected, rtol=1e-12, atol=1e-15)


def test_smallest_eigenvalue():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64)).Q
    for values in (
        torch.linspace(-0.3, 5, 60),
        torch.cat([torch.zeros(50), torch.linspace(-1, 2, 10)]),
        torch.ones(60),
    ):
        matrix = basis * values.double() @ basis.T
        assert smallest_eigenvalue(matrix) == pytest.approx(float(values.min()), abs=1e-8)
    assert smallest_eigenvalue(torch.zeros(4, 4, dtype=torch.float64)) == 0


def test_an_indefinite_hessian_is_refused_with_its_eigenvalue_and_a_damping_that_works():
    head = make_head("mlp")
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(3)
    train = make_split(head, 12)
    matrix = oracles.mean_loss_hessian(head, train.features, train.labels)
    smallest = float(torch.linalg.eigvalsh(matrix)[0])
    assert smallest < 0
    with pytest.raises(UserError) as refusal:
        Influence("hessian", damping=1e-6).prepare(train, BUDGET)
    message = str(refusal.value)
    assert f"smallest eigenvalue {smallest:.4g} " in message
    enough = float(message.split("at least ")[1].split(" ")[0])
    scorer = Influence("hessian", damping=1.01 * enough).prepare(train, BUDGET)
    assert scorer.describe()["smallest_eigenvalue"] == pytest.approx(smallest, rel=1e-6)
    Influence("ggn", damping=1e-6).prepare(train, BUDGET)


def test_auto_takes_the_cheaper_solver_that_fits():
    few_rows = make_split(make_head("mlp"), 4)
    many_rows = make_split(make_head("linear"), 200)
    assert isinstance(Influence().prepare(few_rows, BUDGET), DualScorer)
    assert isinstance(Influence().prepare(many_rows, BUDGET), DirectScorer)
    head = differentiable_head(many_rows.head, "head")
    assert direct_plan(head, 200).memory < dual_plan(head, 200).memory
    with pytest.raises(UserError, match="solver=dual does not fit"):
        Influence(solver="dual").prepare(many_rows, direct_plan(head, 200).memory)


def test_no_solver_within_the_budget_is_refused_with_both_needs():
    train = make_split(make_head("mlp"), 10)
    with pytest.raises(
        UserError, match=r"memory budget of [0-9.]+ (B|KiB): direct needs .*B, dual needs .*B, cg needs .*gradsim"
    ):
        Influence().prepare(train, 100)


def test_dual_of_an_exact_hessian_is_refused_for_an_mlp_head():
    with pytest.raises(UserError, match="positive semi-definite"):
        Influence("hessian", "dual").prepare(make_split(make_head("mlp"), 10), BUDGET)


@pytest.mark.parametrize("damping", [0, -1, float("nan")])
def test_damping_must_be_positive(damping):
    with pytest.raises(UserError, match="expected a number above 0"):
        Influence(damping=damping)


def test_a_vanishing_curvature_is_refused():
    train = make_split(make_head("linear"), 3)
    with pytest.raises(UserError, match="trace 0,"):
        Influence().prepare(HeadInputs(torch.zeros_like(train.features), train.labels, train.head), BUDGET)


@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_satisfies_the_protocols(solver):
    method = Influence(solver=solver)
    scorer = method.prepare(make_split(make_head("mlp"), 6), BUDGET)
    assert isinstance(method, InstanceMethod)
    assert isinstance(scorer, InstanceScorer)
    described = scorer.describe()
    assert described["solver"] == solver
    assert str(described["sign"]).startswith("positive: towards the target")


def test_self_influence_does_not_depend_on_the_budget():
    train = make_split(make_head("mlp"), 9)
    for solver in ("direct", "dual"):
        scorer = Influence(solver=solver).prepare(train, BUDGET)
        whole = scorer.self_influence()
        scorer.block_budget = 1
        torch.testing.assert_close(scorer.self_influence(), whole, rtol=1e-12, atol=0)
        factors = loss_factors(scorer.head, train)
        assert torch.all(whole * scorer.description["damping_absolute"] <= gram(factors, factors).diagonal())
