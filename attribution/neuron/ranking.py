"""Sparse lists of the best neurons, made of dense scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twinlens.attribution.protocols import ExpertPlaces

SITES = ("ffn", "attn")
"""Where units lie: inputs of the MLP's down-projection, inputs of the attention's output projection."""
FFN, ATTENTION = range(len(SITES))

FIRST_ATTENTION = 2**30
"""Added to units of attention neurons where both sites share one number; no layer has as many FFN neurons."""


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
        token: of scores of completions the share of each of their tokens, [batch, top_k, tokens], float32; NaN behind
            an example's last; None: there is one token.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import NeuronScores
        >>> scores = NeuronScores(
        ...     layer=torch.tensor([[1, 0]]), unit=torch.tensor([[4, 2]]), score=torch.tensor([[0.3, 0.1]]),
        ...     target=torch.tensor([1]), target_prob=torch.tensor([0.9]),
        ... )
        >>> scores.layer[0, 0].item(), scores.unit[0, 0].item()  # unit 4 of layer 1 carries most
        (1, 4)
    """

    layer: Tensor
    unit: Tensor
    score: Tensor
    target: Tensor | None = None
    target_prob: Tensor | None = None
    completeness: Tensor | None = None
    position: Tensor | None = None
    site: Tensor | None = None
    token: Tensor | None = None


@dataclass(frozen=True)
class TokenScores:
    """Scores of every neuron for the log-probability of one next token of each example, in nats.

    Attributes:
        ffn: [batch, layers, neurons], float32; None: FFN neurons have none.
        attention: of attention neurons, [batch, layers, heads · head_dim]; None: they have none.
        log_prob: of the token, [batch].
        completeness: residual per layer, [batch, layers]; None: the method has none.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import TokenScores
        >>> scores = TokenScores(torch.zeros(1, 2, 3), None, torch.tensor([-0.5]))
        >>> scores.of_units().shape, scores.n_ffn  # [batch, layers, units]
        (torch.Size([1, 2, 3]), 3)
    """

    ffn: Tensor | None
    attention: Tensor | None
    log_prob: Tensor
    completeness: Tensor | None = None

    def of_units(self) -> Tensor:
        """Both sites, attention neurons behind the FFN neurons of their layer, [batch, layers, units]."""
        return torch.cat([part for part in (self.ffn, self.attention) if part is not None], -1)

    @property
    def n_ffn(self) -> int:
        """FFN neurons of a layer that have scores."""
        return 0 if self.ffn is None else self.ffn.shape[-1]


def rank_neurons(
    scores: Tensor,
    top_k: int,
    target: Tensor | None = None,
    target_prob: Tensor | None = None,
    completeness: Tensor | None = None,
    present: Tensor | None = None,
) -> NeuronScores:
    """The `top_k` highest scores of each example; ties go to the lower layer, then the lower unit.

    Args:
        scores: [batch, layers, neurons].
        top_k: entries of each list.
        target, target_prob, completeness: passed on, see `NeuronScores`.
        present: neurons that an example has, bool as `scores`: of experts those of the ones that its token was sent to.
            Lists with fewer than `top_k` end there. None: all.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import rank_neurons
        >>> dense = torch.tensor([[[0.1, 0.4, -0.2], [0.3, 0.0, 0.4]]])  # [batch, layers, neurons]
        >>> ranked = rank_neurons(dense, top_k=3)
        >>> ranked.layer.tolist(), ranked.unit.tolist()
        ([[0, 1, 1]], [[1, 2, 0]])
        >>> ranked.score
        tensor([[0.4000, 0.4000, 0.3000]])
    """
    n_neurons = scores.shape[-1]
    scores = scores.float() if present is None else scores.float().masked_fill(~present, -torch.inf)
    ordered, position = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    position = position[:, :top_k]
    ranked = NeuronScores(
        layer=position.div(n_neurons, rounding_mode="floor").int(),
        unit=position.remainder(n_neurons).int(),
        score=ordered[:, :top_k],
        target=target,
        target_prob=target_prob,
        completeness=completeness,
    )
    return ranked if present is None else without_absent(ranked)


def without_absent(scores: NeuronScores) -> NeuronScores:
    """Lists cut where the score falls to −inf, as of neurons that an example does not have; see `above_threshold`."""
    return _kept(scores, scores.score > -torch.inf)


def rank_sites(
    ffn: Tensor | None,
    attention: Tensor,
    top_k: int,
    target: Tensor | None = None,
    target_prob: Tensor | None = None,
    completeness: Tensor | None = None,
    present: Tensor | None = None,
) -> NeuronScores:
    """As `rank_neurons`, of attention neurons, alone or among FFN neurons; ties of a layer go to FFN neurons.

    Args:
        ffn: scores of FFN neurons, [batch, layers, neurons], or None.
        attention: those of attention neurons, [batch, layers, heads · head_dim].
        top_k: entries of each list.
        target, target_prob, completeness: passed on, see `NeuronScores`.
        present: FFN neurons that an example has, as of `rank_neurons`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import rank_sites
        >>> ranked = rank_sites(torch.tensor([[[0.1, 0.4]]]), torch.tensor([[[0.3, 0.4, 0.0]]]), top_k=3)
        >>> ranked.site.tolist(), ranked.unit.tolist()  # site 0: FFN, 1: attention
        ([[0, 1, 1]], [[1, 1, 0]])
    """
    n_neurons = 0 if ffn is None else ffn.shape[-1]
    both = attention if ffn is None else torch.cat([ffn, attention], -1)
    if ffn is None or present is None:
        there = None
    else:
        there = torch.cat([present, torch.ones_like(attention, dtype=torch.bool)], -1)
    return at_sites(rank_neurons(both, top_k, target, target_prob, completeness, there), n_neurons)


def rank_token_scores(found: TokenScores, top_k: int, target: Tensor, present: Tensor | None = None) -> NeuronScores:
    """Lists of dense scores, of one site or of both.

    Args:
        found: of a batch's tokens.
        top_k: entries of each list.
        target: what is explained, [batch].
        present: FFN neurons that an example has, as of `rank_neurons`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import TokenScores, rank_token_scores
        >>> found = TokenScores(torch.tensor([[[0.1, 0.4]]]), None, torch.tensor([-0.5]))
        >>> rank_token_scores(found, 1, torch.tensor([2])).unit.tolist()
        [[1]]
    """
    about = (target, found.log_prob.exp(), found.completeness, present)
    if found.attention is None:
        assert found.ffn is not None
        return rank_neurons(found.ffn, top_k, *about)
    return rank_sites(found.ffn, found.attention, top_k, *about)


def at_sites(scores: NeuronScores, n_neurons: int) -> NeuronScores:
    """Scores whose attention neurons count on behind the `n_neurons` FFN neurons of their layer, with sites."""
    attention = scores.unit >= n_neurons
    return replace(
        scores,
        unit=torch.where(attention, scores.unit - n_neurons, scores.unit),
        site=torch.where(attention, ATTENTION, FFN).to(torch.int8),
    )


def coded_units(scores: NeuronScores) -> Tensor:
    """Units of both sites as one number, int32 [batch, top_k]: attention neurons start at `FIRST_ATTENTION`."""
    unit = scores.unit.int()
    return unit if scores.site is None else unit + FIRST_ATTENTION * (scores.site == ATTENTION).int()


def above_threshold(scores: NeuronScores, share: float) -> NeuronScores:
    """Lists cut where the score falls to `share` of the example's highest; cut entries get layer and unit −1."""
    return _kept(scores, scores.score > share * scores.score[:, :1])


def _kept(scores: NeuronScores, kept: Tensor) -> NeuronScores:
    return replace(
        scores, layer=scores.layer.where(kept, -1), unit=scores.unit.where(kept, -1), score=scores.score.where(kept, 0)
    )


def with_coefficient(experts: ExpertPlaces | None, coefficient: Tensor) -> Tensor | None:
    """Which neurons an example has: where there are experts, those with a coefficient, bool; None: all."""
    return None if experts is None else coefficient != 0


def chosen_mask(layer: Tensor, unit: Tensor, n_layers: int, n_neurons: int) -> Tensor:
    """Boolean [batch, layers, neurons] that is True at the listed neurons; entries below 0 are ignored.

    Args:
        layer, unit: [batch, r].

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.ranking import chosen_mask
        >>> chosen_mask(torch.tensor([[1, -1]]), torch.tensor([[2, -1]]), n_layers=2, n_neurons=3)
        tensor([[[False, False, False],
                 [False, False,  True]]])
    """
    flat = layer.long() * n_neurons + unit.long()
    listed = torch.zeros(len(layer), n_layers * n_neurons + 1, dtype=torch.bool, device=layer.device)
    # the extra last column swallows the entries that stand for "none"
    flat = torch.where(layer < 0, n_layers * n_neurons, flat)
    listed.scatter_(1, flat, True)
    return listed[:, :-1].unflatten(1, (n_layers, n_neurons))


def side_by_side(unit: Tensor, n_neurons: int) -> Tensor:
    """Units of both sites, `unit` [...], as one row of a layer's units, [...]: attention neurons, which start at
    `FIRST_ATTENTION`, follow the layer's `n_neurons` FFN neurons."""
    return torch.where(unit >= FIRST_ATTENTION, unit - FIRST_ATTENTION + n_neurons, unit)
