"""Results broken down by parts of the examples: labels, right and wrong predictions, cases of a challenge set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import wilson

METRICS = ("accuracy", "sufficiency", "comprehensiveness")
"""Proportions that are broken down."""
LABEL, PREDICTION = "label", "prediction"
KINDS = (LABEL, PREDICTION, "heuristic", "subcase")
"""What parts are made by; the last two are columns of HANS."""


def is_part(group: object) -> bool:
    """Whether a group of results is a part of the examples, `label=Refuted`."""
    return str(group or "").partition("=")[0] in KINDS and "=" in str(group or "")


def part_name(kind: str, name: str) -> str:
    """The group of a part's rows."""
    return f"{kind}={name}"


def by_label(label: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Examples of each gold label, bool [examples] by name of the part; labels without examples are left out.

    Args:
        label: gold class, −1 where unknown, [examples].
        names: of the classes.
    """
    parts = {part_name(LABEL, name): label == number for number, name in enumerate(names)}
    return {name: chosen for name, chosen in parts.items() if bool(chosen.any())}


def by_outcome(prediction: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Right and wrong predictions of the labelled examples, bool [examples] by name of the part.

    Args:
        prediction, label: classes, −1 where a label is unknown, [examples].
    """
    known = label >= 0
    parts = {"right": known & (prediction == label), "wrong": known & (prediction != label)}
    return {part_name(PREDICTION, name): chosen for name, chosen in parts.items() if bool(chosen.any())}


def by_column(kind: str, cells: Sequence[str]) -> dict[str, Tensor]:
    """Examples with each text of a column, bool [examples] by name of the part; none where all have the same.

    Args:
        kind: name of the column.
        cells: its texts, [examples].
    """
    names = list(dict.fromkeys(cells))
    if len(names) < 2:
        return {}
    return {part_name(kind, name): torch.tensor([cell == name for cell in cells]) for name in names}


def broken_down(results: Sequence[Result], parts: Mapping[str, Tensor]) -> list[Result]:
    """The proportions among results over all examples, once more for every part of them.

    A part that holds all examples says nothing new and is left out. Rows of parts carry no values of single examples:
    they are read, not tested.

    Args:
        results: of methods or the model, with values of single examples.
        parts: bool [examples] by name; of the same examples as the results, else a result is left as it is.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.parts import broken_down, by_label
        >>> from twinlens.attribution.evaluation.result import Result
        >>> whole = Result("sufficiency", 75.0, n=4, k=1, method="ig", samples=torch.tensor([1.0, 1, 1, 0]), unit=100)
        >>> rows = broken_down([whole], by_label(torch.tensor([0, 0, 1, 1]), ["yes", "no"]))
        >>> [(row.group, row.value, row.n) for row in rows]
        [('label=yes', 100.0, 2), ('label=no', 50.0, 2)]
    """
    found = []
    for whole in results:
        if whole.metric not in METRICS or whole.group or whole.samples is None or whole.samples.dim() != 1:
            continue
        for name, chosen in parts.items():
            if len(chosen) != len(whole.samples) or bool(chosen.all()) or not bool(chosen.any()):
                continue
            values = whole.samples[chosen].double()
            mean, n = float(values.mean()), len(values)
            low, high = wilson(mean, n, whole.unit)
            error = float(values.std() / n**0.5) * whole.unit if n > 1 else None
            found.append(
                replace(whole, value=mean * whole.unit, stderr=error, n=n, group=name, low=low, high=high, samples=None)
            )
    return found
