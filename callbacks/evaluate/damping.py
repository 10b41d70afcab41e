"""Damping as a stage: `damping=auto` becomes a number, chosen on halves and examples that nothing else reports on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.damping import (
    FEWEST,
    GRID,
    GRID_BY_STEPS,
    HALVES,
    SEEDS,
    DampingChoice,
    halves_of,
    held_out,
)
from twinlens.attribution.method import Method
from twinlens.attribution.targets import phi
from twinlens.callbacks.attribute.stage import attribute_split
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows
from twinlens.callbacks.evaluate.ground_truth import StoredScores
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.shared_fits import SharedFits
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.processes.ranks import is_first_process

AUTO = "auto"
SPLIT = "validation"
"""Held out from what is explained; the fit has chosen its checkpoint on it, and no attribution has seen it."""
FOLDER = "damping"
"""Below the run's: scores of the held-out examples under every damping."""


def chooses_damping(method: Any) -> bool:
    """Whether a method's damping is still to be chosen."""
    return getattr(method, "damping", None) == AUTO


def refuse_unknown_damping(session: Session, methods: Mapping[str, Any], fits: bool) -> None:
    """Refuse `damping=auto` where nothing can choose it.

    Args:
        fits: whether the run trains its model.

    Raises:
        UserError: a model that is given, prompts, no held-out split or too small a one, or too few train rows.
    """
    for name in (name for name, method in methods.items() if chooses_damping(method)):
        said = f"method.{name}.damping=auto is chosen by models trained on random halves"
        number = f"write a number, e.g. method.{name}.damping=0.1"
        if session.readout.of_vocabulary:
            raise UserError(
                f"{said} of data with classes or choices, and these are prompts; expected such data: {number}."
            )
        if not fits:
            raise UserError(
                f"{said}, and fit=false gives a model whose recipe is not known; expected fit=true: set it or {number}."
            )
        rows = len(session.data.splits.get(SPLIT, ()))
        if session.split == SPLIT or rows < FEWEST:
            has = "which is the explained one" if session.split == SPLIT else f"of which there are {rows}"
            raise UserError(
                f"{said}, on examples of the {SPLIT} split, {has}; expected at least {FEWEST} that are not explained: "
                f"add such rows, or {number}."
            )
        if len(session.data.splits["train"]) < 4:
            raise UserError(f"{said}, and the train split has fewer than 4 rows; expected more: {number}.")


def settled_dampings(
    session: Session, methods: Mapping[str, Method], settings: Mapping[str, Mapping[str, Any]], recipe: Recipe | None
) -> tuple[dict[str, Method], dict[str, dict[str, Any]]]:
    """The run's methods and their settings with a number for every `damping=auto`.

    Args:
        settings: configurations of all methods, plain values.
        recipe: how the run has fitted its model; None: it has not, and no damping is to be chosen.
    """
    found, told = dict(methods), {name: dict(node) for name, node in settings.items()}
    for name in [name for name, method in methods.items() if chooses_damping(method)]:
        assert recipe is not None, "refused before the fit"
        choice, words = _chosen(session, name, methods, settings[name], recipe)
        method: Any = methods[name]
        found[name] = method.settled(choice.damping, words)
        told[name] |= {"damping": choice.damping, "damping_chosen": words}
        if is_first_process():
            print(f"{name}: damping: auto → {choice.damping:g}, {words}", flush=True)
    return found, told


def _chosen(
    session: Session, name: str, methods: Mapping[str, Method], settings: Mapping[str, Any], recipe: Recipe
) -> tuple[DampingChoice, str]:
    asked = _holding_out(session)
    examples_stage(asked, SPLIT)
    kept = kept_rows(asked)
    targets = asked.targets("instance", SPLIT).at(kept)
    n_train = len(session.data.splits["train"])
    halves, taken = halves_of(n_train), torch.zeros(n_train, HALVES, dtype=torch.float64)
    fits = SharedFits(asked, f"damping of {name}", recipe)
    asked_for = [(rows, session.seed + number % SEEDS) for number, rows in enumerate(halves)]
    fits.prepare(asked_for)
    measured = []
    for number, (rows, seed) in enumerate(asked_for):
        taken[rows, number] = 1
        measured.append(phi(fits(rows, seed)["log_prob"][kept], targets))
    grid = GRID_BY_STEPS if getattr(methods[name], "iterates", False) else GRID
    sums = {damping: _sums(asked, name, methods, settings, damping, taken) for damping in grid}
    choice = DampingChoice.of(sums, torch.stack(measured, 1))
    return choice, choice.told(len(kept), SPLIT)


def _sums(
    asked: Session, name: str, methods: Mapping[str, Method], settings: Mapping[str, Any], damping: float, taken: Tensor
) -> Tensor:
    """Σ of the scores of every half's rows under one damping, [examples, halves]."""
    method: Any = methods[name]
    covering = replace(method.settled(damping, ""), top_k=-(-len(taken) // 2))
    own = replace(asked, folder=asked.folder / f"{damping:g}", scores={})
    said = {**settings, "damping": damping, "top_k": covering.top_k}
    attribute_split(own, name, {**methods, name: covering}, said, None, SPLIT)
    scored = StoredScores(own, name, covering, len(taken))
    step = max(1, 4_000_000 // len(taken))
    total = len(kept_rows(own))
    parts = [scored.dense(0, start, min(start + step, total)).double() @ taken for start in range(0, total, step)]
    return torch.cat(parts)


def _holding_out(session: Session) -> Session:
    """The session with the held-out examples as the explained split, and no scores yet."""
    data: Any = copy.copy(session.data)
    rows = data.splits[SPLIT]
    chosen = held_out(len(rows))
    if len(chosen) < len(rows):
        data.splits = {**data.splits, SPLIT: rows.select(chosen.tolist())}
    return replace(
        session, data=data, split=SPLIT, predictions=dict(session.predictions), scores={},
        folder=session.folder / FOLDER,
    )  # fmt: skip
