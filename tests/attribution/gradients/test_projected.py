"""Scores over stored rows equal explicit float64 matrices, and per-example autograd with an explicit projection."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from tests import oracles_rows as oracle
from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.families import random_batch
from tests.oracles_gradients import fisher_of_layers, ggn_of_layers, layer_gradients
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.fisher import Fisher, fisher_cotangents
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.projection import Projection
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.protocol import InstanceScorer
from twinlens.attribution.instance.stream import stream_scores

SHAPES = [(3, 2), (4, 4), (2, 5)]
BUDGET = 2**30


def split(n: int, seed: int, rank: int = 1, full: bool = True) -> GradientRows:
    """Random rows of three layers in two arrays, with random covariances."""
    generator = torch.Generator().manual_seed(seed)
    layout = row_layout(["a", "b", "c"], SHAPES)
    layout = type(layout)(layout.names, layout.shapes, ((0, 2), (2, 3)))
    groups = tuple(torch.randn(n * rank, width, generator=generator) for width in layout.widths)

    def covariance(size: int) -> Tensor:
        root = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
        return root @ root.T

    sums = tuple((covariance(k_in), covariance(k_out)) for k_out, k_in in SHAPES)
    return GradientRows(layout, groups, rank, sums if full else None)


def dense(rows: GradientRows) -> Tensor:
    return torch.cat([group.double() for group in rows.groups], 1)


def layers_of(rows: GradientRows) -> list[Tensor]:
    return list(dense(rows).split(rows.layout.sizes, 1))


def all_scores(scorer: InstanceScorer, test: GradientRows) -> Tensor:
    return scorer.scores(scorer.query(test, torch.arange(len(test))), 0, scorer.n_train).double()


def expected(method: Influence, test: GradientRows, train: GradientRows) -> Tensor:
    fisher = train.curvature_rows
    g, damping = method.curvature, method.damping
    if g == "identity":
        return dense(test) @ dense(train).T / damping
    if g == "ggn":
        return oracle.ggn_scores(dense(test), dense(train), dense(fisher), len(fisher), damping)
    parts = []
    for number, (left, right, rows) in enumerate(
        zip(layers_of(test), layers_of(train), layers_of(fisher), strict=True)
    ):
        if g == "datainf":
            parts.append(oracle.datainf_scores(left, right, rows, damping))
            continue
        inputs, outputs = fisher.covariances[number]  # type: ignore[index]
        matrix = oracle.kfac_matrix(inputs, outputs)
        if g == "ekfac":
            matrix = oracle.ekfac_matrix(inputs, outputs, rows, len(fisher))
        parts.append(oracle.inverse_scores(left, right, matrix, damping))
    return oracle.per_layer(parts)


METHODS = [
    ("identity", "auto", 1),
    ("ggn", "direct", 2),
    ("ggn", "dual", 2),
    ("ggn", "auto", 2),
    ("kfac", "auto", 2),
    ("ekfac", "auto", 2),
    ("ekfac", "auto", 1),
    ("datainf", "auto", 1),
]


@pytest.mark.parametrize(("curvature", "solver", "rank"), METHODS)
def test_influence_equals_explicit_matrices(curvature: str, solver: str, rank: int) -> None:
    fisher = None if rank == 1 else split(17, 5, rank)
    train, test = split(17, 1), split(6, 2)
    train = GradientRows(train.layout, train.groups, 1, train.covariances, fisher)
    method = Influence(curvature=curvature, solver=solver, params="all", projection="random")  # type: ignore[arg-type]
    scorer = method.prepare(train, BUDGET)
    wanted = expected(method, test, train)
    torch.testing.assert_close(all_scores(scorer, test), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    own = expected(method, train, train).diagonal()
    torch.testing.assert_close(scorer.self_influence(), own, rtol=1e-6, atol=1e-8)
    assert scorer.describe()["curvature"] == curvature
    assert scorer.describe()["n_parameters"] == sum(a * b for a, b in SHAPES)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_similarity_equals_plain_products(similarity: str) -> None:
    train, test = split(9, 1), split(4, 2)
    train.groups[0][3], train.groups[1][3] = 0, 0  # without a direction
    left, right = dense(test), dense(train)
    if similarity == "cosine":
        left, right = (torch.nn.functional.normalize(rows, dim=1) for rows in (left, right))
    scorer = GradientSimilarity(similarity, params="all", projection="random").prepare(train, BUDGET)  # type: ignore[arg-type]
    torch.testing.assert_close(all_scores(scorer, test), left @ right.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scorer.self_influence(), (right * right).sum(1), rtol=1e-6, atol=1e-6)


def test_streamed_lists_do_not_depend_on_the_blocks() -> None:
    train, test = split(300, 1), split(7, 2)
    scorer = Influence(curvature="datainf", params="all", projection="random").prepare(train, BUDGET)
    whole, _ = stream_scores(scorer, test, torch.arange(7), 5, BUDGET)
    cut, _ = stream_scores(scorer, test, torch.arange(7), 5, scorer.bytes_held + 60_000)
    assert torch.equal(whole.top_index, cut.top_index)
    torch.testing.assert_close(whole.top_score, cut.top_score)


def test_arrays_hold_consecutive_layers_up_to_their_width() -> None:
    layout = row_layout(["a", "b", "c", "d"], [(50, 50), (30, 30), (80, 80), (2, 2)])
    assert layout.groups == ((0, 2), (2, 3), (3, 4))
    assert layout.widths == [3400, 6400, 4]
    assert list(layout.parts(0)) == [(0, slice(0, 2500)), (1, slice(2500, 3400))]


@pytest.mark.parametrize(
    ("curvature", "solver", "said"),
    [("hessian", "auto", "of the head alone"), ("ggn", "cg", "solver=cg"), ("ggn", "auto", "does not fit")],
)
def test_what_rows_cannot_serve_is_refused(curvature: str, solver: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Influence(curvature=curvature, solver=solver, params="all", projection="random").prepare(split(9, 1), 1000)  # type: ignore[arg-type]


def test_vanishing_gradients_are_refused_by_name() -> None:
    rows = split(5, 1)
    rows.groups[1].zero_()
    with pytest.raises(UserError, match="layer c"):
        Influence(curvature="datainf", params="all", projection="random").prepare(rows, BUDGET)


# -- from a model ----------------------------------------------------------------------------------------------------


def taped(
    model: Case, batch: dict[str, Tensor], projection: Projection, fisher: Fisher | None = None, per: str = "example"
) -> tuple:
    """Rows of a batch as the pass takes them, with their sums."""
    projections = [projection.random(layer) for layer in model.layers]
    plan = RowPass(model.layers, projections, [projection.sides(layer) for layer in model.layers], per)  # type: ignore[arg-type]
    with recording(model.layers) as tape:
        scores = model.scores(batch)
        if fisher is not None:
            cotangents = fisher_cotangents(scores, batch["labels"], fisher)
        else:
            cotangents = logit_cotangents(scores.detach(), batch["labels"])[None]
        rows, sums = plan.of_batch(tape, scores, cotangents, batch["attention_mask"])
    n, rank = len(scores), len(cotangents)
    groups = tuple(part.reshape(-1, width) for part, width in zip(rows, plan.layout.widths, strict=True))
    means = tuple((inputs / tokens, outputs / n) for inputs, outputs, tokens in sums)
    return GradientRows(plan.layout, groups, rank, means), plan


@pytest.mark.parametrize("curvature", ["identity", "ggn", "ekfac", "datainf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_per_example_autograd_and_an_explicit_projection(family: str, curvature: str) -> None:
    model, draw = case(family), Projection("random", 6, 1)
    train_batch, test_batch = random_batch([5, 3, 7, 4]), random_batch([6, 2], "left", seed=9)
    train, plan = taped(model, train_batch, draw)
    test, _ = taped(model, test_batch, draw)
    if curvature in ("ggn", "ekfac"):
        fisher = taped(model, train_batch, draw, fisher="expectation")[0]
        train = GradientRows(train.layout, train.groups, 1, train.covariances, fisher)

    def explicit(batch: dict[str, Tensor]) -> Tensor:
        return explicitly_projected(plan, layer_gradients(model.layers, model.loss, batch))

    torch.testing.assert_close(dense(train), explicit(train_batch), rtol=1e-5, atol=1e-6)
    method = Influence(curvature=curvature, params="all", projection="random")  # type: ignore[arg-type]
    wanted = expected(method, as_rows(train, explicit(test_batch)), as_rows(train, explicit(train_batch)))
    found = all_scores(method.prepare(train, BUDGET), test)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def explicitly_projected(plan: RowPass, gradients: list[Tensor]) -> Tensor:
    """Every layer's gradients between its two matrices, side by side, [examples, numbers]."""
    parts = []
    for gradient, (inputs, outputs) in zip(gradients, projections_of(plan), strict=True):
        small = gradient if inputs is None else gradient @ inputs
        parts.append((small if outputs is None else outputs.T @ small).flatten(1))
    return torch.cat(parts, 1)


def projections_of(plan: RowPass) -> list[tuple[Tensor | None, Tensor | None]]:
    """Of each layer's inputs and output gradients, float64."""

    def double(matrix: Tensor | None) -> Tensor | None:
        return None if matrix is None else matrix.double()

    return [(double(sides.inputs), double(sides.outputs)) for sides in plan.projections]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_curvature_are_the_generalised_gauss_newton_matrix(family: str) -> None:
    model, batch = case(family), random_batch([5, 3, 7, 4], "left")
    rows, plan = taped(model, batch, Projection("random", 6, 1), fisher="expectation")
    wanted = ggn_of_layers(model.layers, model.scores, batch, lambda found: explicitly_projected(plan, found))
    found = dense(rows).T @ dense(rows) / 4
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("corrected", [False, True], ids=["kfac", "ekfac"])
@pytest.mark.parametrize("fisher", get_args(Fisher))
@pytest.mark.parametrize("family", FAMILIES)
def test_sums_and_rows_give_the_projected_factors_written_out(family: str, fisher: Fisher, corrected: bool) -> None:
    model, batch = case(family), random_batch([5, 3, 7, 4])
    rows, plan = taped(model, batch, Projection("random", 5, 1), fisher=fisher)
    wanted = fisher_of_layers(
        model.layers, model.scores, batch, fisher == "expectation", corrected, projections_of(plan)
    )
    for number, (layer_rows, matrix) in enumerate(zip(layers_of(rows), wanted, strict=True)):
        sums = rows.covariances[number]
        found = oracle.ekfac_matrix(*sums, layer_rows, 4) if corrected else oracle.kfac_matrix(*sums)
        torch.testing.assert_close(found, matrix, rtol=1e-5, atol=2e-6 * float(matrix.abs().max()))


def as_rows(like: GradientRows, numbers: Tensor) -> GradientRows:
    groups = tuple(numbers.split(like.layout.widths, 1))
    return GradientRows(like.layout, groups, 1, like.covariances, like.fisher)


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_rows_of_tokens_add_up_to_their_example(family: str) -> None:
    model, draw, batch = case(family, "backbone.*"), Projection("random", 6, 1), random_batch([5, 3, 7], "left")
    whole = dense(taped(model, batch, draw)[0])
    tokens = dense(taped(model, batch, draw, per="token")[0])
    assert len(tokens) == 15
    torch.testing.assert_close(
        torch.stack([part.sum(0) for part in tokens.split([5, 3, 7])]), whole, rtol=1e-4, atol=1e-5
    )


def test_a_layer_that_reads_one_token_has_no_rows_of_tokens() -> None:
    with pytest.raises(UserError, match="layer head reads one token"):
        taped(case("llama"), random_batch([5, 3]), Projection("random", 4), per="token")
