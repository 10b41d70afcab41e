"""Edits behind sufficiency and comprehensiveness: replace switched-off neurons, at one position or at all."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.neuron.ranking import chosen_mask, side_by_side
from twinlens.attribution.protocols import ActivationEdit, AnswerStates, NeuronModel, SequenceEdit

Intervention = Literal["zero", "mean", "resample"]
Positions = Literal["last", "all"]
SITES_OF = {"ffn": (True, False), "attn": (False, True), "both": (True, True)}
"""Which sites a list ranks: FFN neurons, attention neurons."""


def replacement_of(
    intervention: Intervention, reference: Reference | None, activation: Tensor, index: Tensor, seed: int
) -> Tensor:
    """Activation that a switched-off neuron gets, broadcastable to `activation`, [sequences, layers, neurons].

    `zero`: none; `mean`: the neuron's mean over the reference; `resample`: its activation in another example of the
    reference, the same one for all lists and tests.

    Args:
        index: row of each explained example, [batch].
        seed: of `resample`.
    """
    if intervention == "zero":
        return activation.new_zeros(1, 1, 1).expand(1, *activation.shape[1:])
    assert reference is not None, "mean and resample need a reference"
    if intervention == "mean":
        return reference.mean.to(activation)
    return reference.activation[reference.donors(index.cpu(), seed)].flatten(0, 1).to(activation)


def kept_neurons(
    model: NeuronModel, neurons: tuple[Tensor, Tensor], r: int, sufficiency: bool, site: str = "ffn"
) -> Tensor:
    """Activations that an edited forward keeps, bool [batch, layers, FFN neurons + attention neurons].

    Args:
        neurons: layers and units of the best neurons, [batch, top_k] each.
        r: neurons of the list that count.
        sufficiency: whether those are kept, and with them what the list does not rank; False: all others are.
        site: what the list ranks, `ffn`, `attn` or `both`.
    """
    layer, unit = neurons
    unit = side_by_side(unit[:, :r], model.n_neurons)
    listed = chosen_mask(layer[:, :r], unit, model.n_layers, model.n_neurons + model.n_attention)
    if not sufficiency:
        return ~listed
    ffn, attention = SITES_OF[site]
    kept = listed.clone()
    kept[..., : model.n_neurons] |= not ffn
    kept[..., model.n_neurons :] |= not attention
    return kept


def edited_scores(
    model: NeuronModel, states: AnswerStates, kept: Tensor, replacement: Tensor, positions: Positions
) -> Tensor:
    """Readout scores [batch, questions, classes] of forwards in which all neurons but the kept ones are replaced.

    Args:
        kept: which activations stay as they are, bool [batch, questions, layers, neurons], or with the layer's
            attention neurons behind its FFN neurons, of which those not kept become 0.
        replacement: from `replacement_of`.
        positions: `last`: at the answer position; `all`: at every position, by full forwards.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.edits import edited_scores, replacement_of
        >>> from twinlens.attribution.example_models import ExampleNeuronModel, example_batch
        >>> model, batch = ExampleNeuronModel(), example_batch()
        >>> states = model.states(batch)
        >>> zeros = replacement_of("zero", None, states.activation, batch["index"], seed=0)
        >>> kept = torch.ones(2, 1, model.n_layers, model.n_neurons, dtype=torch.bool)  # one question: keep everything
        >>> bool((edited_scores(model, states, kept, zeros, "last")[:, 0] - states.scores).abs().max() < 1e-5)
        True
    """
    kept = kept.repeat_interleave(model.sequences_per_example, 0)
    n_questions = kept.shape[1]
    kept, attended = kept[..., : model.n_neurons], kept[..., model.n_neurons :]

    def at_last(layer: int, activation: Tensor) -> Tensor:
        return torch.where(kept[:, :, layer], activation, replacement[:, layer, None].to(activation.dtype))

    def at_all(layer: int, activation: Tensor) -> Tensor:
        own = activation.unflatten(0, (-1, n_questions))
        other = replacement[:, layer, None, None].to(activation.dtype)
        return torch.where(kept[:, :, layer, None], own, other).flatten(0, 1)

    def attention_at_last(layer: int, activation: Tensor) -> Tensor:
        return activation * attended[:, :, layer]

    def attention_at_all(layer: int, activation: Tensor) -> Tensor:
        return (activation.unflatten(0, (-1, n_questions)) * attended[:, :, layer, None]).flatten(0, 1)

    last: ActivationEdit = at_last
    everywhere: SequenceEdit = at_all
    edits_attention = attended.shape[-1] > 0
    with torch.no_grad():
        if positions == "last":
            return model.score_edits(states, last, n_questions, attention_at_last if edits_attention else None)
        attention = attention_at_all if edits_attention else None
        return model.score_sequence_edits(states, everywhere, n_questions, attention)


def questions_at_once(model: NeuronModel, states: AnswerStates, positions: Positions, memory_budget: int) -> int:
    """Number of edited forwards of the batch that fit into the budget (bytes) beside the states, one at least."""
    room = memory_budget - model.bytes_of_states(states)
    if positions == "all":
        return max(1, room // max(1, model.bytes_per_sequence_edit(states)))
    room -= model.bytes_per_chunk(states, model.n_layers - 1)
    return max(1, room // max(1, model.bytes_per_edit(states)))
