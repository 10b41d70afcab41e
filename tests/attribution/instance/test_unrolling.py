"""Segmented unrolling equals matrices written out, and on a quadratic loss what gradient descent itself has done."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests import oracles_rows as oracle
from tests.attribution.instance.cases import BUDGET, score_matrix
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.protocol import InstanceScorer
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.instance.tracin_rows import CheckpointRows
from twinlens.attribution.instance.unrolling import SegmentedUnrolling

SIDES = [(2, 3), (3, 2)]
LAYOUT = row_layout(["one", "two"], SIDES)
RATES = (0.7, 0.2, 1.1)


def positive(size: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T / size


def rows_of(n: int, seed: int, curvature: bool) -> GradientRows:
    """Random gradients, with those of a curvature, two of each example, and covariances beside them."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(count, width, generator=generator) for width in LAYOUT.widths)

    if not curvature:
        return GradientRows(LAYOUT, drawn(n))
    covariances = tuple((positive(k_in, generator), positive(k_out, generator)) for k_out, k_in in SIDES)
    return GradientRows(LAYOUT, drawn(n), fisher=GradientRows(LAYOUT, drawn(2 * n), 2, covariances))


def layers_of(rows: GradientRows) -> list[Tensor]:
    """[rows, numbers] of each layer, float64."""
    found = {}
    for number, group in enumerate(rows.groups):
        for layer, part in rows.layout.parts(number):
            found[layer] = group[:, part].double()
    return [found[layer] for layer in range(len(SIDES))]


def written_out(fisher: GradientRows, corrected: bool) -> Tensor:
    """The segment's curvature over both layers, a block each."""
    blocks = []
    for number, rows in enumerate(layers_of(fisher)):
        inputs, outputs = fisher.covariances[number]  # type: ignore[index]
        corrected_matrix = oracle.ekfac_matrix(inputs, outputs, rows, len(fisher))
        blocks.append(corrected_matrix if corrected else oracle.kfac_matrix(inputs, outputs))
    return torch.block_diag(*blocks)


def unrolled(test: Tensor, steps: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The formula with matrix functions, for (gradients, curvature, T) of every segment."""
    scores = torch.zeros(len(test), len(steps[0][0]), dtype=torch.float64)
    for number, (gradients, matrix, time) in enumerate(steps):
        left = test
        for _, later, its_time in reversed(steps[number + 1 :]):
            left = left @ torch.linalg.matrix_exp(-its_time * later)
        gain = (torch.eye(len(matrix)).double() - torch.linalg.matrix_exp(-time * matrix)) @ torch.linalg.inv(matrix)
        scores += left @ gain @ gradients.T
    return scores


@pytest.mark.parametrize("curvature", ["kfac", "ekfac"])
def test_equals_the_matrices_of_every_segment_written_out(curvature: Any) -> None:
    train = CheckpointRows(tuple((rows_of(7, seed, True), rate) for seed, rate in enumerate(RATES)))
    test = rows_of(4, 9, False)
    scorer = SegmentedUnrolling(curvature=curvature, rate_scale=2.0).prepare(train, BUDGET)
    assert isinstance(scorer, InstanceScorer)
    steps = [
        (torch.cat(layers_of(rows), 1), written_out(rows.curvature_rows, curvature == "ekfac"), 2 * rate)
        for rows, rate in train.steps
    ]
    expected = unrolled(torch.cat(layers_of(test), 1), steps)
    torch.testing.assert_close(score_matrix(scorer, test).double(), expected, rtol=1e-4, atol=1e-5)
    own = unrolled(steps[-1][0], steps).diagonal()
    for budget in (1, BUDGET):
        found = SegmentedUnrolling(curvature=curvature, rate_scale=2.0).prepare(train, budget).self_influence()
        torch.testing.assert_close(found, own, rtol=1e-6, atol=1e-8)
    whole, _ = stream_scores(scorer, test, torch.arange(4), 3, BUDGET)
    parts, _ = stream_scores(scorer, test, torch.arange(4), 3, 1)
    assert torch.equal(whole.top_index, parts.top_index)


def descended(weights: Tensor, x: Tensor, y: Tensor, rate: float, steps: int) -> tuple[Tensor, list[Tensor]]:
    """W after plain gradient descent on 1/n Σ w_i ½‖W x_i − y_i‖², and W before every step."""
    w, before = torch.zeros(y.shape[1], x.shape[1], dtype=torch.float64), []
    for _ in range(steps):
        before.append(w.detach())
        w = w - rate / len(x) * ((w @ x.T - y.T) * weights) @ x
    return w, before


def test_on_a_quadratic_loss_it_approaches_what_descent_has_done() -> None:
    """The loss's curvature is I ⊗ A: K-FAC is exact, and steps of half the size leave half of the error."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    probe = torch.randn(2, 3, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        weights = torch.ones(6, dtype=torch.float64, requires_grad=True)
        final, before = descended(weights, x, y, 2.0 / steps, steps)
        # ∂⟨probe, W⟩/∂w_i: with the loss of the test falling where it is positive
        expected = -torch.autograd.grad((probe * final).sum(), weights)[0] * len(x)
        layout = row_layout(["map"], [(2, 3)])
        segments = []
        for w in before:
            gradients = ((x @ w.T - y)[:, :, None] * x[:, None, :]).flatten(1)
            covariances = ((x.T @ x / len(x), torch.eye(2).double()),)
            segments.append((GradientRows(layout, (gradients.float(),), covariances=covariances), 2.0 / steps))
        method = SegmentedUnrolling(curvature="kfac", fisher="empirical")
        scorer = method.prepare(CheckpointRows(tuple(segments)), BUDGET)
        test = GradientRows(layout, (probe.flatten()[None].float(),))
        found = scorer.scores(scorer.query(test, torch.tensor([0])), 0, 6)[0].double()
        errors.append(float((found - expected).norm() / expected.norm()))
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.15)


def test_flat_segments_are_tracin_and_long_ones_are_influence() -> None:
    rows, test = rows_of(7, 1, True), rows_of(4, 9, False)
    product = torch.cat(layers_of(test), 1) @ torch.cat(layers_of(rows), 1).T
    short = SegmentedUnrolling(rate_scale=1e-7).prepare(CheckpointRows(((rows, 0.5),)), BUDGET)
    torch.testing.assert_close(score_matrix(short, test).double() / 0.5e-7, product, rtol=1e-4, atol=1e-4)
    long = SegmentedUnrolling(rate_scale=1e6).prepare(CheckpointRows(((rows, 1.0),)), BUDGET)
    matrix = written_out(rows.curvature_rows, True)
    inverse = torch.cat(layers_of(test), 1) @ torch.linalg.inv(matrix) @ torch.cat(layers_of(rows), 1).T
    torch.testing.assert_close(score_matrix(long, test).double(), inverse, rtol=1e-3, atol=1e-3)


def test_a_direction_without_curvature_goes_on_as_it_is() -> None:
    flat = ((torch.diag(torch.tensor([1.0, 0.0])).double(), torch.ones(1, 1).double()),)
    rows = GradientRows(row_layout(["one"], [(1, 2)]), (torch.eye(2),), covariances=flat)
    method = SegmentedUnrolling(curvature="kfac", fisher="empirical")
    scorer = method.prepare(CheckpointRows(((rows, 2.0), (rows, 3.0))), BUDGET)
    test = GradientRows(rows.layout, (torch.tensor([[1.0, 1.0]]),))
    found = scorer.scores(scorer.query(test, torch.tensor([0])), 0, 2)
    expected = torch.tensor([[1 - torch.e**-5.0, 5.0]])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_unrolled_is_refused() -> None:
    with pytest.raises(UserError, match=r"params=head with projection=none.*set params=all projection=random"):
        SegmentedUnrolling(params="head", projection="none")
    with pytest.raises(UserError, match=r"params=all with projection=none"):
        SegmentedUnrolling(projection="none")
    with pytest.raises(UserError, match=r"rate_scale=0 lets no training pass"):
        SegmentedUnrolling(rate_scale=0)
    with pytest.raises(UserError, match=r"learning rates add up to \[\].*fit=true"):
        SegmentedUnrolling().prepare(CheckpointRows(()), BUDGET)
    with pytest.raises(UserError, match=r"add up to \[0.0\]"):
        SegmentedUnrolling().prepare(CheckpointRows(((rows_of(3, 1, True), 0.0),)), BUDGET)
