"""Number that a sweeper such as Optuna's optimises: one of a run's own, by the name that trackers give it."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.suggestions import nearest

KEY = "optimise"
"""Setting of a run, and name of the number in its metrics.json."""
FEW = 12
"""Names that a refusal lists."""


def keep_optimised(asked: str | None, numbers: Mapping[str, float], metrics: MutableMapping[str, float]) -> None:
    """Put the number that is asked for into the run's metrics, where it is one of its numbers."""
    if asked is not None and asked in numbers:
        metrics[KEY] = numbers[asked]


def require_optimised(asked: str | None, numbers: Mapping[str, float]) -> None:
    """Refuse a run whose number to optimise is not there; its results are.

    Args:
        asked: name of the number; None: nothing is optimised.
        numbers: of the run, by name.

    Raises:
        UserError: the run has no such number, or it is not finite.
    """
    if asked is None:
        return
    if asked not in numbers:
        near = nearest(asked, numbers)
        beside = [name for name in numbers if name.rpartition("/")[0] == asked.rpartition("/")[0]] or list(numbers)
        meant = f"did you mean {near}? " if near else ""
        more = f" and {len(beside) - FEW} more" if len(beside) > FEW else ""
        raise UserError(
            f"{KEY}={asked}: the run has no such number; {meant}Available: {', '.join(beside[:FEW])}{more}. Its "
            "results are written; give one of these names."
        )
    if not math.isfinite(numbers[asked]):
        raise UserError(
            f"{KEY}={asked}: the number is {numbers[asked]}, which nothing can be compared with; expected a finite "
            "one: give the run more examples, or optimise another number."
        )


def optimised(outcome: object) -> float | None:
    """The number of a job's outcome; None where the job failed or was asked for none."""
    metrics = outcome.get("metrics") if isinstance(outcome, dict) else None
    value = (metrics or {}).get(KEY)
    return value if isinstance(value, int | float) else None
