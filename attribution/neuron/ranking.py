"""From dense neuron scores to the sparse lists that are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

SITES = ("ffn", "attn")
"""Where units lie: inputs of the MLP's down-projection, inputs of the attention's output projection."""
FFN, ATTENTION = range(len(SITES))


@dataclass(frozen=True)
class NeuronScores:
    """The best neurons of each example of a batch, best first.

    Attributes:
        layer, unit: address of the neuron, int32 [batch, top_k]; −1 where a list is shorter.
        score: [batch, top_k], float32.
        target, target_prob: class explained and its probability, [batch]; None: no class in particular.
        completeness: residual per layer, [batch, layers], or None where the method has none.
        position: token of each entry, counted from the sentence's first, int32 [batch, top_k]; −1, or None, where
            entries have none.
        site: number in `SITES` of each entry, int8 [batch, top_k]; None: all are FFN neurons.
    """

    layer: Tensor
    unit: Tensor
    score: Tensor
    target: Tensor | None = None
    target_prob: Tensor | None = None
    completeness: Tensor | None = None
    position: Tensor | None = None
    site: Tensor | None = None


def rank_neurons(
    scores: Tensor,
    top_k: int,
    target: Tensor | None = None,
    target_prob: Tensor | None = None,
    completeness: Tensor | None = None,
) -> NeuronScores:
    """The `top_k` highest of [batch, layers, neurons]; ties go to the lower layer, then the lower unit."""
    n_neurons = scores.shape[-1]
    ordered, position = scores.float().flatten(1).sort(dim=1, descending=True, stable=True)
    position = position[:, :top_k]
    return NeuronScores(
        layer=position.div(n_neurons, rounding_mode="floor").int(),
        unit=position.remainder(n_neurons).int(),
        score=ordered[:, :top_k],
        target=target,
        target_prob=target_prob,
        completeness=completeness,
    )


def above_threshold(scores: NeuronScores, share: float) -> NeuronScores:
    """Lists cut where the score falls to `share` of the example's highest; cut entries get layer and unit −1."""
    kept = scores.score > share * scores.score[:, :1]
    return replace(
        scores, layer=scores.layer.where(kept, -1), unit=scores.unit.where(kept, -1), score=scores.score.where(kept, 0)
    )


def chosen_mask(layer: Tensor, unit: Tensor, n_layers: int, n_neurons: int) -> Tensor:
    """Boolean [batch, layers, neurons] that is True at the listed neurons; entries below 0 are ignored.

    Args:
        layer, unit: [batch, r].
    """
    flat = layer.long() * n_neurons + unit.long()
    listed = torch.zeros(len(layer), n_layers * n_neurons + 1, dtype=torch.bool, device=layer.device)
    # the extra last column swallows the entries that stand for "none"
    flat = torch.where(layer < 0, n_layers * n_neurons, flat)
    listed.scatter_(1, flat, True)
    return listed[:, :-1].unflatten(1, (n_layers, n_neurons))
