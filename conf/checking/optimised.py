"""Check of `optimise` before anything runs: the number can only come from an evaluation and a method of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.controls import CONTROL
from twinlens.attribution.evaluation.subsets import RANDOM
from twinlens.conf.checking.config_folders import ConfigTree

OTHERS = ("time", "data")
"""First parts of names of numbers that no evaluation gives."""

CONTROLS = (CONTROL, RANDOM)
"""Names under which evaluations write controls that they draw themselves."""


def check_optimised(values: Mapping[str, Any], tree: ConfigTree | None) -> None:
    """Refuse a number that the run cannot have: `evaluation/…`, `method/evaluation/…`, `time/…` and `data/…` it can.

    Args:
        values: the whole configuration as plain values.
        tree: folders of configuration files, which name methods and evaluations that the run might have had.

    Raises:
        UserError: naming what the run lacks.
    """
    asked = values.get("optimise")
    if asked is None:
        return
    evaluations, methods = (list(values.get(group) or {}) for group in ("evaluation", "method"))
    first, _, rest = str(asked).partition("/")
    second, _, last = rest.partition("/")
    if first in OTHERS and rest:
        return
    if first in evaluations and rest and first not in methods:
        return
    if second not in evaluations or not last:
        known = tree.options("evaluation") if tree else []
        lacking = next((part for part in (second, first) if part in known and part not in evaluations), "")
        todo = f"add {lacking} to evaluation=[…]" if lacking else "write it as in influence/lds/lds_at_40"
        raise UserError(
            f"optimise={asked}: the run has no such number; expected evaluation/metric or method/evaluation/metric "
            f"with one of its evaluations ({', '.join(evaluations) or 'none'}): {todo}."
        )
    if tree and first in tree.options("method") and first not in (*methods, *CONTROLS):
        raise UserError(
            f"optimise={asked}: the run has no method {first}; expected one of {', '.join(methods) or 'none'}: add it "
            "to method=[…], or optimise another number."
        )
