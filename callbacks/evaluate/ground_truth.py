"""Ground truth as a stage: scores and head inputs of the run, and fits on part of its train split, for evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, TruthInputs
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import train_ranking
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.targets import phi
from twinlens.callbacks.evaluate.evaluation_inputs import (
    asked_together,
    kept_rows,
    of_kind,
    scores_of,
    skipped,
    train_summary,
)
from twinlens.callbacks.evaluate.refits import PHI, Recipe
from twinlens.callbacks.evaluate.shared_fits import SharedFits
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.passes.session import Session


@dataclass(frozen=True)
class StoredScores:
    """`ScoredMethod` of a method's stored lists, read block by block.

    Attributes:
        session: of the run.
        name: of the method.
        method: as it is configured.
        n_train: rows of the train split.
    """

    session: Session
    name: str
    method: Any
    n_train: int

    @property
    def is_control(self) -> bool:
        """What the method says."""
        return self.method.is_control

    @property
    def n_seeds(self) -> int:
        """1 where it draws nothing."""
        return len(self.method.seeds)

    def dense(self, seed: int, start: int, stop: int) -> Tensor:
        """Best and worst list put in their places, [stop − start, n_train], float32; where both hold a row, both say
        the same.

        Of equal scores both lists take the lower rows. So lists of half the split may leave rows out, which then lie
        between the two and have the score that ends the one and the other.

        Raises:
            UserError: scores that are no numbers to add up.
        """
        rows = self._lists(seed)[start:stop]
        found = rows["top_score"][:, -1:].float().repeat(1, self.n_train)
        for end in ("top", "bottom"):
            found.scatter_(1, rows[f"{end}_index"].long(), rows[f"{end}_score"].float())
        if not bool(found.isfinite().all()):
            raise UserError(
                f"method={self.name} has no finite score for some of the {self.n_train} train rows (no neuron is "
                "shared with them), so that nothing can be added up; expected one for every row: set "
                f"method.{self.name}.missing=zero, or leave the method out."
            )
        return found

    def first(self, seed: int, k: int) -> tuple[Tensor, Tensor]:
        """The beginning of the stored lists."""
        rows = self._lists(seed)
        return rows["top_index"][:][:, :k].long(), rows["top_score"][:][:, :k]

    def ranking(self) -> Tensor:
        """By the stored summary of the first seed."""
        return train_ranking(train_summary(self.session, self.name, self.method.seeds[0]))

    @property
    def has_sign(self) -> bool:
        """Whether it speaks of what is explained."""
        return self.method.explains is not None

    def means(self) -> Tensor:
        """From the stored summaries of all seeds."""
        runs = [train_summary(self.session, self.name, seed)["mean"].double() for seed in self.method.seeds]
        return torch.stack(runs).mean(0)

    def self_influence(self) -> Tensor | None:
        """From the stored summary of the first seed."""
        own = train_summary(self.session, self.name, self.method.seeds[0])["self_influence"].double()
        return None if bool(own.isnan().any()) else own

    def _lists(self, seed: int) -> datasets.Dataset:
        return scores_of(self.session, self.name, self.method.seeds[seed])


def ground_truth_results(
    session: Session, name: str, evaluation: GroundTruth, methods: Mapping[str, Any], recipe: Recipe | None
) -> list[Result]:
    """Results of an evaluation over the run's instance methods; fits that are not in the store yet are made."""
    if session.readout.of_vocabulary and (why := _not_of_texts(session, evaluation)):
        return skipped(name, why)
    fits = None if recipe is None else SharedFits(session, name, recipe)
    inputs = truth_inputs(session, methods, fits)
    if lacking := evaluation.lacking(inputs):
        return skipped(name, lacking)
    if fits is not None:
        fits.prepare(evaluation.fits_of(inputs))
    return evaluation.evaluate(inputs)


def _not_of_texts(session: Session, evaluation: GroundTruth) -> str:
    """What an evaluation needs that documents and queries do not give; empty where they do."""
    if hasattr(evaluation, "require_head"):
        return "data with classes or choices, whose head alone is refitted"
    if evaluation.refits and session.explain.instance.target != COMPLETION:
        return "data with classes or choices, or completions (data=texts)"
    return ""


def truth_inputs(session: Session, methods: Mapping[str, Any], fits: SharedFits | None = None) -> TruthInputs:
    """What the run has for ground truth.

    Args:
        session: of the run.
        methods: all methods of the run.
        fits: of the evaluation; None: it fits nothing.
    """
    kept, n_train = kept_rows(session), len(session.data.splits["train"])
    targets = session.targets("instance", session.split).at(kept)

    def measure(rows: Sequence[int], seed: int) -> Tensor:
        assert fits is not None, "an evaluation that fits says that it needs a recipe"
        found = fits(rows, seed)
        return found[PHI][kept].double() if PHI in found else phi(found["log_prob"][kept], targets)

    train, test = session.predictions["train"], session.predictions[session.split]
    label, inputs = train.column("label"), None
    if not session.readout.of_vocabulary:
        head = session.classifier.head
        inputs = (
            HeadInputs(train.features, label, head, session.fold("train")),
            HeadInputs(test.features[kept], targets.target, head, targets.fold, targets.against),
        )
    sides = train.dataset.features, test.dataset.features
    plants = {
        column: (train.column(column), test.column(column)[kept])
        for column in session.data.plant_columns
        if all(column in features and features[column].dtype == "bool" for features in sides)
    }
    scored = {key: StoredScores(session, key, method, n_train) for key, method in of_kind(methods, "instance").items()}
    together = asked_together(session, methods)
    budget = session.memory_budget
    return TruthInputs(n_train, scored, kept, measure, label, inputs, plants, budget, targets.target, together)
