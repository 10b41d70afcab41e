"""Plan of fits: that of the run, and those of `retraining`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from twinlens.attribution.evaluation.refits import Refits
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.evaluate.evaluation_inputs import seedless_rankings
from twinlens.callbacks.evaluate.refits import Recipe, cell_inputs, restricted
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.plan.times import Times

CHECKPOINTS = 7
"""Models on the disk at the highest: two checkpoints of weights and two moments, and the saved model."""


def fit_seconds(
    times: Times,
    shape: costs.Shape,
    session: Session,
    trainer: Mapping[str, Any],
    lengths: Sequence[int],
    validation: Sequence[int],
) -> float:
    """Three forwards per train example and epoch, one per validation example, and the optimiser's steps.

    Args:
        trainer: settings of the Trainer.
        lengths, validation: tokens of each sequence.
    """
    limit = trainer.get("limit_train_batches", 1.0)
    batches = -(-len(lengths) // session.data.batch_size)
    share = min(1.0, limit if isinstance(limit, float) else limit / batches)
    train, checked = (sum(map(shape.forward_operations, part)) for part in (lengths, validation))
    epochs, read = epochs_of_fit(trainer), session.sequences.read
    n_steps = epochs * math.ceil(share * batches / int(trainer.get("accumulate_grad_batches") or 1))
    trained = times.fit(3 * epochs * read * share * train, n_steps, shape.trained_parameters)
    return trained + times.forward(epochs * read * checked)


def epochs_of_fit(trainer: Mapping[str, Any]) -> int:
    """Epochs that a fit takes."""
    return int(trainer.get("max_epochs") or 1)


def fit_memory(shape: costs.Shape, session: Session, lengths: Sequence[int]) -> int:
    """Gradients and AdamW's two moments; what backward keeps of a batch of the longest examples."""
    examples = min(session.data.batch_size, len(lengths))
    activations = session.sequences.read * examples * shape.footprint.sequence(max(lengths))
    return 3 * 4 * shape.trained_parameters + activations


def ranked_methods(methods: Mapping[str, Any]) -> list[str]:
    """The methods whose rankings retraining cuts: instance methods that draw no random numbers."""
    return [name for name, method in methods.items() if method.kind == "instance" and not method.draws]


def retraining_line(
    session: Session,
    name: str,
    evaluation: Refits,
    methods: Mapping[str, Any],
    recipe: Recipe,
    source: Any,
    shape: costs.Shape,
    lengths: Mapping[str, Sequence[int]],
    times: Times,
    device: str,
) -> Line:
    """All fits of an evaluation as one line: they follow each other, and only predictions are kept of them.

    Cells of the same rows and seed are one fit. Which rows they have is known once the rankings are; until then no two
    of them are taken for the same.

    Args:
        session: with the scores that the store has.
        source: what the weights start from, None where it is not known without reading them.
        lengths: tokens by split.
        times: how long operations take.
        device: kind of device.
    """
    ranked = ranked_methods(methods)
    n_train, n_test = len(lengths["train"]), len(lengths[session.split])
    known = source is not None and all((score_name(key, None), session.split) in session.scores for key in ranked)
    if known:
        label = torch.tensor(session.data.splits["train"]["label"][:])
        asked = evaluation.fits(seedless_rankings(session, methods, evaluation.rank_by), label)
        cells = {(tuple(sorted(rows.tolist())), seed) for rows, seed in asked}
        stored = sum(
            session.store.peek("retrain", cell_inputs(session, restricted(session, rows, seed), recipe, source))
            is not None
            for rows, seed in cells
        )
        fits = [len(rows) for rows, _ in cells]
    else:
        fits = list(evaluation.expected_fits(n_train, len(ranked)))
        stored = 0
    whole = list(lengths["train"])
    mean = sum(whole) / n_train
    longest = max(fits, default=n_train)
    validation = lengths.get("validation", [])
    predicted = times.forward(session.sequences.read * sum(map(shape.forward_operations, lengths[session.split])))
    by_size = {
        rows: fit_seconds(times, shape, session, recipe.trainer, [round(mean)] * rows, validation) + predicted
        for rows in set(fits)
    }
    working = fit_memory(shape, session, sorted(whole)[-longest:])
    model = 4 * shape.parameters
    return Line(
        name, n_test, "yes" if fits and stored == len(fits) else "no",
        sum(by_size[rows] for rows in fits) if fits else None,
        CHECKPOINTS * model + len(fits) * 8 * n_test, working, model + working, device,
        f"{len(fits) or 'unknown'} fits" + (f", {stored} in store" if 0 < stored < len(fits) else ""),
    )  # fmt: skip
