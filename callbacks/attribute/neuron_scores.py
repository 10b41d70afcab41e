"""Neuron scores of a split: one pass over the model, whichever split it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.errors import require_finite
from twinlens.attribution.method import Method, Role, UnitKind
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.neuron.ranking import NeuronScores
from twinlens.attribution.neuron.text_lists import last_windows
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.attribution.targets import Targets
from twinlens.callbacks.attribute.anatomy import check_edited_tokens
from twinlens.callbacks.attribute.explained_outputs import (
    SUMMED,
    UNIT_AGAINST,
    UNIT_OF_COMPLETIONS,
    explained_inputs,
    explained_words,
    left_out_of,
)
from twinlens.callbacks.attribute.method_graph import entries_in_texts
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.reference_activations import with_reference
from twinlens.callbacks.attribute.score_files import AGAINST, neuron_table, told_of_experts, write_description
from twinlens.callbacks.attribute.stored_ranks import with_stored_ranks
from twinlens.callbacks.attribute.text_lists import (
    of_windows,
    reads_tokens,
    text_inputs,
    text_list_pass,
    text_words,
    tokens_that_count,
    write_text_lists,
)
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import row_shards
from twinlens.callbacks.store.store import Finish
from twinlens.models.anatomy_check import require_parts
from twinlens.models.encoder_anatomy import require_encoder_parts
from twinlens.models.encoder_engine import refuse_residual
from twinlens.models.encoders import reads_first
from twinlens.models.footprint import Footprint, footprint_of
from twinlens.models.residual import ResidualEngine

REFERENCE = "reference"
"""Folder of the activations that a method puts in the place of others, until the scores are written."""


class ModelReads(Reads):
    """The model itself, through the engine that the method asks for."""

    needs_train = False

    @classmethod
    def refuse(cls, method: NeuronMethod, architecture: Callable[[], Any]) -> None:
        """See `NeuronMethod.check_model` and `require_parts`."""
        method.check_model(LazyKind(architecture))
        lm = architecture()
        if reads_first(lm):
            if method.engine == "residual":
                raise refuse_residual(lm.config.model_type)
            require_encoder_parts(lm.base_model)
            return
        keys = method.role == "query" and getattr(method, "site", None) == "ffn"
        require_parts(lm.base_model, method.reads_attention, keys or method.reads_keys, method.reads_keys)

    def inputs(self, split: str) -> dict[str, Any]:
        """What the split is predicted as, what is explained, and in multiple choice whose neurons are edited."""
        return {
            "examples": self.session.predictions[split].fingerprint,
            "split": split,
            **self._explained_inputs(split),
            "site": self.method.ranks,  # a control may have it of the run's other methods
            **self.session.reading,
        }

    def build(self, split: str, folder: Path) -> Finish:
        """Attribute a split and write `<split>/` and `method.yaml`."""
        session, method = self.session, self.method
        if method.engine == "last_token":
            check_edited_tokens(session)
        engine = engine_of(session.readable, method)
        description = method.describe(engine)
        of_tokens = self._of_tokens(split)
        scored = method if of_tokens else with_stored_ranks(session, self.name, method, engine, split)
        scored = with_reference(session, self.name, scored, split, folder / REFERENCE)
        if of_tokens:
            rows = text_list_pass(session, self.methods, self.name, scored, engine, folder)
        else:
            rows = self._pass(scored, engine, split, folder)

        def finish() -> None:
            shutil.rmtree(folder / REFERENCE, ignore_errors=True)
            if of_tokens:
                write_text_lists(session, folder, rows, method)
            else:
                write_neuron_scores(session, folder, split, rows, method, (method.role, method.unit_kind))
            words = text_words() if of_tokens else self._explained()
            described = {**description, **told_of_experts(engine.experts), **words, **session.reading}
            write_description(folder, self.name, method, described)

        return finish

    def cost(self, plan: Planned, split: str) -> PassCost:
        """See `NeuronMethod.need` and `NeuronMethod.work`."""
        shape, lengths = plan.shape, plan.lengths[split]
        sizes = plan.engine_sizes
        by_length = {length: self.method.work(sizes, shape, length) for length in set(lengths)}
        seconds, need = None, self.method.need(sizes)
        tokens = explained_tokens(self.session, split, len(lengths))
        disk = neuron_disk(self.method.top_k, shape.footprint.n_layers, len(lengths))
        if self._of_tokens(split):
            tokens = tokens_that_count(self.session.data.splits[split])
            disk = neuron_disk(entries_in_texts(self.methods, self.name), 0, sum(tokens))
            need = of_windows(need, int(getattr(self.session.data, "max_length", None) or 0))
        if None not in by_length.values() and not reads_first(shape.lm):  # whose rows are whole forwards
            total = sum(count * (by_length[length] or 0.0) for count, length in zip(tokens, lengths, strict=True))
            seconds = plan.times.neurons(self.name, self.method, total)
        need = need_of_forwards(need, shape.footprint) if reads_first(shape.lm) else need
        return PassCost(seconds, disk, plan.pass_memory(split, need))

    def _explained_inputs(self, split: str) -> dict[str, Any]:
        if self._of_tokens(split):
            return text_inputs(self.methods, self.name)
        return explained_inputs(self.session, self.method)

    def _of_tokens(self, split: str) -> bool:
        """Whether the split's texts are explained at every token that counts."""
        return reads_tokens(self.session, self.methods, self.name, split)

    def _explained(self) -> dict[str, str]:
        """Target for method.yaml, with the unit where the target is set apart from another output."""
        words = explained_words(self.session, self.method)
        if self.method.explains is not None and self.session.explain.of(self.method.explains).target == COMPLETION:
            unit = self.method.unit
            in_nats = not unit or unit.startswith("nats")
            return {**words, "unit": UNIT_OF_COMPLETIONS if in_nats else f"{unit}; {SUMMED}"}
        return {**words, "unit": UNIT_AGAINST} if AGAINST in words else words

    def _pass(
        self, method: NeuronMethod, engine: NeuronModel | ResidualModel, split: str, folder: Path
    ) -> dict[str, Tensor]:
        """All examples' best neurons, in the order of `index`."""
        session = self.session
        title = f"{self.name} on {split}"
        targets = None if method.explains is None else session.targets(method.explains, split)
        left_out = left_out_of(session, method, split)
        completions = None if targets is None else targets.completions
        width = 0 if completions is None else int(completions.lengths.max())
        there: list[Any] = []

        def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
            if not there:  # by the first batch the model is on its device, and so must be what is kept of its weights
                there.append(engine.where_it_is() if isinstance(engine, ResidualEngine) else engine)
            if completions is not None:
                own = completions.at(batch["index"].cpu())
                scores = completion_scores(method, there[0], batch, own, budget, width)
            else:
                read = last_windows(batch)
                scores = method.attribute(there[0], read if targets is None else targets.of_batch(read), budget)
            require_finite(scores.score, f"the score of {title}", batch["index"])
            found = {"index": batch["index"], **tensors_of(scores)}
            nothing = left_out[batch["index"].cpu()].to(scores.layer.device)
            return {**found, "layer": scores.layer.masked_fill(nothing[:, None], -1)}  # a list without entry

        if method.reads_text or engine.experts is not None:
            shards, loader = session.shards(split), session.loader(split)
        else:
            shards, loader = row_shards(len(session.data.splits[split])), index_loader
        residual = engine if isinstance(engine, ResidualEngine) else None
        need = method.need(EngineSizes(session.footprint, session.sequences, residual))
        if completions is not None:
            need = need_of_tokens(need, session.footprint, completions)
        if reads_first(session.readable.lm):
            need = need_of_forwards(need, session.footprint)
        cut = WithinMemory(title, compute, session.memory_budget, need)
        return run_pass(title, session.readable, cut, shards, loader, folder / "shards", session.trainers).rows


class LazyKind:
    """`ModelKind` of the run's model, built where a method asks for it.

    Args:
        architecture: gives the model without values.
    """

    def __init__(self, architecture: Callable[[], Any]) -> None:
        self._architecture = architecture

    @cached_property
    def _footprint(self) -> Footprint:
        return footprint_of(self._architecture().base_model)

    @property
    def family(self) -> str:
        """transformers' model type."""
        return self._footprint.family

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies a gate with its up-projection."""
        return self._footprint.gated


def explained_tokens(session: Session, split: str, n_examples: int) -> list[int]:
    """Tokens at which each example's neurons are scored: one, or those of its completion and foil, as far as they are
    known before the model has generated them."""
    asked, rows = session.explain.neuron, session.data.splits[split]
    if asked.target != COMPLETION or "answer_ids" not in rows.column_names:
        return [1] * n_examples
    generated = int(getattr(session.data, "generate", 0))
    counts = [len(ids) or max(1, generated) for ids in rows["answer_ids"][:]]
    if asked.against is not None and "foil_ids" in rows.column_names:
        return [count + len(ids) for count, ids in zip(counts, rows["foil_ids"][:], strict=True)]
    return counts


def need_of_tokens(need: Need, footprint: Footprint, completions: Completions) -> Need:
    """What a method needs that scores every token of completions: the longest text, and every neuron's scores of all
    tokens beside two copies of one token's, with the distributions of a layer."""
    units = footprint.n_layers * (footprint.n_neurons + footprint.query_width)
    kept = 4 * units * (int(completions.lengths.max()) + 3) + 12 * footprint.n_outputs
    return need.lengthened(lambda columns: columns + completions.longest, kept)


def need_of_forwards(need: Need, footprint: Footprint) -> Need:
    """What a method needs whose edited tokens are full forwards, as an encoder's are: one of them at the least."""

    def at_least(part: Callable[[int], int]) -> Callable[[int], int]:
        return lambda columns: max(part(columns), footprint.sequence(columns))

    return Need(at_least(need.least), at_least(need.most), need.step)


def neuron_disk(top_k: int, n_layers: int, n_examples: int) -> int:
    """Bytes of a split's lists: in shards layer, unit and score, in the table these with a position and three words."""
    return n_examples * (top_k * (12 + 42) + 8 * n_layers)


def engine_of(model: Any, method: NeuronMethod) -> NeuronModel | ResidualModel:
    """The engine that a method asks for, over the model's current weights."""
    return model.residual_engine() if method.engine == "residual" else model.engine()


def write_neuron_scores(
    session: Session,
    folder: Path,
    split: str,
    rows: dict[str, Tensor],
    method: Method,
    kind: tuple[Role, UnitKind] = ("value", "neuron"),
) -> None:
    """Write `<split>/`; scores that speak of no target are said of the run's, whose probability is not computed again
    where the predictions do not have it (NaN)."""
    targets = session.targets(method.explains or "neuron", split)
    if "target" not in rows:
        rows = {**rows, "target": targets.target, "target_prob": known_probability(session, split, targets)}
    if targets.against is not None and method.explains is not None:
        rows = {**rows, AGAINST: targets.against}
    datasets.Dataset(neuron_table(rows, *kind, session.footprint.experts)).save_to_disk(str(folder / split))


def known_probability(session: Session, split: str, targets: Targets) -> Tensor:
    """Probability of each example's target, [examples], float32, as far as the predictions say it; NaN elsewhere."""
    predictions = session.predictions[split]
    if not session.readout.of_vocabulary:
        probability = predictions.column("prob")
        if targets.fold is None:
            return probability.gather(1, targets.target[:, None])[:, 0]
        return (probability * (targets.fold[None] == targets.target[:, None])).sum(1)
    said = session.readout.explained(predictions.column("label"), predictions.column("prediction"))
    return predictions.column("target_prob").where(said == targets.target, torch.nan)


def tensors_of(scores: NeuronScores) -> dict[str, Tensor]:
    """The parts that a method gave."""
    return {name: tensor for name, tensor in vars(scores).items() if tensor is not None}
