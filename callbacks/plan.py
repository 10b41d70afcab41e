"""The plan of a run: what every pass will take, from shapes, data and the store alone; nothing is computed or written.

Time is counted floating-point operations over the rate of a matrix product of the model's width, measured on the
device at plan time. Memory is counted as the stages themselves count it (`callbacks.costs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase

from attribution.base import UserError
from attribution.bridge import InstanceNeurons, NeuronInstances
from attribution.evaluation.retraining import Retraining
from attribution.neuron.random_neurons import RandomNeurons
from callbacks import costs
from callbacks.attribute import for_seed, method_inputs
from callbacks.examples import examples_inputs
from callbacks.faithfulness_stage import (
    control_names,
    controls_of,
    faithfulness_inputs,
    list_names,
    neuron_lists,
    reference_split,
)
from callbacks.files import is_first_process, remove_empty
from callbacks.fit import epochs_of, fit_inputs, source_of, trains
from callbacks.instance_costs import instance_cost
from callbacks.known_prompts import filters, known_inputs
from callbacks.memory import Need
from callbacks.method_graph import in_order, kind_of, names_neurons, reads_of, train_lists_of
from callbacks.pipeline import Parts, keeps_epochs, splits_needed
from callbacks.plan_fits import CHECKPOINTS, epochs_of_fit, fit_memory, fit_operations, ranked_methods, retraining_line
from callbacks.plan_rate import computed_in, configured_architecture, heading, operations_per_second, shape_of
from callbacks.plan_table import Line, format_plan
from callbacks.retrain import Recipe
from callbacks.rows_costs import rows_line
from callbacks.score_tables import score_name
from callbacks.session import Predictions, Session, rows_per_shard
from callbacks.store import fingerprint_of, known_weights_hash
from data.sampling import token_lengths
from models.backbone import resolve

UNKNOWN_WEIGHTS = "weights not yet read"


@dataclass
class Planner:
    """Lines of the plan, gathered in the order of the stages.

    Args:
        session: of the run; its model stays unread.
        parts: of the run.
        shape: of the classifier.
        device: of the passes over the model.
        rate, host_rate: operations per second there in the run's type, and on the host in float64.
    """

    session: Session
    parts: Parts
    shape: costs.Shape
    device: torch.device
    rate: float
    host_rate: float

    def __post_init__(self) -> None:
        # what is found in the store is put into a session of the plan's own
        self.session = replace(self.session, predictions={}, epoch_examples={}, scores={})
        self.model_bytes = self.shape.parameters * 4
        self.keeps_epochs = keeps_epochs(self.parts.methods)
        self.lengths = {split: token_lengths(rows) for split, rows in self.session.data.splits.items()}

    def lines(self) -> list[Line]:
        """One line per pass.

        Raises:
            UserError: no solver of a method fits the budget.
        """
        settings, session = self.parts.settings, self.session
        fits = trains(session, settings["fit"])
        lines = [self._fit()] if fits else []
        if not fits:
            session.weights = known_weights_hash(Path(resolve(settings["model"]["path"])), session.store.root) or ""
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
            lines += [self._attribute(name, seed, session.split) for seed in getattr(method, "seeds", [None])]
            planned.add((name, session.split))
        for name, evaluation in self.parts.evaluations.items():
            of_neurons = {k: m for k, m in self.parts.methods.items() if names_neurons(m)}
            if evaluation.requires == "neuron" and of_neurons:
                lines.append(self._faithfulness(name, evaluation, of_neurons))
            if isinstance(evaluation, Retraining) and settings["fit"] and ranked_methods(self.parts.methods):
                lines.append(self._retraining(name, evaluation))
        return lines

    # -- stages --------------------------------------------------------------------------------------------------

    def _fit(self) -> Line:
        """Weights, gradients and AdamW's two moments; what backward keeps of a batch of the longest examples.

        On the disk two checkpoints (weights and moments) beside the saved model at the end, and the weights of every
        epoch where a method reads them.
        """
        settings, session = self.parts.settings, self.session
        trainer, lengths = settings["trainer"], self.lengths["train"]
        operations = fit_operations(self.shape, session, trainer, lengths, self.lengths.get("validation", []))
        source = self._source(settings["model"]["path"])
        found: Path | None = None
        if source is not None:
            inputs = fit_inputs(session, settings["model"], trainer, source, self.keeps_epochs)
            found = session.store.peek("fit", {**inputs, "callbacks": dict(settings["callbacks"])})
        if found is not None:
            session.weights = known_weights_hash(found / "model", session.store.root) or ""
            session.epochs = epochs_of(found, lambda folder: known_weights_hash(folder, session.store.root) or "")
        working = fit_memory(self.shape, session, lengths)
        kept = CHECKPOINTS + epochs_of_fit(trainer) * self.keeps_epochs
        return Line(
            "fit", len(lengths), self._said(source is not None, found), operations / self.rate,
            kept * self.model_bytes, working, self.model_bytes + working, self.device.type,
        )  # fmt: skip

    def _source(self, path: str | None) -> Any:
        """What the weights start from, as far as it is known without reading them."""
        if path is None:
            return "scratch"
        folder = Path(resolve(path))
        if folder.is_dir():
            return known_weights_hash(folder, self.session.store.root)
        return source_of(self.session, {"path": path})

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
        return self._model_line(
            f"predict {split}", split, found, costs.prediction_need(self.shape.footprint, session.sequences),
            read * sum(map(self.shape.forward_operations, lengths)), 2 * 4 * width * len(lengths),
        )  # fmt: skip

    def _epochs(self, lines: Sequence[Line]) -> list[Line]:
        """The predictions of train and explained split with each epoch's weights, beside the explained model's."""
        session = self.session
        count = len(session.epochs) or int(self.parts.settings["trainer"].get("max_epochs") or 1)
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
                name, stored = f"{line.name}, epoch {number}", self._said(bool(session.weights), found)
                planned.append(replace(line, name=name, stored=stored, peak=line.peak + self.model_bytes))
        return planned

    def _attribute(self, name: str, seed: int | None, split: str) -> Line:
        """A method's pass over a split; composed neuron scores take none."""
        session, method = self.session, for_seed(self.parts.methods[name], seed)
        found = None
        with suppress(KeyError):  # of predictions or scores that are still to be computed no fingerprint is known
            inputs = method_inputs(session, method, {**self.parts.settings["method"][name], "seed": seed}, split)
            found = session.store.peek("attribute", inputs)
        if found is not None:
            session.scores[score_name(name, seed), split] = found
        title = score_name(name, seed) + ("" if split == session.split else f" on {split}")
        lengths = self.lengths[split]
        if kind_of(method) == "instance":
            return self._instances(title, method, found)
        # shards: layer, unit and score; table: these with a position and three words of text
        disk = len(lengths) * (method.top_k * (12 + 42) + 8 * self.shape.footprint.n_layers)
        if isinstance(method, InstanceNeurons):
            memory = 12 * len(self.lengths["train"]) + 24 * len(lengths) * self.parts.methods[method.source].top_k
            said = self._said(bool(session.weights), found)
            return Line(title, len(lengths), said, 0.0, disk, memory, memory + self.model_bytes, "cpu", "no pass")
        each = [costs.neuron_operations(method, self.shape, length, session.sequences) for length in set(lengths)]
        by_length = dict(zip(set(lengths), each, strict=True))
        total = None if None in each else sum(by_length[length] or 0.0 for length in lengths)
        need = costs.neuron_need(method, self.shape.footprint, session.sequences, self.shape.residual)
        return self._model_line(title, split, found, need, total, disk)

    def _instances(self, title: str, method: Any, found: Path | None) -> Line:
        """Blocks of gradients, or the solver's matrices, beside what the method reads of both splits, on the host."""
        session = self.session
        n_train, n_test = len(self.lengths["train"]), len(self.lengths[session.split])
        shard = rows_per_shard(n_test)
        if reads_of(method) == "rows":
            return rows_line(self, title, method, self._said(bool(session.weights), found))
        epochs = len(session.epochs) or int(self.parts.settings["trainer"].get("max_epochs") or 1)
        cost = instance_cost(
            method, self.shape.head, n_train, n_test, shard, session.memory_budget, session.sequences.read, epochs
        )
        seconds = None if cost.operations is None else cost.operations / self.host_rate
        held = 4 * self.shape.footprint.hidden_size * (n_train + n_test) * session.sequences.read
        if isinstance(method, NeuronInstances):
            held = 12 * (n_train * max(method.train_list, method.test_list) + n_test * method.test_list)
        held *= epochs if reads_of(method) == "checkpoints" else 1
        # lists in shards and table; each shard's sums over the train split
        disk = 2 * n_test * method.top_k * 24 + (-(-n_test // shard) * 24 + 40) * n_train
        return Line(
            title, n_test, self._said(bool(session.weights), found), seconds, disk,
            cost.memory, cost.memory + held + self.model_bytes, "cpu", cost.remark,
        )  # fmt: skip

    def _faithfulness(self, name: str, evaluation: Any, methods: Mapping[str, Any]) -> Line:
        session = self.session
        uniform, matched = controls_of(evaluation, methods)
        titles = [key for method, configured in methods.items() for key in list_names(method, configured)]
        found = None
        if all((title, session.split) in session.scores for title in titles):
            lists = neuron_lists(session, evaluation, methods)
            settings = self.parts.settings["evaluation"][name]
            found = session.store.peek("evaluate", faithfulness_inputs(session, evaluation, settings, lists))
        controls = control_names(uniform, matched)
        questions = len(evaluation.questions([*titles, *controls]))
        lengths = self.lengths[session.split]
        drawn = costs.neuron_operations(RandomNeurons(list(range(len(controls)))), self.shape, 1) or 0.0
        counted = questions, session.sequences, evaluation.positions
        total = sum(costs.faithfulness_operations(self.shape, length, *counted) + drawn for length in lengths)
        split = reference_split(session, evaluation)
        if split is not None:
            sample = sorted(self.lengths[split])[-evaluation.reference_size :]
            total += sum(costs.faithfulness_operations(self.shape, length, 0, session.sequences) for length in sample)
        need = costs.faithfulness_need(self.shape.footprint, questions, bool(controls), session.sequences, evaluation)
        # a byte and a probability of every question, in shards and as a whole
        return self._model_line(name, session.split, found, need, total, 2 * 5 * questions * len(lengths))

    def _retraining(self, name: str, evaluation: Retraining) -> Line:
        settings, parts = self.parts.settings, self.parts
        recipe = Recipe(
            parts.make_model, settings["model"], settings["trainer"], settings["callbacks"], parts.make_callbacks
        )
        return retraining_line(
            self.session, name, evaluation, parts.methods, recipe, self._source(settings["model"]["path"]),
            self.shape, self.lengths, self.rate, self.device.type,
        )  # fmt: skip

    # -- common --------------------------------------------------------------------------------------------------

    def _model_line(
        self, title: str, split: str, found: Path | None, need: Need, operations: float | None, disk: int
    ) -> Line:
        session, lengths = self.session, self.lengths[split]
        batches = [batch for shard in session.shards(split) for batch in shard]
        working = max(
            need.peak(n, columns, session.memory_budget) for n, columns in costs.batch_shapes(batches, lengths)
        )
        seconds = None if operations is None else operations / self.rate
        said = self._said(bool(session.weights), found)
        return Line(title, len(lengths), said, seconds, disk, working, self.model_bytes + working, self.device.type)

    def _said(self, known: bool, found: Path | None) -> str:
        if found is not None:
            return "yes"
        path = self.parts.settings["model"]["path"]
        unread = not known and path is not None and self._source(path) is None
        return UNKNOWN_WEIGHTS if unread else "no"


def print_plan(session: Session, parts: Parts, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Print what a run would take and remove its empty folder; no weights are read. Returns no metrics.

    Args:
        session: of the run, with its data prepared.
        parts: of the run.
        tokenizer: whose size a model from scratch has.

    Raises:
        UserError: an unreadable checkpoint, a method that does not serve the model or does not fit the budget.
    """
    shape = shape_of(configured_architecture(session.data, parts.settings["model"], tokenizer))
    device = session.trainers.for_pass([]).strategy.root_device
    width = shape.footprint.hidden_size
    try:
        rate = operations_per_second(device, width, computed_in(session.trainers.precision))
    except RuntimeError as error:
        raise UserError(
            f"the rate of {device} cannot be measured ({str(error).splitlines()[0]}); expected a free device: "
            "set trainer.accelerator=cpu or wait for it."
        ) from error
    host_rate = operations_per_second(torch.device("cpu"), width, torch.float64)
    lines = Planner(session, parts, shape, device, rate, host_rate).lines()
    if is_first_process():
        print(f"{heading(shape, session, device, rate)}\n{format_plan(lines)}", flush=True)
        remove_empty(session.folder)
    return {}
