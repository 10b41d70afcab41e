"""The plan of a run: what every pass will take, from shapes, data and the store alone; nothing is computed or written.

Time is counted floating-point operations over the rate of the pass that does them, measured on the device at plan time
(`probe.py`). Memory is counted as the stages themselves count it (`twinlens.callbacks.passes.costs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import datasets
import torch
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.callbacks.attribute.dispatch import form_of, reads_of
from twinlens.callbacks.attribute.method_graph import in_order, train_lists_of
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.attribute.stage import method_inputs
from twinlens.callbacks.evaluate.damping import chooses_damping
from twinlens.callbacks.fit.other_checkpoints import epochs_along, other_checkpoints
from twinlens.callbacks.fit.stage import epochs_of, fit_inputs, trains
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.session import Predictions, Session
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.plan.device_rate import (
    computed_in,
    heading,
    operations_per_second,
    parts_told,
    rates_told,
    seconds_per_byte,
)
from twinlens.callbacks.plan.evaluations import damping_line, evaluation_lines
from twinlens.callbacks.plan.fits import CHECKPOINTS, epochs_of_fit, fit_memory, fit_seconds
from twinlens.callbacks.plan.line_inputs import PlanBase
from twinlens.callbacks.plan.machines import machine_of
from twinlens.callbacks.plan.neuron_texts import neuron_text_lines
from twinlens.callbacks.plan.probe import probe_of
from twinlens.callbacks.plan.table import Line, format_plan
from twinlens.callbacks.plan.times import Times
from twinlens.callbacks.predict.batch_size import planned_batch_size
from twinlens.callbacks.predict.generate import generate_inputs, generate_need, generates, put_generated
from twinlens.callbacks.predict.known_prompts import filters, known_inputs
from twinlens.callbacks.predict.stage import examples_inputs
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.run.architecture import configured_architecture
from twinlens.callbacks.run.parts import Parts, splits_needed
from twinlens.callbacks.store.files import remove_empty
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.weights import known_weights_hash
from twinlens.models.encoders import is_encoder
from twinlens.models.linear_layers import coverage, linear_layers
from twinlens.models.rows import CHECKED_TOKENS, check_tokens, checked_texts


class Planner(PlanBase):
    """Lines of the plan, gathered in the order of the stages."""

    def lines(self) -> list[Line]:
        """One line per pass.

        Raises:
            UserError: no solver of a method fits the budget.
        """
        settings, session = self.parts.settings, self.session
        fits = trains(session, settings["fit"])
        lines = [self._fit()] if fits else []
        if not fits:
            session.weights = self.loaded_weights()
            others = other_checkpoints(settings.get("checkpoints"), settings.get("checkpoint_rates"))
            session.epochs = epochs_along(others, lambda folder: self.source(folder) or "", fingerprint_of)
        if generates(session, session.split):
            lines.append(self._generate(session.split))
        lines += [
            self._predict(split) for split in splits_needed(session.data.splits, session.split, self.parts.methods)
        ]
        if self.keeps_epochs:
            lines += self._epochs(lines)
        planned: set[tuple[str, str]] = set()
        for name in in_order(self.parts.methods):
            method = self.parts.methods[name]
            for source in train_lists_of(method):
                if (source, "train") not in planned:
                    lines.append(self._attribute(source, None, "train"))
                    planned.add((source, "train"))
            if chooses_damping(method):
                lines.append(damping_line(self, name))
            lines += [self._attribute(name, seed, session.split) for seed in method.seeds]
            planned.add((name, session.split))
        lines += neuron_text_lines(self)
        for name, evaluation in self.parts.evaluations.items():
            lines += evaluation_lines(self, name, evaluation)
        if not is_encoder(self.shape.lm.config):
            lines = self._with_check_of_edits(lines)
        return lines

    # -- stages --------------------------------------------------------------------------------------------------

    def _fit(self) -> Line:
        """Weights, gradients and AdamW's two moments; what backward keeps of a batch of the longest examples.

        On the disk two checkpoints (weights and moments) beside the saved model at the end, and the weights of every
        epoch where a method reads them.
        """
        settings, session = self.parts.settings, self.session
        trainer, lengths = settings["trainer"], self.lengths["train"]
        validation = self.lengths.get("validation", [])
        seconds = fit_seconds(self.times, self.shape, session, trainer, lengths, validation)
        source = self.source(settings["model"]["path"])
        found: Path | None = None
        if source is not None:
            inputs = fit_inputs(session, settings["model"], trainer, settings["callbacks"], source, self.keeps_epochs)
            found = session.store.peek("fit", inputs)
        if found is not None:
            session.weights = known_weights_hash(found / "model", session.store.root) or ""
            session.epochs = epochs_of(found, lambda folder: known_weights_hash(folder, session.store.root) or "")
        working = fit_memory(self.shape, session, lengths, self.device.type)
        kept = CHECKPOINTS + epochs_of_fit(trainer) * self.keeps_epochs
        return Line(
            "fit", len(lengths), self.said(source is not None, found), seconds,
            kept * self.model_bytes, working, self.model_bytes + working, self.device.type,
        )  # fmt: skip

    def _with_check_of_edits(self, lines: list[Line]) -> list[Line]:
        """The lines, and before the first that edits answer tokens the forwards over short texts by which a run sees
        how such tokens of its weights come out; a run that has all those lines in the store checks nothing."""
        methods, evaluations = self.parts.methods, self.parts.evaluations
        editing = {name for name, method in methods.items() if getattr(method, "engine", None) == "last_token"}
        edits = ("neuron", "sites", "certificate")
        editing |= {name for name, evaluation in evaluations.items() if evaluation.requires in edits}
        users = [line for line in lines if line.name.split("/")[0].split(" on ")[0] in editing]
        if not users:
            return lines
        n_layers = self.shape.footprint.n_layers
        rows = checked_texts(n_layers)
        need = costs.prediction_need(self.shape.footprint).peak(rows, CHECKED_TOKENS, self.session.memory_budget)
        each = self.shape.forward_operations(CHECKED_TOKENS) / CHECKED_TOKENS
        stored = "yes" if all(line.stored == "yes" for line in users) else "no"
        check = Line(
            "check edited tokens", rows, stored, self.times.forward(check_tokens(n_layers) * each), 0, need,
            self.model_bytes + need, self.device.type,
        )  # fmt: skip
        first = lines.index(users[0])
        return [*lines[:first], check, *lines[first:]]

    def _generate(self, split: str) -> Line:
        """A forward of every query without a completion for every token that it gets, on the disk those tokens.

        What the store has becomes the split's completions, so that later stages are known.
        """
        session = self.session
        found = session.store.peek("generated", generate_inputs(session, split)) if session.weights else None
        n_tokens = int(getattr(session.data, "generate", 0))
        given = session.data.splits[split]["answer_ids"][:]
        asked = [length for length, ids in zip(self.lengths[split], given, strict=True) if not ids]
        if found is not None:
            put_generated(session, split, found, self.tokenizer)
        operations = sum(
            self.shape.forward_operations(length + number) for length in asked for number in range(n_tokens)
        )
        return self.model_line(
            f"generate on {split}", split, found, generate_need(self.shape.footprint, session.sequences, n_tokens),
            self.times.forward(session.sequences.read * operations), 2 * 8 * n_tokens * len(given),
        )  # fmt: skip

    def _predict(self, split: str) -> Line:
        """The forward's largest block; on the disk head inputs and probabilities, once in shards, once as a whole."""
        session = self.session
        found = None
        if session.weights:
            inputs = examples_inputs(session, split)
            found = session.store.peek("examples", inputs)
            rows = datasets.load_from_disk(str(found / "dataset")) if found else session.data.splits[split]
            fingerprint = fingerprint_of(inputs)
            if split == session.split and filters(session):
                known = known_inputs(fingerprint)
                stored, fingerprint = session.store.peek("examples", known), fingerprint_of(known)
                rows = datasets.load_from_disk(str(stored / "dataset")) if stored else rows
            session.predictions[split] = Predictions(rows, torch.empty(0), fingerprint)
        lengths = self.lengths[split]
        read = session.sequences.read
        width = read * self.shape.footprint.hidden_size + len(session.data.label_names)
        need = costs.prediction_need(self.shape.footprint, session.sequences, session.window(split))
        return self.model_line(
            f"predict {split}", split, found, need,
            self.times.forward(read * sum(map(self.shape.forward_operations, lengths))), 2 * 4 * width * len(lengths),
        )  # fmt: skip

    def _epochs(self, lines: Sequence[Line]) -> list[Line]:
        """The predictions of train and explained split with each epoch's weights, beside the explained model's."""
        session = self.session
        count = self.n_epochs
        of_split = {line.name: line for line in lines}
        kept = {epoch.number: epoch for epoch in session.epochs}
        planned = []
        for split in dict.fromkeys(("train", session.split)):
            line = of_split[f"predict {split}"]
            for number in range(1, count + 1):
                found = None
                if number in kept and kept[number].weights:
                    inputs = examples_inputs(replace(session, weights=kept[number].weights), split)
                    found = session.store.peek("examples", inputs)
                if found is not None:
                    session.epoch_examples[number, split] = found
                name, stored = f"{line.name}, epoch {number}", self.said(bool(session.weights), found)
                planned.append(replace(line, name=name, stored=stored, peak=line.peak + self.model_bytes))
        return planned

    def _attribute(self, name: str, seed: int | None, split: str) -> Line:
        """A method's pass over a split, as its form of reading counts it."""
        session = self.session
        reads = reads_of(session, name, self.parts.methods, seed)
        found = None
        with suppress(KeyError):  # of predictions or scores that are still to be computed no fingerprint is known
            inputs = method_inputs(reads, {**self.parts.settings["method"][name], "seed": seed}, split)
            found = session.store.peek("attribute", inputs)
        if found is not None:
            session.scores[score_name(name, seed), split] = found
        title = score_name(name, seed) + ("" if split == session.split else f" on {split}")
        cost = reads.cost(self, split)
        return Line(
            title, len(self.lengths[split]), self.said(bool(session.weights), found), cost.seconds, cost.disk,
            cost.memory, cost.memory + cost.held + self.model_bytes, "cpu" if cost.on_host else self.device.type,
            cost.remark,
        )  # fmt: skip


def coverages(shape: costs.Shape, parts: Parts) -> list[str]:
    """One line for each method over linear layers: what of the model they are."""
    names = [name for name, method in parts.methods.items() if form_of(method).covers_layers]
    chosen = {name: linear_layers(shape.lm, shape.head, parts.methods[name].params) for name in names}
    return [f"{name}: {coverage(shape.lm, shape.head, layers).told()}" for name, layers in chosen.items()]


def print_plan(session: Session, parts: Parts, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Print what a run would take, here or on the machine that `plan_for` names, and remove its empty folder; no
    weights are read. Returns no metrics.

    Args:
        session: of the run, with its data prepared.
        parts: of the run.
        tokenizer: whose size a model from scratch has.

    Raises:
        UserError: an unreadable checkpoint, a machine that is not listed, a method that does not serve the model or
            does not fit the budget.
    """
    other = parts.settings["plan_for"]
    machine = None if other is None else machine_of(other)
    shape = shape_of(configured_architecture(session.data, parts.settings["model"], tokenizer))
    splits = splits_needed(session.data.splits, session.split, parts.methods)
    session = replace(session, found_batch_size=planned_batch_size(session, shape.footprint, splits))
    if machine is None:
        device, times, told_times = _here(session, parts, shape)
    else:
        dtype = computed_in(session.trainers.precision, session.trainers.weights_in)
        device, told_times = torch.device("cuda"), machine.told(dtype)
        times = Times(machine.rate(dtype), _host_rate(shape), None, seconds_per_byte)
    lines = Planner(session, parts, shape, device, times, tokenizer).lines()
    if is_first_process():
        data = [f"data: {line}" for line in session.data.notes.lines]
        told = [
            *data,
            heading(shape, session),
            parts_told(shape.lm.base_model),
            told_times,
            format_plan(lines),
            *([] if machine is None else [machine.fitting(lines)]),
            *coverages(shape, parts),
        ]
        print("\n".join(told), flush=True)
        remove_empty(session.folder)
    return {}


def _here(session: Session, parts: Parts, shape: costs.Shape) -> tuple[torch.device, Times, str]:
    """Device of this machine's passes, its times, and what they rest on."""
    trainer = session.trainers.for_pass([])
    device = trainer.strategy.root_device
    dtype = computed_in(session.trainers.precision, session.trainers.weights_in)
    try:
        rate = operations_per_second(device, shape.footprint.hidden_size, dtype)
    except RuntimeError as error:
        raise UserError(
            f"the rate of {device} cannot be measured ({str(error).splitlines()[0]}); expected a free device: "
            "set trainer.accelerator=cpu or wait for it."
        ) from error
    probe = probe_of(session, parts.make_model, shape, trainer)
    times = Times(rate, _host_rate(shape), probe, seconds_per_byte)
    return device, times, rates_told(device, rate, probe is not None)


def _host_rate(shape: costs.Shape) -> float:
    return operations_per_second(torch.device("cpu"), shape.footprint.hidden_size, torch.float64)
