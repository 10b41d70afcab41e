"""Targets of a run, as methods of either lens are given them, leave rows out for them, and write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.stream import concatenate
from twinlens.attribution.method import Method
from twinlens.callbacks.passes.explain import COMPLETION, Asked
from twinlens.callbacks.passes.session import Session

UNIT_AGAINST = "nats: log-probability of the target less that of what it is explained against"
"""Of methods whose unit is otherwise a probability's."""
UNIT_OF_COMPLETIONS = (
    "nats: summed log-probability of the completion's tokens, less that of the foil where there is one"
)

SUMMED = "summed over the completion's tokens"
"""Of scores that are no nats."""


def explained_inputs(session: Session, method: Method) -> dict[str, Any]:
    """What a method's scores depend on of the run's target; nothing where they speak of none."""
    return {} if method.explains is None else {"explain": session.explain.of(method.explains).identity}


def explained_words(session: Session, method: Method) -> dict[str, str]:
    """Target for method.yaml; nothing where the scores speak of none."""
    return {} if method.explains is None else session.explain.of(method.explains).described


def explained_columns(session: Session, method: Method, split: str) -> dict[str, Tensor]:
    """`target` and, where it is set apart from another, `target_against`, of every row of a split, [examples] each."""
    if method.explains is None:
        return {}
    targets = session.targets(method.explains, split)
    return {"target": targets.target, **({} if targets.against is None else {"target_against": targets.against})}


def left_out_of(session: Session, method: Method, split: str) -> Tensor:
    """Rows of a split that a method leaves out, [examples], bool: there the target is what it is explained against.

    Raises:
        UserError: no row is left.
    """
    if method.explains is None:
        return torch.zeros(len(session.predictions[split].dataset), dtype=torch.bool)
    left_out = session.targets(method.explains, split).left_out
    if bool(left_out.all()):
        asked = session.explain.of(method.explains)
        raise UserError(
            f"explain={asked.target_name} and explain_against={asked.against_name} are the same for all "
            f"{len(left_out)} rows of the {split} split, so that nothing is left to explain; expected rows where they "
            "differ: set explain_against=runner_up or null."
        )
    return left_out


def told_targets(session: Session, methods: Mapping[str, Method]) -> list[str]:
    """A line for each lens of the run: what is explained, and how many rows have nothing to explain; a line for each
    method whose `labels` are not what they were before `explain` came."""
    lines = []
    for lens in dict.fromkeys(method.explains for method in methods.values() if method.explains is not None):
        asked, targets = session.explain.of(lens), session.targets(lens, session.split)
        line = f"explain ({lens} lens): {asked.told}"
        if asked.target in ("answer", COMPLETION):
            without = int((session.predictions[session.split].column("label") < 0).sum())
            line += (
                f"; {without} of {len(targets)} rows name no answer, of these the predicted token" if without else ""
            )
        n = int(targets.left_out.sum())
        if n:
            line += f"; {n} of {len(targets)} rows left out, where both are the same"
        lines.append(line)
    lines += [
        f"method.{name}.labels=predicted: labels of the train side alone (before explain came, of both sides); what is "
        f"explained is explain={session.explain.instance.target_name}"
        for name, method in methods.items()
        if getattr(method, "labels", "gold") == "predicted"
    ]
    return lines


def explained_otherwise(session: Session, methods: Mapping[str, Method]) -> dict[str, str]:
    """What methods explain, by name, where it is not the predicted output."""
    asked = {
        name: session.explain.of(method.explains) for name, method in methods.items() if method.explains is not None
    }
    return {name: found.told for name, found in asked.items() if found.identity != Asked().identity}


def consecutive(rows: Tensor) -> list[Tensor]:
    """Rising row numbers, [rows], cut where one is missing."""
    if not len(rows):
        return []
    return list(rows.tensor_split((torch.nonzero(rows.diff() != 1)[:, 0] + 1).tolist()))


def with_empty_lists(parts: Sequence[InstanceScores], index: Tensor, k: int) -> InstanceScores:
    """Scores of the rows `index`, [tests]: those of the parts, and lists without entry (−1) for all others.

    Args:
        k: length of the lists.
    """
    found = concatenate(parts, k)
    if len(found) == len(index):
        return found
    place = torch.searchsorted(index, found.index)
    columns = {}
    for name in ("top_index", "top_score", "bottom_index", "bottom_score"):
        values = getattr(found, name)
        columns[name] = values.new_full((len(index), k), -1 if "index" in name else 0)
        columns[name][place] = values
    return InstanceScores(index, **columns)
