"""Retraining as a stage: a fit for every subset of the train split that rankings of it call for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from twinlens.attribution.evaluation.refits import Refits
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.evaluate.evaluation_inputs import reference, seedless_rankings
from twinlens.callbacks.evaluate.refits import Recipe, refitted_predictions
from twinlens.callbacks.passes.session import Session


def retraining_results(
    session: Session, name: str, evaluation: Refits, methods: Mapping[str, Any], recipe: Recipe
) -> list[Result]:
    """Fit every cell that is not in the store yet, and evaluate them all."""

    def fit(rows: Tensor, seed: int) -> Tensor:
        return refitted_predictions(session, name, recipe, rows.tolist(), seed)

    return evaluation.evaluate(seedless_rankings(session, methods, evaluation.rank_by), fit, reference(session))
