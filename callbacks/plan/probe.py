"""The run's own passes timed on a few blocks of its model: how fast this device does each kind of work.

A matrix product says little of small models, of rows of one token or of gradients that are taken layer by layer. So a
model with the configured widths, at most three blocks and random weights is built at plan time, and what a pass does
with a batch is done with it. Its counted operations over the time they took are the pass's rate. A classifier looks its
tokens up, so that its probe has a few rows of the vocabulary; what all of them cost a training step is timed apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import default_convert
from transformers import CONFIG_MAPPING

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.gradients.factor_sums import FactorSums, kfac_bases
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.attribution.neuron.ranking import coded_units
from twinlens.attribution.protocols import Batch
from twinlens.attribution.targets import Targets
from twinlens.callbacks.attribute.neuron_scores import engine_of
from twinlens.callbacks.attribute.whole_gradient_costs import WholeWork, whole_work
from twinlens.callbacks.passes.costs import Shape
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.plan.device_rate import mean_seconds
from twinlens.data.sampling import token_lengths
from twinlens.models.adapters import is_kept
from twinlens.models.linear_layers import linear_layers
from twinlens.models.weight_types import name_of

BLOCKS = 3
"""So that integrated gradients have rows that run through other blocks than the one above theirs."""
EXAMPLES = 32
"""Of a probed batch at most."""
OF_THE_CHECKPOINT = ("id2label", "label2id", "architectures", "dtype", "_name_or_path", "transformers_version")
"""Settings that say nothing of the shape."""
FEW_TOKENS = 2**14
"""Rows of a classifier's embedding in the probe."""
LARGEST = 2**27
"""Parameters of a probe at most: in wider models matrix products take nearly all of the time."""


class FewTokens:
    """Stands for a tokenizer where a probe is built: how many rows an embedding has, and no token for padding.

    Args:
        count: rows.
    """

    pad_token_id = None

    def __init__(self, count: int) -> None:
        self.count = count  # no dataclass: Hydra would take one for settings

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class TrainingRates:
    """Speed of a fit.

    Attributes:
        operations: per second, of forward and backward, counted as three forwards.
        step: seconds per parameter of an optimiser's step.
        embedding: seconds per number of an embedding, whose gradient every backward fills with zeros.
    """

    operations: float
    step: float
    embedding: float


class Probe:
    """A shortened model on the passes' device with one of the run's batches.

    Args:
        session: of the run, with its data prepared.
        model: with the configured widths and few blocks.
        trainer: of a pass, whose device and precision are used.
        split: whose rows of median length are the batch.
    """

    def __init__(self, session: Session, model: Any, trainer: Trainer, split: str) -> None:
        self.device = trainer.strategy.root_device
        self.shape = shape_of(model.lm)
        self._precision = trainer.precision_plugin
        self._trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
        self._model: Any = self._precision.convert_module(model).to(self.device).eval().requires_grad_(False)
        self._session = session
        lengths = token_lengths(session.data.splits[split])
        middle = sorted(range(len(lengths)), key=lambda row: lengths[row])
        count = min(EXAMPLES, session.eval_batch_size, len(middle))
        first = (len(middle) - count) // 2
        self._rows, self._split = middle[first : first + count], split
        self._tokens = [lengths[row] for row in self._rows]

    def forward(self) -> float:
        """Operations per second of a prediction."""

        def run() -> None:
            with torch.no_grad():
                self._model.scores(self._model.features(self._batch()))

        return self._forward_operations() / self._seconds(run)

    def training(self) -> TrainingRates:
        """Forward and backward of a training batch, an optimiser's step, and the gradient of an embedding."""
        own = dict(self._model.named_parameters())
        parameters = [own[name] for name in self._trained]
        rows = self._rows[: self._session.data.batch_size]
        optimizer = torch.optim.AdamW(parameters, lr=0.0)

        def gradients() -> None:
            optimizer.zero_grad()
            batch = self._batch(rows)
            if self._session.readout.of_vocabulary:
                losses, predicts = self._model.token_losses(batch)
                loss = losses.sum() / predicts.sum()
            else:
                scores = self._model(batch).float()
                loss = cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=self.device))
            loss.backward()

        embedding = self._model.lm.get_input_embeddings().weight

        def looked_up() -> None:
            optimizer.zero_grad()
            torch.nn.functional.embedding(self._batch(rows)["input_ids"], embedding).sum().backward()

        self._model.train()
        for weight in parameters:
            weight.requires_grad_(True)
        try:
            lookup = self._seconds(looked_up) if embedding.requires_grad else 0.0
            backward = self._seconds(gradients)
            step = self._seconds(optimizer.step)
        finally:
            optimizer.zero_grad()
            self._model.eval().requires_grad_(False)
        operations = 3 * self._forward_operations() * len(rows) / len(self._rows)
        per_number = lookup / embedding.numel()
        return TrainingRates(
            operations / max(backward - lookup, backward / 2), step / self.shape.trained_parameters, per_number
        )

    def neurons(self, method: NeuronMethod) -> float:
        """Operations per second of a neuron method, as it counts them itself."""
        engine: Any = engine_of(self._model, method)
        engine = engine.where_it_is() if method.engine == "residual" else engine
        sizes = EngineSizes(self.shape.footprint, self._session.sequences, self.shape.residual)
        counted = [method.work(sizes, self.shape, tokens) or 0.0 for tokens in self._tokens]
        budget = self._session.memory_budget
        return sum(counted) / self._seconds(lambda: method.attribute(engine, self._batch(), budget))

    def edits(self, evaluation: Faithfulness, lists: Sequence[str], sites: Mapping[str, str]) -> float:
        """Operations per second of edited forwards: rows of one token each, which are far from a forward's products.

        Neurons are zeroed whatever is put in their place; that takes as long.

        Args:
            lists: names of the neuron lists, controls among them.
            sites: of each list that ranks others than FFN neurons.
        """
        zeroing, budget = copy.copy(evaluation), self._session.memory_budget
        zeroing.intervention = "zero"
        engine = self._model.engine(tests=True)
        sizes = EngineSizes(self.shape.footprint, self._session.tested_sequences, self.shape.residual)
        n_edits = evaluation.n_edits(lists, sites)
        counted = [evaluation.work(sizes, self.shape, tokens, n_edits) for tokens in self._tokens]
        batch, listed = self._batch(), {}
        for number, name in enumerate(lists):
            drawing = RandomNeurons([number], evaluation.longest, sites.get(name, "ffn"))  # type: ignore[arg-type]
            found = drawing.attribute(engine, batch, budget)
            listed[name] = found.layer, coded_units(found)
        return sum(counted) / self._seconds(lambda: zeroing.answers(engine, self._batch(), listed, budget, None, sites))

    def rows(self, method: Any, rank: int) -> float:
        """Operations per second of a pass that stores gradients: a forward and twice as much for every backward.

        Args:
            method: that reads stored gradients.
            rank: backwards of each example.
        """
        projection = method.gradients.projection
        layers = linear_layers(self._model.lm, self._model.head, method.params)
        # leading directions take as long as random ones
        plan = RowPass(layers, [projection.random(layer) for layer in layers],
                       [projection.sides(layer) for layer in layers], "example")  # fmt: skip

        def run() -> None:
            batch = self._batch()
            with recording(plan.layers) as tape:
                scores = self._model(batch)
                plan.of_batch(tape, scores, torch.ones_like(scores).expand(rank, *scores.shape),
                              batch["attention_mask"])  # fmt: skip

        return (1 + 2 * rank) * self._forward_operations() / self._seconds(run)

    def whole(self, method: OverLayers, n_classes: int) -> WholeWork:
        """Operations per second of each pass over whole gradients."""
        layers = linear_layers(self._model.lm, self._model.head, method.params)
        counted = whole_work(layers, self.shape, method, n_classes, self._tokens, 1, 1, self._session.sequences.read)

        def recorded(consume: Callable[[Any, Tensor, Tensor, Batch], object]) -> Callable[[], None]:
            def run() -> None:
                batch = self._batch()
                with recording(layers) as tape:
                    scores = self._model(batch)
                    consume(tape, scores, torch.zeros(len(scores), dtype=torch.long, device=self.device), batch)

            return run

        def add_to(sums: FactorSums) -> float:
            def add(tape: Any, scores: Tensor, labels: Tensor, batch: Batch) -> None:
                sums.add(tape, scores, labels, batch["attention_mask"])

            return self._seconds(recorded(add))

        bases, covariances, eigenvalues = None, 0.0, 0.0
        if method.needs_factors:
            first = FactorSums(layers, method.fisher)  # type: ignore[union-attr]
            covariances = counted.covariances / add_to(first)
            bases = kfac_bases(layers, first.sums, len(self._rows), torch.float32)
            if counted.eigenvalues:
                second = FactorSums(layers, method.fisher, bases)  # type: ignore[union-attr]
                eigenvalues = counted.eigenvalues / add_to(second)
        inverses = [inverse.to(self.device) for inverse in method.inverses(layers, bases)]
        held = HeldTests(layers, inverses, 1, len(self._rows), True, self._session.memory_budget // 8)
        with recording(layers) as tape:
            scores = self._model(self._batch(self._rows[:1]))
            held.add(tape, scores, Targets(torch.zeros(1, dtype=torch.long, device=self.device)))
        scoring = counted.scoring / self._seconds(
            recorded(lambda tape, scores, labels, batch: held.scores(tape, scores, labels))
        )
        return WholeWork(covariances, eigenvalues, scoring, 0.0, 0.0)

    def _forward_operations(self) -> float:
        return self._session.sequences.read * sum(map(self.shape.forward_operations, self._tokens))

    def _batch(self, rows: Sequence[int] | None = None) -> Batch:
        """Loaded anew every time, as a pass does."""
        loaded = next(iter(self._session.loader(self._split)([list(self._rows if rows is None else rows)])))
        batch = {key: value.to(self.device) for key, value in default_convert(loaded).items()}
        known = self._model.lm.get_input_embeddings().num_embeddings
        return {**batch, "input_ids": batch["input_ids"] % known} if "input_ids" in batch else batch

    def _seconds(self, run: Callable[[], object]) -> float:
        with self._precision.forward_context():
            return mean_seconds(run, self.device)


def probe_of(session: Session, make_model: Any, shape: Shape, trainer: Trainer) -> Probe | None:
    """The probe of the configured model; None where a matrix product has to stand for all work.

    That is a model whose few blocks are too large to be built for a plan, or one that is more than its configuration
    says: with code that comes with its checkpoint, or with an adapter kept as modules.

    Args:
        session: of the run, with its data prepared.
        make_model: builds the run's model; keywords `path` and `architecture` replace the checkpoint.
        shape: of the configured model.
        trainer: of a pass.
    """
    config, table = shape.lm.config, shape.lm.get_input_embeddings()
    blocks = min(BLOCKS, shape.footprint.n_layers)
    each = shape.matmul_parameters // shape.footprint.n_layers
    few = {} if session.readout.of_vocabulary else {"tokenizer": FewTokens(min(FEW_TOKENS, table.num_embeddings))}
    spared = sum(table.num_embeddings - len(tokens) for tokens in few.values()) * table.embedding_dim
    size = shape.parameters - (shape.footprint.n_layers - blocks) * each - spared
    if config.model_type not in CONFIG_MAPPING or size > LARGEST or is_kept(shape.lm):
        return None
    settings = shortened(config, blocks)
    if few:  # the model's own number, and its type's, may lie beyond the few
        settings["pad_token_id"] = 0
    with torch.random.fork_rng(devices=[]):
        model = make_model(path=None, architecture=settings, dtype=name_of(session.trainers.weights_in), **few)
    split = "train" if "train" in session.data.splits else session.split
    return Probe(session, model, trainer, split)


def shortened(config: Any, n_layers: int) -> dict[str, Any]:
    """Settings of a transformers configuration with `n_layers` blocks; lists with an entry per block are cut."""
    whole = config.num_hidden_layers
    short = copy.deepcopy(config)
    short.num_hidden_layers = n_layers  # each family's own name for it follows
    settings = {name: value for name, value in short.to_dict().items() if name not in OF_THE_CHECKPOINT}
    for name, value in settings.items():
        if isinstance(value, list) and len(value) == whole:
            settings[name] = value[:n_layers]
    if "attention_types" in settings:  # GPT-Neo makes its list of blocks from this one
        settings["attention_types"] = [[settings.pop("attention_layers"), 1]]
    return {name: value for name, value in settings.items() if value is not None}
