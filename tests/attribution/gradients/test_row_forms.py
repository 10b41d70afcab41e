"""Small forms of stored rows equal what they stand for: rounding, truncated factors, scores with every curvature."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.attribution.gradients.test_projected import all_scores, split
from twinlens.attribution.gradients.blocks import token_blocks
from twinlens.attribution.gradients.layout import RowLayout, row_layout
from twinlens.attribution.gradients.row_forms import DENSE, RowForm, Storage
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.small_forms import FEW_TESTS, Factored, Half, leading_triplets
from twinlens.attribution.gradients.storage import bytes_per_row, form_of, kept_of
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.stream import stream_scores

BUDGET = 2**30
SMALL: list[RowForm] = [Half(), Factored(1), Factored(3)]  # type: ignore[list-item]


def stored(rows: GradientRows, form: RowForm) -> GradientRows:
    return replace(rows, groups=tuple(form.encode(rows.layout, rows.groups)), form=form)


def written_out(rows: GradientRows, rank: int) -> list[Tensor]:
    """Every gradient's truncated singular value decomposition, one at a time."""
    found = []
    for number, group in enumerate(rows.groups):
        out = group.double().clone()
        for layer, columns in rows.layout.parts(number):
            for row in out:
                left, values, right = torch.linalg.svd(
                    row[columns].view(rows.layout.shapes[layer]), full_matrices=False
                )
                row[columns] = (left[:, :rank] * values[:rank] @ right[:rank]).flatten()
        found.append(out)
    return found


def test_dense_rows_are_the_arrays_themselves() -> None:
    rows = split(5, seed=0)
    assert all(a is b for a, b in zip(DENSE.encode(rows.layout, rows.groups), rows.groups, strict=True))
    assert rows.formed() is rows
    assert rows.group(1) is rows.groups[1]


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (1, 6)])
def test_leading_triplets_are_a_truncated_decomposition(shape: tuple[int, int]) -> None:
    blocks = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    rank = min(2, *shape)
    left, right = leading_triplets(blocks, rank)
    for row, block in enumerate(blocks.double()):
        u, s, v = torch.linalg.svd(block, full_matrices=False)
        torch.testing.assert_close(left[row].T @ right[row], u[:, :rank] * s[:rank] @ v[:rank])


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_factored_rows_are_truncated_decompositions_up_to_eight_bits(rank: int) -> None:
    rows = split(6, seed=1)
    found = stored(rows, Factored(rank))  # type: ignore[arg-type]
    for number, expected in enumerate(written_out(rows, rank)):
        step = expected.abs().max() / 127
        assert (found.group(number).double() - expected).abs().max() < 2 * step
        assert torch.linalg.norm(found.group(number).double() - expected) < 0.01 * torch.linalg.norm(expected)


def test_a_gradient_of_rank_one_is_kept_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    blocks = token_blocks(torch.randn(1, 9, 6, generator=generator), torch.randn(1, 9, 5, generator=generator))[0]
    rows = GradientRows(row_layout(["layer"], [(5, 6)]), (blocks.flatten(1),))
    form: RowForm = form_of("factored", 1)
    kept = kept_of(form, rows.layout, rows.groups, form.encode(rows.layout, rows.groups))
    assert abs(kept.share - 1) < 0.01
    difference = stored(rows, form).group(0) - rows.groups[0]
    assert torch.linalg.norm(difference) < 0.01 * torch.linalg.norm(rows.groups[0])


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1.0, 65504.0, 1e30, 3.3e38])
def test_half_rows_neither_overflow_nor_vanish(size: float) -> None:
    rows = split(4, seed=3)
    largest = torch.stack([group.abs().amax(1) for group in rows.groups]).amax(0)[:, None]
    rows = replace(rows, groups=tuple(group / largest * size for group in rows.groups))
    found = stored(rows, Half())  # type: ignore[arg-type]
    for number, group in enumerate(rows.groups):
        assert torch.isfinite(found.group(number)).all()
        torch.testing.assert_close(found.group(number), group, rtol=2**-10, atol=size * 2**-24)
    assert kept_of(found.form, rows.layout, rows.groups, found.groups).zeroed == 0


def test_numbers_that_become_zero_are_counted() -> None:
    layout = row_layout(["layer"], [(1, 4)])
    groups = [torch.tensor([[1.0, 1e-11, 1e-13, 0.0], [0.0, 0.0, 0.0, 0.0]])]
    kept = kept_of(Half(), layout, groups, Half().encode(layout, groups))  # type: ignore[arg-type]
    assert kept.zeroed == 1


@pytest.mark.parametrize("form", SMALL, ids=str)
def test_rows_that_vanish_come_back_as_zeros(form: RowForm) -> None:
    rows = split(3, seed=4)
    rows = replace(rows, groups=tuple(group * torch.tensor([[1.0], [0.0], [1.0]]) for group in rows.groups))
    assert all(bool((stored(rows, form).group(number)[1] == 0).all()) for number in range(len(rows.groups)))
    scorer = GradientSimilarity("cosine", params="all", projection="random").prepare(stored(rows, form), BUDGET)
    assert bool((all_scores(scorer, split(2, seed=5))[:, 1] == 0).all())


@pytest.mark.parametrize("form", SMALL, ids=str)
@pytest.mark.parametrize("curvature", [None, "identity", "ggn", "ekfac", "datainf"])
def test_scores_over_small_rows_are_those_over_the_rows_they_form(form: RowForm, curvature: str | None) -> None:
    train, test = split(40, seed=6), split(FEW_TESTS + 3, seed=7)
    if curvature is None:
        method: GradientSimilarity | Influence = GradientSimilarity(params="all", projection="random")
    else:
        method = Influence(curvature=curvature, damping=0.3, params="all", projection="random")  # type: ignore[arg-type]
    small = stored(train, form)
    plain = method.prepare(small.formed(), BUDGET)
    scorer = method.prepare(small, BUDGET)
    expected = all_scores(plain, test)
    torch.testing.assert_close(all_scores(scorer, test), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    few = all_scores(scorer, test.rows(0, FEW_TESTS))  # the factors themselves, without a row formed
    torch.testing.assert_close(few, expected[:FEW_TESTS], rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(scorer.self_influence(), plain.self_influence(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("form", SMALL, ids=str)
def test_shares_of_layers_add_up_to_the_scores(form: RowForm) -> None:
    scorer = GradientSimilarity(params="all", projection="random").prepare(stored(split(9, seed=8), form), BUDGET)
    query = scorer.query(split(2, seed=9), torch.arange(2))
    index = torch.tensor([[3, 0, -1], [8, 8, 2]])
    shares = scorer.shares(query, index).sum(-1)
    scores = scorer.scores(query, 0, 9)
    for test, row in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        torch.testing.assert_close(shares[test, row], scores[test, index[test, row]], rtol=1e-4, atol=1e-4)
    assert shares[0, 2] == 0


def test_lists_do_not_depend_on_the_blocks() -> None:
    train, test = stored(split(600, seed=10), Factored(2)), split(20, seed=11)  # type: ignore[arg-type]
    scorer = GradientSimilarity(params="all", projection="random").prepare(train, BUDGET)
    whole, _ = stream_scores(scorer, test, torch.arange(20), 10, BUDGET)
    cut, _ = stream_scores(scorer, test, torch.arange(20), 10, 2**20 + scorer.bytes_held)
    assert torch.equal(whole.top_index, cut.top_index)


@pytest.mark.parametrize(("storage", "share"), [("half", 0.51), ("factored", 0.125)])
def test_bytes_of_a_row_under_the_default_projection(storage: Storage, share: float) -> None:
    layout: RowLayout = row_layout([f"layer{number}" for number in range(35)], [(16, 16)] * 35)
    form, method = form_of(storage, 3), GradientSimilarity()
    assert (method.projection_dim, method.storage_rank) == (16, 3)
    arrays = form.encode(layout, [torch.randn(2, width) for width in layout.widths])
    written = sum(array[0].numel() * array.element_size() for array in arrays)
    assert written == bytes_per_row(form, layout) <= share * bytes_per_row(DENSE, layout)
