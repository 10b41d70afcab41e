"""Retraining as a stage: a fit for every subset of the train split that rankings of it call for."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from twinlens.attribution.evaluation.diversity_series import DiversitySeries
from twinlens.attribution.evaluation.refits import Refits
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.subsets import Subset, SubsetGrid
from twinlens.callbacks.evaluate.evaluation_inputs import reference, seedless_rankings, train_facts
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.shared_fits import SharedFits
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.files import write_text


def retraining_results(
    session: Session, name: str, evaluation: Refits, methods: Mapping[str, Any], recipe: Recipe
) -> list[Result]:
    """Fit every cell that is not in the store yet, and evaluate them all."""

    fits = SharedFits(session, name, recipe)

    def fit(rows: Tensor, seed: int) -> Tensor:
        return fits(rows, seed)["prediction"]

    rankings, known = seedless_rankings(session, methods, evaluation.rank_by), reference(session)
    if isinstance(evaluation, DiversitySeries):
        evaluation = evaluation.with_train(train_facts(session))
    fits.prepare(evaluation.fits(rankings, known.train_label))
    results = evaluation.evaluate(rankings, fit, known)
    if isinstance(evaluation, SubsetGrid | DiversitySeries) and is_first_process():
        write_subsets(session, name, evaluation.subsets(rankings, known.train_label))
    return results


def write_subsets(session: Session, name: str, subsets: Sequence[Subset]) -> None:
    """Write <run>/<name>_rows.csv: which train rows stood in each subset, one line a row, in the subset's order."""
    train = session.predictions["train"].dataset.with_format(None)
    source = train["source_index"][:] if "source_index" in train.column_names else range(len(train))
    label = train["label"][:]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("method", "group", "percent", "same_labels_as", "seed", "index", "source_index", "label"))
    for one in subsets:
        seed = "" if one.seed is None else one.seed
        for row in one.rows.tolist():
            writer.writerow((one.method, one.group, f"{one.percent:g}", one.like, seed, row, source[row], label[row]))
    session.folder.mkdir(parents=True, exist_ok=True)
    write_text(session.folder / f"{name}_rows.csv", text.getvalue())
