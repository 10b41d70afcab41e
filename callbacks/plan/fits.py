"""Plan of fits: that of the run, and those of `retraining`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from twinlens.attribution.evaluation.ground_truth.certificate import Certificate
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth
from twinlens.attribution.evaluation.refits import Refits
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.evaluate.evaluation_inputs import seedless_rankings
from twinlens.callbacks.evaluate.refits import Recipe, cell_inputs, restricted
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.plan.times import Times
from twinlens.data.sampling import permutation

SANITY_BATCHES = 2
"""Validation batches that Lightning reads before the first epoch, unless it is told another number."""
MODELS = 3
"""Times that a fit goes through a whole model's file, apart from checkpoints."""
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
    """Three forwards per train example and epoch, one per validation example, the optimiser's steps, and checkpoints.

    Rows of a batch are padded to its longest, in a random order of the train split. Every epoch writes its weights and
    moments, once as the last and once as the best (an upper bound). The model is read and hashed before, written at the
    end, and read and hashed again.

    Args:
        trainer: settings of the Trainer.
        lengths, validation: tokens of each sequence.
    """
    limit, size = trainer.get("limit_train_batches", 1.0), session.data.batch_size
    batches = -(-len(lengths) // size)
    share = min(1.0, limit if isinstance(limit, float) else limit / batches)
    shuffled = [lengths[row] for row in permutation(len(lengths), session.seed)]
    train = padded_operations(shape, shuffled, size)
    checked_size = size if session.data.eval_batch_size == "auto" else session.data.eval_batch_size
    sanity = validation[: checked_size * int(trainer.get("num_sanity_val_steps", SANITY_BATCHES) or 0)]
    epochs, read = epochs_of_fit(trainer), session.sequences.read
    checked = epochs * padded_operations(shape, validation, checked_size)
    checked += padded_operations(shape, sanity, checked_size)
    n_steps = epochs * math.ceil(share * batches / int(trainer.get("accumulate_grad_batches") or 1))
    embedding = shape.lm.get_input_embeddings().weight.numel() if shape.trained_parameters == shape.parameters else 0
    trained = times.fit(3 * epochs * read * share * train, n_steps, shape.trained_parameters, embedding)
    checkpoint, model = shape.weight_bytes + 8 * shape.trained_parameters, shape.weight_bytes
    written = times.written(2 * epochs * checkpoint + MODELS * model, checkpoint)
    return trained + times.forward(read * checked) + written


def padded_operations(shape: costs.Shape, lengths: Sequence[int], batch_size: int) -> float:
    """Operations of a forward over all rows, in batches of their order, each padded to its longest row."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return sum(len(batch) * shape.forward_operations(max(batch)) for batch in batches)


def epochs_of_fit(trainer: Mapping[str, Any]) -> int:
    """Epochs that a fit takes."""
    epochs = trainer.get("max_epochs")
    return 1 if epochs is None else int(epochs)


def fit_memory(shape: costs.Shape, session: Session, lengths: Sequence[int], device: str) -> int:
    """Gradients and AdamW's two moments; what backward keeps of a batch of the longest examples, or what a step holds
    beside, whichever is more: on a GPU one copy of all trained parameters, else two of the largest.

    Args:
        lengths: tokens of each sequence.
        device: kind of device.
    """
    examples = min(session.data.batch_size, len(lengths))
    activations = session.sequences.read * examples * shape.footprint.sequence(max(lengths))
    largest = max((p.numel() for p in shape.lm.parameters() if p.requires_grad), default=0)
    step = 4 * (shape.trained_parameters if device == "cuda" else 2 * largest)
    return 3 * 4 * shape.trained_parameters + max(activations, step)


def ranked_methods(methods: Mapping[str, Any]) -> list[str]:
    """The methods whose rankings retraining cuts: instance methods that draw no random numbers."""
    return [name for name, method in methods.items() if method.kind == "instance" and not method.draws]


def retraining_line(
    session: Session,
    name: str,
    evaluation: Refits | GroundTruth | Certificate,
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
    asked: list[tuple[torch.Tensor, int]] = []
    if known:
        label = torch.tensor(session.data.splits["train"]["label"][:])
        asked = evaluation.fits(seedless_rankings(session, methods, evaluation.rank_by), label)
    if asked:
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
    working = fit_memory(shape, session, sorted(whole)[-longest:], device)
    model = shape.weight_bytes
    return Line(
        name, n_test, "yes" if fits and stored == len(fits) else "no",
        sum(by_size[rows] for rows in fits) if fits else None,
        CHECKPOINTS * model + len(fits) * 8 * n_test, working, model + working, device,
        f"{len(fits) or 'unknown'} fits" + (f", {stored} in store" if 0 < stored < len(fits) else ""),
    )  # fmt: skip
