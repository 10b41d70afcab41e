"""Scores of a model with shuffled weights as a stage: predictions and methods once more, stored as any are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twinlens.attribution.evaluation.ground_truth.randomised import READS_THE_MODEL, Randomised, with_shuffled_weights
from twinlens.attribution.evaluation.ground_truth.truth_inputs import ScoredMethod
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.evaluate.evaluation_inputs import of_kind, skipped
from twinlens.callbacks.evaluate.ground_truth import StoredScores, truth_inputs
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.fingerprints import code_of

FOLDER = "randomised"
"""Below the run's: examples and scores of the models with shuffled weights."""


def randomised_results(
    session: Session,
    name: str,
    evaluation: Randomised,
    methods: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Result]:
    """Results of every instance method that reads the model and draws nothing.

    Args:
        settings: of all methods, plain values.
    """
    if session.readout.of_vocabulary:
        return skipped(name, "data with classes or choices")
    chosen = {
        key: method
        for key, method in of_kind(methods, "instance").items()
        if method.reads in READS_THE_MODEL and not method.draws
    }
    if not chosen:
        return skipped(name, "an instance method that reads the model (e.g. method=gradsim)")
    after: dict[str, list[ScoredMethod]] = {key: [] for key in chosen}
    for seed in evaluation.seeds:
        other = shuffled(session, seed)
        for split in ("train", session.split):
            examples_stage(other, split)
        for key, method in chosen.items():
            attribute_stage(other, key, methods, settings)
            after[key].append(StoredScores(other, key, method, len(session.data.splits["train"])))
    return evaluation.compare(truth_inputs(session, methods), after)


def shuffled(session: Session, seed: int) -> Session:
    """The session with a copy of its model whose weights are shuffled, and nothing computed yet."""
    fingerprint = f"{session.weights} shuffled by {seed}, {code_of(Randomised.__module__)}"
    return replace(
        session, folder=session.folder / FOLDER / f"seed{seed}", model=with_shuffled_weights(session.readable, seed),
        weights=fingerprint, predictions={}, scores={}, epochs=(), epoch_examples={},
    )  # fmt: skip
