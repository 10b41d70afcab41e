"""Interventions of the second paper: zero units, run the model again, measure the target.

Zeroing a neuron's parameters is zeroing its coefficient at every token, so interventions are full forwards, batched
over sentences that each have a set of their own. Heads zero their slice of the attention output projection's input,
layers all neurons of a site; output biases stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.counter_random import uniform
from twinlens.attribution.neuron.increase import require_room
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel


@dataclass(frozen=True)
class TargetMetrics:
    """Standing of the target among the scores.

    Attributes:
        reciprocal_rank: 1 / rank, the mean of which over sentences is the MRR, [batch].
        prob, log_prob: softmax probability and its logarithm (nats), [batch] each.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.interventions import target_metrics
        >>> metrics = target_metrics(torch.tensor([[2.0, 1.0, 0.0]]), target=torch.tensor([1]))
        >>> metrics.reciprocal_rank, metrics.prob.round(decimals=2), metrics.log_prob.round(decimals=2)
        (tensor([0.5000]), tensor([0.2400]), tensor([-1.4100]))
    """

    reciprocal_rank: Tensor
    prob: Tensor
    log_prob: Tensor


def target_metrics(scores: Tensor, target: Tensor) -> TargetMetrics:
    """Metrics of `target` [batch] under scores [batch, outputs]; rank 1 is the highest, ties share the better rank."""
    own = scores.gather(1, target[:, None])
    log_prob = (own - scores.logsumexp(-1, keepdim=True))[:, 0]
    return TargetMetrics(1 / (1 + (scores > own).sum(1)).to(scores.dtype), log_prob.exp(), log_prob)


def zeroed_metrics(
    model: ResidualModel,
    batch: Batch,
    target: Tensor,
    ffn: Tensor | None,
    attention: Tensor | None,
    memory_budget: int,
) -> TargetMetrics:
    """Metrics after zeroing each sentence's own sets; with both None those of the model as it is.

    Args:
        target: output whose metrics are taken, int64 [batch].
        ffn: bool [batch, layers, neurons] or None.
        attention: bool [batch, layers, heads · head_dim] or None.
        memory_budget: bytes; results do not depend on it.

    Raises:
        UserError: when the budget does not hold one sentence's forward.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.interventions import zeroed_metrics
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> neurons = torch.zeros(2, model.n_layers, model.n_neurons, dtype=torch.bool)
        >>> neurons[:, 1, 3] = True  # neuron 3 of layer 1
        >>> zeroed_metrics(model, batch, batch["labels"], None, None, BUDGET).prob.round(decimals=3)
        tensor([0.6420, 0.6980])
        >>> zeroed_metrics(model, batch, batch["labels"], neurons, None, BUDGET).prob.round(decimals=3)
        tensor([0.5720, 0.5990])
    """
    each = model.bytes_per_example(batch["attention_mask"].shape[1], attention=False)
    require_room(memory_budget >= each, each, memory_budget, "one sentence's forward")
    step = memory_budget // each
    parts = []
    for start in range(0, len(target), step):
        part = slice(start, start + step)
        rows = {name: batch[name][part] for name in ("input_ids", "attention_mask")}
        chosen = [None if mask is None else mask[part] for mask in (ffn, attention)]
        parts.append(target_metrics(model.zeroed_scores(rows, *chosen), target[part]))
    names = ("reciprocal_rank", "prob", "log_prob")
    return TargetMetrics(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def zeroed_completion_metrics(
    model: ResidualModel,
    batch: Batch,
    completions: Completions,
    ffn: Tensor | None,
    attention: Tensor | None,
    memory_budget: int,
) -> TargetMetrics:
    """`zeroed_metrics` of whole completions, every token behind the given ones; foils are not asked about.

    Returns:
        mean over the tokens of 1 / rank; geometric mean of their probabilities; summed log-probability.

    Example:
        >>> import torch
        >>> from twinlens.attribution.completions import Completions
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.interventions import zeroed_completion_metrics
        >>> two = Completions([[1, 0], [1]])
        >>> found = zeroed_completion_metrics(ExampleResidualModel(), example_batch(), two, None, None, BUDGET)
        >>> bool(((found.log_prob / torch.tensor([2, 1])).exp() - found.prob).abs().max() < 1e-6)
        True
    """
    lengths = torch.tensor([len(ids) for ids in completions.tokens])
    ranks, log_probs = torch.zeros(len(lengths)), torch.zeros(len(lengths))
    for step in Completions(completions.tokens).steps(batch):
        own, attended = (None if mask is None else mask[step.rows] for mask in (ffn, attention))
        found = zeroed_metrics(model, step.batch, step.batch["target"], own, attended, memory_budget)
        ranks, log_probs, lengths = (part.to(found.log_prob.device) for part in (ranks, log_probs, lengths))
        ranks[step.rows] += found.reciprocal_rank.to(ranks)
        log_probs[step.rows] += found.log_prob.to(log_probs)
    return TargetMetrics(ranks / lengths, (log_probs / lengths).exp(), log_probs)


def distinct_mask(layer: Tensor, unit: Tensor, k: int, n_layers: int, n_units: int) -> Tensor:
    """The first `k` distinct neurons of lists that may name one several times (attention neurons at positions).

    Args:
        layer, unit: best first, [batch, r]; layer −1 where a list is shorter.

    Returns:
        bool [batch, layers, units]; fewer than `k` where the list holds fewer.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.interventions import distinct_mask
        >>> layer, unit = torch.tensor([[0, 0, 1]]), torch.tensor([[2, 2, 0]])  # the first neuron stands there twice
        >>> distinct_mask(layer, unit, k=2, n_layers=2, n_units=3).nonzero()[:, 1:]
        tensor([[0, 2],
                [1, 0]])
    """
    address = torch.where(layer < 0, -1, layer.long() * n_units + unit.long())
    mask = torch.zeros(len(layer), n_layers * n_units, dtype=torch.bool, device=layer.device)
    for chosen, row in zip(mask, address.tolist(), strict=True):
        first = [place for place in dict.fromkeys(row) if place >= 0][:k]
        chosen[torch.tensor(first, dtype=torch.int64, device=mask.device)] = True
    return mask.unflatten(1, (n_layers, n_units))


def head_mask(heads: Tensor, head_dim: int) -> Tensor:
    """Units of chosen heads: bool [batch, layers, heads] → [batch, layers, heads · head_dim]."""
    return heads.repeat_interleave(head_dim, -1)


def random_mask(like: Tensor, seed: int, index: Tensor) -> Tensor:
    """Random neurons, as many in every layer of every sentence as `like` has, without replacement.

    Drawn by (seed, example, neuron), whatever the batch.

    Args:
        like: bool [batch, layers, units].
        index: row of each example in its split, int64 [batch].
    """
    n_layers, n_units = like.shape[1:]
    columns = torch.arange(n_layers * n_units, device=index.device)
    drawn = uniform(seed, index, columns).unflatten(1, (n_layers, n_units))
    place = drawn.sort(dim=-1, stable=True).indices.argsort(-1)
    return (place < like.sum(-1, keepdim=True).to(place.device)).to(like.device)
