"""The plan of a run: what every pass will take, from shapes, data and the store alone; nothing is computed or written.

Time is counted floating-point operations over the rate of a matrix product of the model's width, measured on the
device at plan time. Memory is counted as the stages themselves count it (`callbacks.costs`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch

from attribution.base import UserError
from attribution.neuron.protocol import NeuronMethod
from attribution.neuron.random_neurons import RandomNeurons
from callbacks import costs
from callbacks.attribute import method_inputs, score_name
from callbacks.examples import examples_inputs
from callbacks.faithfulness_stage import (
    control_names,
    controls_of,
    faithfulness_inputs,
    list_names,
    neuron_lists,
    reference_split,
)
from callbacks.files import is_first_process
from callbacks.fit import fit_inputs, source_of
from callbacks.memory import Need
from callbacks.pipeline import Parts, splits_needed
from callbacks.plan_table import Line, format_plan
from callbacks.session import Predictions, Session, rows_per_shard
from callbacks.store import fingerprint_of, known_weights_hash
from data.sampling import token_lengths
from models.backbone import architecture_of, resolve
from models.choice import output_names
from models.footprint import footprint_of

MEASURED_SECONDS = 0.2
"""How long the device's rate is measured."""
UNKNOWN_WEIGHTS = "weights not yet read"


def shape_of(lm: Any) -> costs.Shape:
    """Sizes of a classifier that may have no values."""
    embeddings = {id(m.weight) for m in lm.base_model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = (p for p in lm.base_model.parameters() if p.dim() > 1 and id(p) not in embeddings)
    return costs.Shape(
        footprint=footprint_of(lm.base_model),
        parameters=sum(p.numel() for p in lm.parameters()),
        matmul_parameters=sum(p.numel() for p in matrices),
        head=lm.score,
    )


def operations_per_second(device: torch.device, width: int, dtype: torch.dtype) -> float:
    """Rate of products [256, width] · [width, 4·width] over about a fifth of a second."""
    left = torch.ones(256, width, device=device, dtype=dtype)
    right = torch.ones(width, 4 * width, device=device, dtype=dtype)

    def run() -> None:
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()  # the first product loads libraries
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < MEASURED_SECONDS or not count:
        run()
        count += 1
    return count * 2.0 * 256 * width * 4 * width / elapsed if elapsed else 1.0


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
        self.session = replace(self.session, predictions={}, scores={})
        self.model_bytes = self.shape.parameters * 4
        self.lengths = {split: token_lengths(rows) for split, rows in self.session.data.splits.items()}

    def lines(self) -> list[Line]:
        """One line per pass.

        Raises:
            UserError: no solver of a method fits the budget.
        """
        settings, session = self.parts.settings, self.session
        lines = [self._fit()] if settings["fit"] else []
        if not settings["fit"]:
            session.weights = known_weights_hash(Path(resolve(settings["model"]["path"])), session.store.root) or ""
        lines += [
            self._predict(split) for split in splits_needed(session.data.splits, session.split, self.parts.methods)
        ]
        for name, method in self.parts.methods.items():
            for seed in getattr(method, "seeds", [None]):
                lines.append(self._attribute(name, method if seed is None else method.for_seed(seed), seed))
        for name, evaluation in self.parts.evaluations.items():
            of_neurons = {k: m for k, m in self.parts.methods.items() if isinstance(m, NeuronMethod)}
            if evaluation.requires == "neuron" and of_neurons:
                lines.append(self._faithfulness(name, evaluation, of_neurons))
        return lines

    # -- stages --------------------------------------------------------------------------------------------------

    def _fit(self) -> Line:
        """Weights, gradients and AdamW's two moments; what backward keeps of a batch of the longest examples.

        On the disk two checkpoints (weights and moments) beside the saved model at the end.
        """
        settings, session = self.parts.settings, self.session
        trainer, data = settings["trainer"], session.data
        lengths = self.lengths["train"]
        epochs = trainer.get("max_epochs") or 1
        limit = trainer.get("limit_train_batches", 1.0)
        batches = -(-len(lengths) // data.batch_size)
        share = min(1.0, limit if isinstance(limit, float) else limit / batches)
        sequences = session.sequences.read
        forward = sequences * sum(map(self.shape.forward_operations, lengths)) * share
        validation = sequences * sum(map(self.shape.forward_operations, self.lengths.get("validation", [])))
        source = self._source(settings["model"]["path"])
        found: Path | None = None
        if source is not None:
            inputs = fit_inputs(session, settings["model"], trainer, source)
            found = session.store.peek("fit", {**inputs, "callbacks": dict(settings["callbacks"])})
        if found is not None:
            session.weights = known_weights_hash(found / "model", session.store.root) or ""
        activations = sequences * min(data.batch_size, len(lengths)) * self.shape.footprint.sequence(max(lengths))
        working = 3 * self.model_bytes + activations
        return Line(
            "fit", len(lengths), self._said(source is not None, found), epochs * (3 * forward + validation) / self.rate,
            7 * self.model_bytes, working, self.model_bytes + working, self.device.type,
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
            session.predictions[split] = Predictions(rows, torch.empty(0), fingerprint_of(inputs))
        lengths = self.lengths[split]
        read = session.sequences.read
        width = read * self.shape.footprint.hidden_size + len(session.data.label_names)
        return self._model_line(
            f"predict {split}", split, found, costs.prediction_need(self.shape.footprint, session.sequences),
            read * sum(map(self.shape.forward_operations, lengths)), 2 * 4 * width * len(lengths),
        )  # fmt: skip

    def _attribute(self, name: str, method: Any, seed: int | None) -> Line:
        session = self.session
        predicted = session.split in session.predictions and (
            isinstance(method, NeuronMethod) or "train" in session.predictions
        )
        found = None
        if predicted:
            settings = {**self.parts.settings["method"][name], "seed": seed}
            found = session.store.peek("attribute", method_inputs(session, method, settings))
        title = score_name(name, seed)
        if found is not None:
            session.scores[title] = found
        lengths = self.lengths[session.split]
        if isinstance(method, NeuronMethod):
            each = [costs.neuron_operations(method, self.shape, length, session.sequences) for length in set(lengths)]
            by_length = dict(zip(set(lengths), each, strict=True))
            total = None if None in each else sum(by_length[length] or 0.0 for length in lengths)
            # shards: layer, unit and score; table: these with a position and three words of text
            disk = len(lengths) * (method.top_k * (12 + 42) + 8 * self.shape.footprint.n_layers)
            need = costs.neuron_need(method, self.shape.footprint, session.sequences)
            return self._model_line(title, session.split, found, need, total, disk)
        return self._instances(title, method, found)

    def _instances(self, title: str, method: Any, found: Path | None) -> Line:
        """Blocks of gradients, or the solver's matrices, beside the cached head inputs of both splits, on the host."""
        session = self.session
        n_train, n_test = len(self.lengths["train"]), len(self.lengths[session.split])
        shard = rows_per_shard(n_test)
        cost = costs.instance_cost(method, self.shape.head, n_train, n_test, shard, session.memory_budget)
        seconds = None if cost.operations is None else cost.operations / self.host_rate
        features = 4 * self.shape.footprint.hidden_size * (n_train + n_test) * session.sequences.read
        # lists in shards and table; each shard's sums over the train split
        disk = 2 * n_test * method.top_k * 24 + (-(-n_test // shard) * 24 + 40) * n_train
        return Line(
            title, n_test, self._said(bool(session.weights), found), seconds, disk,
            cost.memory, cost.memory + features + self.model_bytes, "cpu", cost.remark,
        )  # fmt: skip

    def _faithfulness(self, name: str, evaluation: Any, methods: Mapping[str, Any]) -> Line:
        session = self.session
        uniform, matched = controls_of(evaluation, methods)
        titles = [key for method, configured in methods.items() for key in list_names(method, configured)]
        found = None
        if all(title in session.scores for title in titles):
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


def print_plan(session: Session, parts: Parts, vocabulary: int) -> dict[str, float]:
    """Print what a run would take and remove its empty folder; no weights are read. Returns no metrics.

    Args:
        session: of the run, with its data prepared.
        parts: of the run.
        vocabulary: size of the tokenizer, for a model from scratch.

    Raises:
        UserError: an unreadable checkpoint, a method that does not serve the model or does not fit the budget.
    """
    model = parts.settings["model"]
    lm = architecture_of(
        model["path"], model["architecture"], model["head"],
        output_names(session.data.label_names, session.data.n_choices), vocabulary,
        model["attention"], model["trust_remote_code"],
    )  # fmt: skip
    shape = shape_of(lm)
    device = session.trainers.for_pass([]).strategy.root_device
    dtype = torch.bfloat16 if "bf16" in session.trainers.precision else torch.float32
    dtype = torch.float16 if session.trainers.precision.startswith("16") else dtype
    width = shape.footprint.hidden_size
    try:
        rate = operations_per_second(device, width, dtype)
    except RuntimeError as error:
        raise UserError(
            f"the rate of {device} cannot be measured ({str(error).splitlines()[0]}); expected a free device: "
            "set trainer.accelerator=cpu or wait for it."
        ) from error
    host_rate = operations_per_second(torch.device("cpu"), width, torch.float64)
    lines = Planner(session, parts, shape, device, rate, host_rate).lines()
    if is_first_process():
        print(_heading(shape, session, device, rate))
        print(format_plan(lines), flush=True)
        remove_empty(session.folder)
    return {}


def remove_empty(folder: Path) -> None:
    """Remove the run's folder that Hydra has made, and what it made above it below the working directory, if empty."""
    while folder.resolve().is_relative_to(Path.cwd()) and folder.resolve() != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _heading(shape: costs.Shape, session: Session, device: torch.device, rate: float) -> str:
    footprint = shape.footprint
    rows: Sequence[str] = [f"{split} {len(data)}" for split, data in session.data.splits.items()]
    return (
        f"plan: {footprint.family}, {shape.parameters / 1e6:.1f} M parameters, {footprint.n_layers} layers of "
        f"{footprint.hidden_size} with {footprint.n_neurons} neurons; {session.data.name}: {', '.join(rows)} examples\n"
        f"times: counted operations at {rate / 1e9:.0f} GFLOP/s, a matrix product of the model's width measured just "
        f"now on {device}, one process"
    )
