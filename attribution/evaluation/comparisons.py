"""Comparison of methods pair by pair, in every evaluation that measures them on the same examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from twinlens.attribution.evaluation.paired_tests import holm, is_binary, paired_test
from twinlens.attribution.evaluation.resampling import resampled_means_of_runs

GROUPS = ("", "most", "least", "random", "challenge", "own", "each", "together")
"""Groups whose rows are compared; others (types, layers, parts of the examples) would make tests by the hundred."""
SAME_IN_OTHER_WORDS = "_flips"
"""Ending of metrics that say what another one says."""


@dataclass(frozen=True)
class Measured:
    """One number of one method, with the values that it is the mean of.

    Attributes:
        evaluation, metric, split, k, group, variant: what was measured.
        method: of the run; settings that are not as shipped stand behind its name.
        matched: method that a control was drawn for; empty: it is nobody's own.
        control: whether it is a control.
        unit: what a mean of 1 over the samples is in the metric's unit: 100 for per cent.
        samples: values, [runs, examples].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.comparisons import Measured
        >>> about = ("faithfulness", "sufficiency", "test", 1, "", "")
        >>> one = Measured(*about, "ig", "", False, 100, torch.tensor([[1.0, 1.0, 0.0, 1.0]]))
        >>> one.unit * float(one.samples.mean())  # per cent of the predictions
        75.0
    """

    evaluation: str
    metric: str
    split: str
    k: float | None
    group: str
    variant: str
    method: str
    matched: str
    control: bool
    unit: float
    samples: Tensor


@dataclass(frozen=True)
class Comparison:
    """A pair of methods.

    Attributes:
        split, evaluation, metric, k, group, variant: what was measured; `group` as `most`, where the control's is
            `random`.
        method, reference: the pair; the reference is the control where one of them is.
        difference: of the first less the second, in the metric's unit.
        low, high: ends of its 95 % interval.
        p: two-sided, of this pair alone.
        adjusted: the same by Holm for all pairs of the evaluation's metric.
        pairs: how many these are.
        test: name of the test.
        n: examples that both were measured on.
        runs: fits of the model that both were measured on.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.comparisons import Comparison, Measured, compare_methods
        >>> about = ("faithfulness", "sufficiency", "test", 1, "", "")
        >>> kept, lost = torch.ones(1, 8), torch.zeros(1, 8)
        >>> both = [Measured(*about, "ig", "", False, 100, kept), Measured(*about, "random", "", True, 100, lost)]
        >>> pair: Comparison = compare_methods(both)[0]
        >>> pair.method, pair.reference, pair.difference, pair.p  # eight of eight differ: 2 / 2⁸
        ('ig', 'random', 100.0, 0.0078125)
    """

    split: str
    evaluation: str
    metric: str
    k: float | None
    group: str
    variant: str
    method: str
    reference: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float
    pairs: int
    test: str
    n: int
    runs: int


def compare_methods(measured: Iterable[Measured]) -> list[Comparison]:
    """Every pair of methods that were measured in the same way on the same examples, controls among them.

    Two rows are a pair if evaluation, metric, k, split, group and variant agree; a control drawn for one method is
    compared with that method alone, random rows of a train split with the first and the last rows of every ranking.
    Rows of other numbers of examples or fits are no pair.

    Args:
        measured: numbers of all methods.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.comparisons import Measured, compare_methods
        >>> def row(method, outcomes, control=False):
        ...     values = torch.tensor([outcomes], dtype=torch.float64)
        ...     return Measured("faithfulness", "sufficiency", "test", 1, "", "", method, "", control, 1.0, values)
        >>> rows = [row("random_neurons", [0, 0, 0, 0], control=True), row("ig", [1, 1, 1, 0])]
        >>> [(c.method, c.reference, c.difference, c.p) for c in compare_methods(rows)]
        [('ig', 'random_neurons', 0.75, 0.25)]
    """
    families: dict[tuple[str, str, str], list[tuple[tuple[object, ...], Measured, Measured]]] = {}
    places: dict[tuple[object, ...], list[Measured]] = {}
    for one in measured:
        if one.group in GROUPS and not one.metric.endswith(SAME_IN_OTHER_WORDS):
            for place in _places(one):
                places.setdefault(place, []).append(one)
    for place, rows in places.items():
        for first, second in combinations(rows, 2):
            pair = (second, first) if first.control and not second.control else (first, second)
            if _comparable(*pair):
                families.setdefault((first.split, first.evaluation, first.metric), []).append((place, *pair))
    found = []
    for pairs in families.values():
        drawn = _resampled([one for _, *pair in pairs for one in pair])
        tested = [_compared(place, first, second, drawn) for place, first, second in pairs]
        adjusted = holm([one.p for one in tested])
        found += [replace(one, adjusted=p, pairs=len(tested)) for one, p in zip(tested, adjusted, strict=True)]
    return found


def _places(one: Measured) -> list[tuple[object, ...]]:
    """What rows of a pair agree in; random rows of the train split stand beside both ends of every ranking."""
    groups = ("most", "least") if one.group == "random" else (one.group,)
    return [(one.split, one.evaluation, one.metric, one.k, group, one.variant) for group in groups]


def _comparable(first: Measured, second: Measured) -> bool:
    own = {one.matched for one in (first, second)} <= {"", first.method}
    return own and first.method != second.method and first.samples.shape == second.samples.shape


def _resampled(rows: Sequence[Measured]) -> Mapping[int, Tensor]:
    """Resampled means, [draws], by the identity of each row; rows of one shape share their resamples."""
    shapes: dict[tuple[int, ...], dict[int, Measured]] = {}
    for one in rows:
        shapes.setdefault(tuple(one.samples.shape), {})[id(one)] = one
    found: dict[int, Tensor] = {}
    for alike in shapes.values():
        if all(len(one.samples) == 1 and is_binary(one.samples) for one in alike.values()):
            continue  # McNemar's test draws nothing
        means = resampled_means_of_runs(torch.stack([one.samples for one in alike.values()]))
        found |= dict(zip(alike, means.T, strict=True))
    return found


def _compared(place: tuple[object, ...], first: Measured, second: Measured, drawn: Mapping[int, Tensor]) -> Comparison:
    nothing = torch.zeros(0)
    resampled = drawn.get(id(first), nothing), drawn.get(id(second), nothing)
    found, unit = paired_test(first.samples, second.samples, resampled), first.unit
    split, evaluation, metric, k, group, variant = place
    runs, n = first.samples.shape
    return Comparison(
        str(split), str(evaluation), str(metric), k if isinstance(k, int | float) else None, str(group), str(variant),
        first.method, second.method, unit * found.difference, unit * found.low, unit * found.high, found.p, found.p, 1,
        found.test, n, runs,
    )  # fmt: skip
