"""Activations of a seeded sample of a split at the answer token, which switched-off neurons get in the place of 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.text_lists import last_windows
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_shards
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import batch_shards, merge_shards
from twinlens.data.sampling import permutation


def sampled_activations(
    session: Session,
    name: str,
    split: str,
    engine: NeuronModel,
    draw: tuple[int, int],
    sizes: EngineSizes,
    of_explained: bool,
    folder: Path,
) -> Reference:
    """The sample, the same for any batch size and number of processes.

    Args:
        session: of the run.
        name: of the stage, for its bar.
        split: that is sampled.
        engine: over the model's current weights.
        draw: examples of the sample, and its seed.
        sizes: of the engine.
        of_explained: whether the split is the one whose neurons are replaced.
        folder: of the pass.
    """
    rows = session.data.splits[split]
    sample = sorted(permutation(len(rows), draw[1])[: draw[0]])
    cut = batch_shards(rows.select(sample), session.eval_batch_size)
    shards = [[[sample[row] for row in batch] for batch in shard] for shard in cut]

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        activation = engine.states(last_windows(batch)).activation.float()
        return {"index": batch["index"], "activation": activation.unflatten(0, (-1, engine.sequences_per_example))}

    title = f"{name}: activations on {split}"
    cut_to_fit = WithinMemory(title, compute, session.memory_budget, Need(sizes.states, sizes.states))
    run_shards(title, session.readable, cut_to_fit, shards, session.loader(split), folder, session.trainers)
    rows = merge_shards(folder, len(shards))[0]  # in every process: each replaces activations of its own examples
    return Reference(rows["index"], rows["activation"], of_explained)


def with_reference(session: Session, name: str, method: Any, split: str, folder: Path) -> Any:
    """The method with a sample of the split that it scores, itself where it reads none.

    Raises:
        UserError: the split holds one example only.
    """
    if not getattr(method, "reads_reference", False):
        return method
    refuse_small_sample(session, name, method, split)
    engine: NeuronModel = session.readable.engine()
    draw, sizes = (method.reference_size, method.reference_seed), EngineSizes(session.footprint, session.sequences)
    return method.with_reference(sampled_activations(session, name, split, engine, draw, sizes, True, folder))


def refuse_small_sample(session: Session, name: str, method: Any, split: str) -> None:
    """Refuse a method that takes activations from other examples of a split where there are none.

    Raises:
        UserError: the split holds one example only.
    """
    if getattr(method, "reads_reference", False) and len(session.data.splits[split]) < 2:
        raise UserError(
            f"method.{name}.intervention={method.intervention} takes activations from other examples of the {split} "
            f"split, which has one; expected at least 2: raise data.limit.{split} or set method.{name}.intervention="
            "zero."
        )
