"""Lists of two runs on the same examples: which share of their first entries both name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from twinlens.attribution.evaluation.overlap import UNITS_PER_LAYER, compare_lists
from twinlens.attribution.neuron.ranking import ATTENTION, FIRST_ATTENTION, SITES
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.run_files import ScoreSet

LENGTHS = (1, 10, 100)
"""First entries of both lists that are compared."""


def shared_instances(
    a: ScoreSet, b: ScoreSet, of_a: Sequence[int], of_b: Sequence[int],
    names: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Per k, of the first k train instances of a list the share in per cent that the other one has, [examples].

    Args:
        a, b: lists of train instances.
        of_a, of_b: indices of the same examples in both runs, in one order.
        names: train index → one number in both runs, −1 for an instance that the other run does not have; by default
            an index means the same in both.
    """
    lists = [_padded(scores, "top_index", index) for scores, index in ((a, of_a), (b, of_b))]
    if names is not None:
        lists = [_renamed(found, named) for found, named in zip(lists, names, strict=True)]
    for k in LENGTHS:
        if k <= min(found.shape[1] for found in lists):
            yield k, 100 * compare_lists(lists[0][:, :k], lists[1][:, :k]).common / k


def shared_neurons(a: ScoreSet, b: ScoreSet, of_a: Sequence[int], of_b: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Per k, neurons among the first k of both lists in per cent of their union, NaN where both are empty, [examples].

    Args:
        a, b: lists of neurons of one model.
        of_a, of_b: indices of the same examples in both runs, in one order.
    """
    lists = [_addresses(scores, index) for scores, index in ((a, of_a), (b, of_b))]
    for k in LENGTHS:
        if k <= min(found.shape[1] for found in lists):
            parts = compare_lists(lists[0][:, :k], lists[1][:, :k])
            union = parts.only_first + parts.only_second + parts.common
            yield k, torch.where(union > 0, 100 * parts.common / union.clamp(min=1), torch.nan)


def names_neurons(scores: ScoreSet) -> bool:
    """Whether a method lists neurons, no heads or layers."""
    if scores.kind != "neuron":
        return False
    if "unit_kind" not in scores.rows.dataset.column_names:
        return True  # of before there was anything else
    return all(kind == "neuron" for row in scores.rows.dataset["unit_kind"][:] for kind in row)


def mean_share(values: Tensor) -> dict[str, Cell]:
    """Mean of shares with its standard error over examples that have one."""
    values = values[~values.isnan()]
    n = len(values)
    error = float(values.std()) / math.sqrt(n) if n > 1 else None
    return {"value": float(values.mean()) if n else None, "stderr": error, "n": n}


def _addresses(scores: ScoreSet, index: Sequence[int]) -> Tensor:
    """Neurons as one number each, −1 where a list has ended, int64 [examples, longest]."""
    layer, unit = (_padded(scores, column, index) for column in ("layer", "unit"))
    address = layer * UNITS_PER_LAYER + unit
    if "site" in scores.rows.dataset.column_names:
        address += FIRST_ATTENTION * (_padded(scores, "site", index) == ATTENTION)
    return torch.where(layer < 0, -1, address)


def _padded(scores: ScoreSet, column: str, index: Sequence[int]) -> Tensor:
    """The lists of these examples, −1 where one has ended, int64 [examples, longest]; sites as their numbers."""
    lists = scores.rows.dataset.select(scores.rows.positions(index).tolist())[column][:]
    longest = max((len(found) for found in lists), default=0)
    if column == "site":
        lists = [[SITES.index(site) for site in found] for found in lists]
    padded = [list(found) + [-1] * (longest - len(found)) for found in lists]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(lists), longest)


def _renamed(lists: Tensor, names: np.ndarray) -> Tensor:
    """Lists of train indices by the numbers that both runs know them by."""
    known = torch.from_numpy(names.astype(np.int64))
    return torch.where(lists < 0, -1, known[lists.clamp(min=0)])
