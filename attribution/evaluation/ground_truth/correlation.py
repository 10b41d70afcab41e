"""Correlations of scores with what was measured, and their bootstrap over measurements and over examples."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.instance.ranks import average_ranks

DRAWS = 1000
"""Resamples: the ends of a 95 % interval then rest on twenty-five draws each."""
AT_ONCE = 2_000_000
"""Resampled ranks that are in memory at a time."""


def pearson(x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Pearson correlation over the last dimension, [...]; 0 where one side is constant.

    Args:
        x, y: [..., points].
        weight: how often each point counts, [..., points]; None: once.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.correlation import pearson, spearman
        >>> x, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 40.0])
        >>> round(float(pearson(x, y)), 2), float(spearman(x, y))
        (0.8, 1.0)
    """
    x, y = x.double(), y.double()
    weight = torch.ones_like(x) if weight is None else weight.double()
    total = weight.sum(-1, keepdim=True)
    x = x - (weight * x).sum(-1, keepdim=True) / total
    y = y - (weight * y).sum(-1, keepdim=True) / total
    norm = ((weight * x * x).sum(-1) * (weight * y * y).sum(-1)).sqrt()
    return torch.where(norm > 0, (weight * x * y).sum(-1) / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Spearman correlation over the last dimension, [...], ties sharing their mean rank; 0 where one side is constant.

    Args:
        x, y: [..., points], no NaN.
    """
    first, second = (average_ranks(side.reshape(-1, side.shape[-1])).view(side.shape) for side in (x, y))
    return pearson(first, second)


def counts_of_draws(n: int, draws: int, seed: int) -> Tensor:
    """How often each of n things is drawn in n draws with replacement, float64 [draws, n]; the same for equal n.

    Args:
        n: things.
        draws: resamples.
        seed: of the draws.
    """
    chosen = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, n).double())


def resampled_spearman(x: Tensor, y: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Mean over tests of the Spearman correlation over points, of points and tests drawn with replacement, [draws].

    Every resample is ranked anew, points that were drawn twice sharing their rank. Equal sizes get equal draws, so that
    differences of two results are paired.

    Args:
        x, y: [tests, points].
        draws: resamples.
        seed: of the draws.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.correlation import resampled_spearman
        >>> x = torch.arange(8.0).expand(3, 8)
        >>> resampled_spearman(x, x, draws=4)  # whatever is drawn
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """
    tests, points = x.shape
    of_points, of_tests = counts_of_draws(points, draws, seed), counts_of_draws(tests, draws, seed + 1)
    found, step = [], max(1, AT_ONCE // (tests * points))
    below = [_places_below(side) for side in (x, y)]
    for start in range(0, draws, step):
        weight = of_points[start : start + step]
        first, second = (torch.einsum("tij,dj->dti", side, weight) for side in below)
        of_draws = pearson(first, second, weight[:, None].expand_as(first))
        found.append((of_draws * of_tests[start : start + step]).sum(1) / tests)
    return torch.cat(found)


def _places_below(values: Tensor) -> Tensor:
    """1 where the second point lies below the first, ½ where they are equal, [tests, points, points]: times how often
    each point counts, these are ranks."""
    first, second = values.double()[:, :, None], values.double()[:, None]
    return (second < first).double() + 0.5 * (second == first).double()
