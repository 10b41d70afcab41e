"""Inputs that the evaluations of the second paper share: sentences, groups by type of knowledge, rows of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.bounded_search import UNIT_BLOCK, search_bytes
from twinlens.attribution.neuron.increase import dense_bytes
from twinlens.attribution.neuron.interventions import (
    TargetMetrics,
    distinct_mask,
    zeroed_completion_metrics,
    zeroed_metrics,
)
from twinlens.attribution.neuron.query import query_bytes
from twinlens.attribution.neuron.readout import Mode, Readout, readout_of
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates

Part = TypeVar("Part")

ORIGINAL = "original"
"""Method name of the model without intervention."""
METRICS = ("reciprocal_rank", "prob", "log_prob")


@dataclass(frozen=True)
class ListedNeurons:
    """Stored lists of neurons, best first.

    Attributes:
        attention: whether an entry is an attention neuron rather than one of the FFN, bool [batch, r].
        layer, unit: [batch, r], unit = head · head_dim + dim for attention neurons; layer −1: the list has ended.
        control: whether they are those of a control.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons, listed_masks
        >>> from twinlens.attribution.example_models import ExampleResidualModel
        >>> neurons = ListedNeurons(torch.tensor([[False, True]]), torch.tensor([[0, 1]]), torch.tensor([[4, 2]]))
        >>> ffn, attention = listed_masks(ExampleResidualModel(), neurons, k=2)
        >>> ffn.nonzero().tolist(), attention.nonzero().tolist()  # (sentence, layer, unit) of either site
        ([[0, 0, 4]], [[0, 1, 2]])
    """

    attention: Tensor
    layer: Tensor
    unit: Tensor
    control: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Sentences:
    """A batch of explained sentences. What several evaluations read of it is computed once and kept.

    Attributes:
        model: the model.
        batch: `index`, `input_ids`, `attention_mask`.
        target: output that is explained, int64 [batch].
        memory_budget: bytes; nothing depends on it.
        lists: stored lists of neurons by name, where an evaluation reads them (`reads_lists`).
        reads: what all evaluations of the pass read together.
        kept: what has been computed for one of them.
        completions: what follows them, where that is explained whole: then metrics are those of all its tokens.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, _ = example_sentences()
        >>> sentences.metrics().round(decimals=2)  # reciprocal rank, probability, log-probability (nats)
        tensor([[ 1.0000,  0.6400, -0.4400],
                [ 1.0000,  0.7000, -0.3600]])
        >>> everything = torch.ones(2, sentences.model.n_layers, sentences.model.n_neurons, dtype=torch.bool)
        >>> sentences.metrics(ffn=everything).round(decimals=2)  # without any FFN neuron
        tensor([[ 0.3300,  0.2200, -1.5000],
                [ 0.3300,  0.2000, -1.5900]])
    """

    model: ResidualModel
    batch: Batch
    target: Tensor
    memory_budget: int
    lists: Mapping[str, ListedNeurons] = field(default_factory=dict)
    reads: Reads = field(default_factory=Reads)
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)
    completions: Completions | None = None

    def once(self, key: object, compute: Callable[[], Part]) -> Part:
        """What `compute` gives, computed for the first evaluation that asks."""
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def states(self, attention: bool = True) -> ResidualStates:
        """The residual stream of one forward, with attention weights or without.

        Libraries compute attention in another way where its weights are read, so that an evaluation without them has a
        forward of its own: its numbers do not depend on what else a run asks.
        """
        if attention:
            return self.once("states with attention", lambda: self.model.states(self.batch))
        return self.once("states", lambda: self.model.states(self.batch, attention=False))

    def readout(self, mode: Mode, attention: bool = True) -> Readout:
        """The readout at the target, see `twinlens.attribution.neuron.readout`; `attention` as for `states`."""
        return readout_of(self.model, self.states(attention), self.target, mode)

    @property
    def room(self) -> int:
        """Bytes that the budget leaves beside the sentences' states."""
        tokens = self.batch["attention_mask"].shape[1]
        return self.memory_budget - len(self.target) * self.model.bytes_per_example(tokens)

    def metrics(self, ffn: Tensor | None = None, attention: Tensor | None = None) -> Tensor:
        """Reciprocal rank, probability and log-probability (nats) of the target with units zeroed, [batch, 3].

        Args:
            ffn: True where a neuron is zeroed, bool [batch, layers, neurons]; None: none is.
            attention: the same of attention neurons, bool [batch, layers, heads · head_dim].

        Raises:
            UserError: when the budget does not hold one sentence's forward.
        """
        if ffn is None and attention is None:
            return self.once("original", lambda: self._zeroed(None, None))
        return self._zeroed(ffn, attention)

    def _zeroed(self, ffn: Tensor | None, attention: Tensor | None) -> Tensor:
        if self.completions is not None:
            asked = self.model, self.batch, self.completions
            return stacked(zeroed_completion_metrics(*asked, ffn, attention, self.memory_budget))
        return stacked(zeroed_metrics(self.model, self.batch, self.target, ffn, attention, self.memory_budget))


@dataclass(frozen=True)
class Prompts:
    """Facts about all explained sentences.

    Attributes:
        types: type of knowledge of each sentence, empty where the data have none.
        model: the model.
        token: text of an output.
        seeds_of: method → names of its stored lists, one per seed.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.sentences import Prompts
        >>> from twinlens.attribution.example_models import ExampleResidualModel
        >>> prompts = Prompts(("capital", "colour", "capital"), ExampleResidualModel())
        >>> [(name, rows.tolist()) for name, rows in prompts.groups()]
        [('', [0, 1, 2]), ('capital', [0, 2]), ('colour', [1])]
    """

    types: Sequence[str]
    model: ResidualModel
    token: Callable[[int], str] = str
    seeds_of: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def groups(self) -> Iterator[tuple[str, Tensor]]:
        """All sentences under the empty name, then those of every type: (name, row numbers [rows])."""
        yield "", torch.arange(len(self.types))
        yield from self.by_type()

    def by_type(self) -> Iterator[tuple[str, Tensor]]:
        """Types in the order of the data: (name, row numbers [rows])."""
        for name in dict.fromkeys(self.types):
            if name:
                yield name, torch.tensor([row for row, kind in enumerate(self.types) if kind == name])


def stacked(metrics: TargetMetrics) -> Tensor:
    """The three metrics side by side, [batch, 3]."""
    return torch.stack([getattr(metrics, name) for name in METRICS], 1)


def means(metric: str, values: Tensor, prompts: Prompts, unit: float = 1.0, **cells: object) -> list[Result]:
    """Mean of values [sentences] with its standard error, both times `unit`, over all sentences and by type."""
    return [mean_row(metric, values[rows], unit, group=name, **cells) for name, rows in prompts.groups()]


def mean_row(metric: str, values: Tensor, unit: float = 1.0, **cells: object) -> Result:
    """One row: mean of values [n] and its standard error, both times `unit`."""
    values = values.double()
    stderr = float(values.std() / len(values) ** 0.5) * unit if len(values) > 1 else None
    return Result(metric, float(values.mean()) * unit, stderr, n=len(values), samples=values, unit=unit, **cells)  # type: ignore[arg-type]


def places(metric: str, values: Tensor, names: Sequence[str], prompts: Prompts, top: int = 10) -> list[Result]:
    """Places 1 … `top` of named things by the mean of values [sentences, things], in every group (reference_group)."""
    found = []
    for group, rows in prompts.groups():
        order = values[rows].double().mean(0).sort(descending=True, stable=True).indices[:top].tolist()
        for place, thing in enumerate(order):
            found.append(Result(metric, place + 1, n=len(rows), group=group, reference_group=names[thing]))
    return found


def decreases(before: Tensor, after: Tensor, prompts: Prompts, **cells: object) -> list[Result]:
    """By how many per cent MRR and mean probability fall (Tables 7, 11, 13), over all sentences and by type.

    The 95 % interval is a bootstrap's over sentences. Methods are compared by what each sentence loses; as all of them
    start from the same mean, its scale does not change which of two is the better one in a resample.

    Args:
        before, after: metrics, [sentences, 3].
    """
    found = []
    for name, rows in prompts.groups():
        for column, metric in ((0, "mrr_decrease"), (1, "prob_decrease")):
            value = decrease(before[rows, column], after[rows, column])
            low, high = ends(torch.stack([before[rows, column], after[rows, column]]), _decrease_of_means)
            more = {"n": len(rows), "group": name, "better": "higher", "low": low, "high": high, **cells}
            start = float(before[rows, column].double().mean())
            if start > 0:
                more |= {"samples": (before - after)[rows, column].double() / start, "unit": 100.0}
            found.append(Result(metric, value, **more))  # type: ignore[arg-type]
    return found


def _decrease_of_means(means: Tensor) -> Tensor:
    before, after = means.unbind(1)
    return torch.where(before > 0, 100 * (before - after) / before, 0.0)


def decrease(before: Tensor, after: Tensor) -> float:
    """100 · (mean before − mean after) / mean before; 0 where there was nothing to lose."""
    start = float(before.double().mean())
    return 100 * (start - float(after.double().mean())) / start if start else 0.0


def limited(k: int, largest_share: float, n_units: int) -> int:
    """The paper's count on its models, on small ones at most that share of all units, one at least."""
    return max(1, min(k, int(largest_share * n_units)))


def listed_masks(model: ResidualModel, neurons: ListedNeurons, k: int) -> tuple[Tensor | None, Tensor | None]:
    """The first `k` distinct neurons of lists over both sites.

    Returns:
        bool [batch, layers, neurons] and [batch, layers, heads · head_dim]; None for a site that no list has.
    """
    width = model.n_neurons + model.n_heads * model.head_dim
    unit = neurons.unit + neurons.attention * model.n_neurons
    mask = distinct_mask(neurons.layer, unit, k, model.n_layers, width)
    ffn, attention = mask[..., : model.n_neurons], mask[..., model.n_neurons :]
    return ffn if bool(ffn.any()) else None, attention if bool(attention.any()) else None


def require_counts(evaluation: str, **counts: float) -> None:
    """Refuse settings below what can be counted.

    Raises:
        UserError: naming the setting.
    """
    for name, value in counts.items():
        if value <= 0:
            raise UserError(
                f"evaluation.{evaluation}.{name}={value} leaves nothing to count; expected more than 0: "
                f"set e.g. evaluation.{evaluation}.{name}=1."
            )


def sentence_bytes(model: ResidualModel, tokens: int, top_k: int) -> int:
    """Memory of one sentence in an evaluation at most, in bytes: states, then the largest of search, sums and keys.

    Beside these lie the scores of query neurons, which several evaluations read.
    """
    hidden, units = model.values(0).shape[1], model.n_heads * model.head_dim
    n_outputs = 0 if model.output_weight is None else len(model.output_weight)
    parts = [
        search_bytes(model.n_layers, model.n_neurons, 1, n_outputs, hidden),
        search_bytes(model.n_layers, units, tokens, n_outputs, hidden),
        dense_bytes(1, model.n_neurons, 1, n_outputs, hidden),
        dense_bytes(1, units, tokens, n_outputs, hidden),
        query_bytes(model, tokens, top_k, hidden),
        8 * hidden * tokens * 4,
    ]
    row = 16 * (n_outputs + hidden) * 4 + 12 * UNIT_BLOCK * hidden
    heads = 4 * model.n_heads * tokens * (hidden + n_outputs)
    queries = 4 * model.n_layers * model.n_neurons
    return model.bytes_per_example(tokens) + max(parts) + row + heads + queries
