"""Tests asked together: one input for each group of them, and which of its best train rows pull alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.inputs import HeadInputs, TextInputs
from twinlens.attribution.instance.tracin_rows import CheckpointRows

ALIKE = 0.5
"""Mean cosine between two clusters from which on they are one: directions within 60 degrees of each other."""


def grouped(tests: Any, members: Sequence[Tensor]) -> Any:
    """One test for each group, in the same form.

    Gradients are averaged, so that φ of a group is the mean φ of its tests: inner products, influences and TracIn are
    means of the tests' own scores, and a cosine is that with the group's gradient. Hidden states are averaged too, and
    texts are put together, so that a word that two of them have counts twice.

    Args:
        tests: stored gradient rows, those under several checkpoints, head inputs or texts of all tests.
        members: rows of each group's tests, [tests of the group] each, one at the least.

    Raises:
        TypeError: another form, whose tests cannot be put together.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> from twinlens.attribution.instance.groups import grouped
        >>> rows = GradientRows(row_layout(["score"], [(1, 2)]), (torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]),))
        >>> grouped(rows, [torch.tensor([0, 1]), torch.tensor([2])]).groups[0]
        tensor([[0.5000, 1.0000],
                [4.0000, 4.0000]])
    """
    if isinstance(tests, GradientRows):
        tests = tests.formed()  # means of a form's arrays are no means of rows
        return replace(tests, groups=tuple(_means(group, members) for group in tests.groups))
    if isinstance(tests, CheckpointRows):
        return CheckpointRows(tuple((grouped(rows, members), rate) for rows, rate in tests.steps))
    if isinstance(tests, TextInputs):
        return TextInputs(["\n".join(tests.texts[row] for row in rows.tolist()) for rows in members])
    if isinstance(tests, HeadInputs):
        first = torch.stack([rows[0] for rows in members])
        return replace(tests.at(first), features=_means(tests.features, members))
    raise TypeError(f"tests of the form {type(tests).__name__} cannot be put together")


def clusters_of(pulls: Tensor, scores: Tensor) -> Tensor:
    """Cluster of each train row, by the tests of a group that it pulls on, [rows], int64; −1 where it does not pull.

    Two rows pull alike where their scores for the group's tests point in one direction. Clusters grow from single rows:
    the two with the highest mean cosine between their rows become one as long as it is at least `ALIKE`, of equal ones
    those with the lower rows (average linkage). They are numbered by the sum of their rows' scores for the group, the
    highest first, so that cluster 0 is what carries most.

    Args:
        pulls: score of each row for each test of the group, [rows, tests].
        scores: of each row for the group, [rows]; rows without a positive one are in no cluster.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.groups import clusters_of
        >>> pulls = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.9, 0.1], [-1.0, 0.0]])
        >>> clusters_of(pulls, torch.tensor([0.5, 1.5, 0.5, -0.5]))  # the second row carries more than the other two
        tensor([ 1,  0,  1, -1])
    """
    rows = torch.nonzero(scores > 0)[:, 0]
    found = torch.full((len(scores),), -1, dtype=torch.int64)
    own = pulls[rows].double()
    lengths = own.norm(dim=1, keepdim=True)
    own = own * torch.where(lengths > 0, 1 / lengths, 0.0)
    sums = own @ own.T  # Σ of cosines between the rows of two clusters
    sizes = torch.ones(len(rows), dtype=torch.float64)
    clusters = [[place] for place in range(len(rows))]
    while len(clusters) > 1:
        means = sums / (sizes[:, None] * sizes)
        means = means.masked_fill(~torch.ones_like(means, dtype=torch.bool).triu(1), -torch.inf)
        best = int(means.argmax())
        if float(means.flatten()[best]) < ALIKE:
            break
        first, second = divmod(best, len(clusters))
        clusters[first] += clusters.pop(second)
        left = [place for place in range(len(sizes)) if place != second]
        sums[first] += sums[second]
        sums[:, first] += sums[:, second]
        sizes[first] += sizes[second]
        sums, sizes = sums[left][:, left], sizes[left]
    clusters.sort(key=lambda places: (-float(scores[rows[places]].double().sum()), min(places)))
    for number, places in enumerate(clusters):
        found[rows[places]] = number
    return found


def _means(rows: Tensor, members: Sequence[Tensor]) -> Tensor:
    """Mean row of each group, [groups, …], added up in float64."""
    return torch.stack([rows[own].double().mean(0).to(rows.dtype) for own in members])
