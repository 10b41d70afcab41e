"""Bootstrap over examples, and over fits of the model where there are several: means of resampled examples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DRAWS = 2000
"""Resamples: the ends of a 95 % interval then rest on fifty draws each."""
AT_ONCE = 4_000_000
"""Drawn examples that are in memory at a time."""


def resampled_means(values: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """Means of examples drawn with replacement, the same ones for every row, float64 [draws, rows].

    Equal sizes get equal draws, whatever is asked: differences of two results of this function are paired.

    Args:
        values: [rows, examples].
        draws: how often all examples are drawn anew.
        seed: of the draws.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.resampling import resampled_means
        >>> found = resampled_means(torch.tensor([[0.0, 1.0], [1.0, 2.0]]), draws=50)
        >>> found.shape, bool((found[:, 1] - found[:, 0] == 1).all())  # the second row is the first, plus one
        (torch.Size([50, 2]), True)
    """
    values = values.double()
    n = values.shape[1]
    generator = torch.Generator().manual_seed(seed)
    found, step = [], max(1, AT_ONCE // n)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        chosen = torch.randint(n, (rows, n), generator=generator)
        counts = torch.zeros(rows, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(rows, n).double())
        found.append(counts @ values.T / n)
    return torch.cat(found)


def resampled_means_of_runs(values: Tensor, draws: int = DRAWS, seed: int = 0) -> Tensor:
    """The same where every example was measured in several fits: fits are drawn with replacement as well.

    Args:
        values: [rows, runs, examples]; the same fit in the same place of every row.
        draws, seed: see `resampled_means`.

    Returns:
        [draws, rows], float64.
    """
    rows, runs, n = values.shape
    of_runs = resampled_means(values.reshape(rows * runs, n), draws, seed).view(draws, rows, runs)
    if runs == 1:
        return of_runs[:, :, 0]
    chosen = torch.randint(runs, (draws, 1, runs), generator=torch.Generator().manual_seed(seed + 1))
    return of_runs.gather(2, chosen.expand(draws, rows, runs)).mean(2)


def ends(values: Tensor, number: Callable[[Tensor], Tensor], draws: int = DRAWS) -> tuple[float | None, float | None]:
    """95 % interval of a number that is made of means over examples; none for a single example.

    Args:
        values: [rows, examples].
        number: the means of resampled examples [draws, rows] → the number [draws].
        draws: how often examples are drawn.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.resampling import ends
        >>> low, high = ends(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), lambda means: means[:, 0] / means[:, 1])
        >>> low, high  # a ratio of two means
        (0.5, 1.5)
    """
    return interval(number(resampled_means(values, draws))) if values.shape[1] > 1 else (None, None)


def interval(resampled: Tensor) -> tuple[float, float]:
    """The 95 % in the middle of resampled numbers [draws]; NaN among them (an empty class) is left out.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.resampling import interval
        >>> interval(torch.arange(41.0))
        (1.0, 39.0)
    """
    low, high = torch.nanquantile(resampled.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(low), float(high)
