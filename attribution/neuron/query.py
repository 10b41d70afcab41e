"""Query side of the second paper, Section 3.4: which layers and neurons activate the value neurons.

A value neuron's coefficient comes from the inner product of its key with the residual stream that enters its layer,
which is a sum of the embedding and of every earlier attention and MLP output. The neuron's increase is shared out among
these contributions u_s by their part of that product.

`corrected` (default): the pre-activation is ⟨x, key⟩ / σ + c with the norm's centring in the key and the norm's and
the projection's bias in c, which is a contribution of its own. Shares are sign(⟨x, key⟩ / σ + c) · ip_s / Σ|ip|: in the
same order as ip_s / Σ ip, but bounded by 1 in all where the sum nearly cancels, and of the right sign where it is
negative (a contribution that pushes the coefficient the way it went has a positive share). Gated MLPs have two keys, up
and gate, of which each takes half of the increase, as both are factors of the coefficient.

`notebook`: shares ip_s / Σ ip without centring and biases, the value row as the key of a gated MLP's neuron, as the
public notebooks do; a sum near zero or below then blows shares up or turns their sign, as it does there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.neuron.bounded_search import TopUnits
from twinlens.attribution.neuron.increase import require_room
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import LayerStates, ResidualModel, ResidualStates


@dataclass(frozen=True)
class ValueNeurons:
    """Value neurons of one site, whose keys are asked.

    Attributes:
        site: `ffn` or `attn`.
        layer, unit: [batch, k], int64; layer −1 where a list is shorter.
        column: token at which the neuron's coefficient arises, [batch, k]; the answer position for FFN neurons.
        weight: increase that is shared out, [batch, k].

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.bounded_search import top_units
        >>> from twinlens.attribution.neuron.logprob_increase import ffn_units
        >>> from twinlens.attribution.neuron.query import ValueNeurons
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> top = top_units(readout_of(model, states, batch["labels"]), ffn_units(model, states), 2, BUDGET)
        >>> neurons = ValueNeurons.of(top, states)
        >>> neurons.site, neurons.layer.shape, neurons.column.tolist()  # FFN neurons arise at the last token
        ('ffn', torch.Size([2, 2]), [[3, 3], [3, 3]])
    """

    site: str
    layer: Tensor
    unit: Tensor
    column: Tensor
    weight: Tensor

    @staticmethod
    def of(top: TopUnits, states: ResidualStates) -> ValueNeurons:
        """The neurons of a list, attention neurons at their position."""
        site = "ffn" if bool((top.position < 0).all()) else "attn"
        column = states.position[:, None].expand_as(top.layer) if site == "ffn" else top.position.long()
        return ValueNeurons(site, top.layer.long(), top.unit.long(), column, top.score)

    def rows(self, start: int, stop: int) -> ValueNeurons:
        """A contiguous part of the examples."""
        part = slice(start, stop)
        return ValueNeurons(self.site, self.layer[part], self.unit[part], self.column[part], self.weight[part])


@dataclass(frozen=True)
class QueryLayers:
    """Increase of the value neurons shared out among what their keys read, nats.

    Attributes:
        embedding: [batch].
        attention, mlp: output of each layer, [batch, layers].
        constant: the biases inside the keys, [batch]; 0 for `notebook`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.query import ValueNeurons, query_layers
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> one = torch.ones(2, 1, dtype=torch.int64)  # of each example neuron 1 of layer 1, at the last token
        >>> neurons = ValueNeurons("ffn", layer=one, unit=one, column=3 * one, weight=torch.tensor([[0.5], [0.2]]))
        >>> found = query_layers(model, batch, neurons, BUDGET)
        >>> found.embedding.shape, found.attention.shape, found.mlp.shape  # nats of its increase
        (torch.Size([2]), torch.Size([2, 2]), torch.Size([2, 2]))
    """

    embedding: Tensor
    attention: Tensor
    mlp: Tensor
    constant: Tensor


@dataclass(frozen=True)
class _Keys:
    """Keys of the value neurons: rows [batch, k, factors, hidden], constants and divisors [batch, k, factors]."""

    rows: Tensor
    constant: Tensor
    divisor: Tensor
    shares: Tensor


def query_layers(
    model: ResidualModel, batch: Batch, neurons: ValueNeurons, memory_budget: int, mode: Mode = "corrected"
) -> QueryLayers:
    """Query layers of value neurons; one forward per chunk of examples.

    Raises:
        UserError: when the budget does not hold one example (`query_bytes`); `notebook` with shared key heads.
    """
    parts = []
    for start, stop in _chunks(model, batch, neurons, memory_budget):
        keys = _keys(model, _rows_of(batch, start, stop), neurons.rows(start, stop), mode)
        weight = neurons.weight[start:stop].to(keys.shares.dtype)
        parts.append(torch.einsum("bkfs,bk->bs", keys.shares, weight) / keys.shares.shape[2])
    total = torch.cat(parts)
    between = total[:, 1:-1].unflatten(1, (model.n_layers, 2))
    return QueryLayers(total[:, 0], between[..., 0], between[..., 1], total[:, -1])


def query_neurons(
    model: ResidualModel, batch: Batch, neurons: ValueNeurons, memory_budget: int, mode: Mode = "corrected"
) -> Tensor:
    """Scores of query FFN neurons, [batch, layers, neurons]: Σ over value neurons of share times increase.

    A neuron n of layer l' below the value neuron's contributes a[l',p,n]·⟨W_down[n], key⟩ at its position p; with the
    MLP's bias these sum to the share of MLP l' in `query_layers`. Two forwards per chunk of examples.

    Raises:
        UserError: when the budget does not hold one example (`query_bytes`); `notebook` with shared key heads.
    """
    parts = []
    for start, stop in _chunks(model, batch, neurons, memory_budget):
        rows, chosen = _rows_of(batch, start, stop), neurons.rows(start, stop)
        keys = _keys(model, rows, chosen, mode)
        n_factors = keys.rows.shape[2]
        part = chosen.weight.to(keys.rows.dtype)[..., None] / (n_factors * keys.divisor)
        directions = torch.einsum("bkf,bkfd->bkd", torch.where(keys.divisor == 0, 0, part), keys.rows)
        scores: list[Tensor] = []

        def visit(
            seen: LayerStates,
            chosen: ValueNeurons = chosen,
            directions: Tensor = directions,
            scores: list[Tensor] = scores,
        ) -> None:
            later = (chosen.layer > seen.layer)[..., None]
            products = (directions * later) @ model.values(seen.layer).to(directions.dtype).T
            products *= _at_columns(seen.activation, chosen.column)
            if seen.mlp_scale is not None:
                products *= _at_columns(seen.mlp_scale, chosen.column)[..., None]
            scores.append(products.sum(1))

        model.stream(rows, visit)
        parts.append(torch.stack(scores, 1))
    return torch.cat(parts)


def _keys(model: ResidualModel, batch: Batch, neurons: ValueNeurons, mode: Mode) -> _Keys:
    """Keys with their shares [batch, k, factors, contributions]: embedding, attention and MLP by layer, constant."""
    rows, constant = _gathered(model, neurons, mode == "corrected")
    n_layers, attention = model.n_layers, neurons.site == "attn"
    products = rows.new_zeros(*rows.shape[:3], 2 * n_layers + 2)
    statistic = rows.new_ones(neurons.layer.shape)

    def product(tensor: Tensor, reads: Tensor) -> Tensor:
        at = _at_columns(tensor, neurons.column).to(rows.dtype)
        return torch.einsum("bkd,bkfd->bkf", at, rows) * reads[..., None]

    def visit(seen: LayerStates) -> None:
        here, later = neurons.layer == seen.layer, neurons.layer > seen.layer
        after_attention = not attention and not model.parallel
        if seen.layer == 0:
            products[..., 0] = product(seen.residual, neurons.layer >= 0)
        products[..., 1 + 2 * seen.layer] = product(seen.attention_output, later | here if after_attention else later)
        products[..., 2 + 2 * seen.layer] = product(seen.mlp_output, later)
        entering = _at_columns(seen.residual, neurons.column)
        if after_attention:
            entering = entering + _at_columns(seen.attention_output, neurons.column)
        norm = model.attention_statistic if attention else model.mlp_statistic
        statistic.copy_(torch.where(here, norm(seen.layer, entering).to(rows.dtype), statistic))

    model.stream(batch, visit)
    divisor = products.sum(-1)
    if mode == "corrected":
        # all in units of ⟨x, key⟩, so that query_neurons divides by the same number
        products[..., -1] = constant * statistic[..., None]
        divisor = products.sum(-1).sign() * products.abs().sum(-1)
    shares = torch.where(divisor[..., None] == 0, 0, products / divisor[..., None])
    return _Keys(rows, constant, divisor, shares)


def _gathered(model: ResidualModel, neurons: ValueNeurons, corrected: bool) -> tuple[Tensor, Tensor]:
    """Rows [batch, k, factors, hidden] and constants [batch, k, factors] of the neurons' keys, 0 where none is."""
    of_layer = model.attention_keys if neurons.site == "attn" else model.mlp_keys
    rows: Tensor | None = None
    constant: Tensor | None = None
    for layer in neurons.layer.unique().tolist():
        if layer < 0:
            continue
        here = neurons.layer == layer
        found, bias = of_layer(layer, neurons.unit[here], corrected)
        if rows is None or constant is None:
            rows = found.new_zeros(*here.shape, *found.shape[1:])
            constant = bias.new_zeros(*here.shape, bias.shape[1])
        rows[here], constant[here] = found, bias
    assert rows is not None, "at least one value neuron"
    assert constant is not None
    return rows, constant


def _at_columns(values: Tensor, columns: Tensor) -> Tensor:
    """[batch, tokens, …] at several tokens [batch, k] of each example, [batch, k, …]."""
    return values[torch.arange(len(values), device=values.device)[:, None], columns.clamp(min=0)]


def _rows_of(batch: Batch, start: int, stop: int) -> Batch:
    return {name: batch[name][start:stop] for name in ("input_ids", "attention_mask")}


def _chunks(model: ResidualModel, batch: Batch, neurons: ValueNeurons, memory_budget: int) -> list[tuple[int, int]]:
    hidden = model.values(0).shape[1]
    tokens = batch["attention_mask"].shape[1]
    each = query_bytes(model, tokens, neurons.layer.shape[1], hidden)
    require_room(memory_budget >= each, each, memory_budget, "the keys of one sentence's value neurons")
    step = memory_budget // each
    return [(start, start + step) for start in range(0, len(neurons.layer), step)]


def query_bytes(model: ResidualModel, tokens: int, k: int, hidden: int) -> int:
    """Memory of query layers and neurons of `k` value neurons per example, in bytes, the forward included."""
    factors = 2 if model.gated else 1
    keys = k * (factors * (hidden + 4 * model.n_layers) + 4 * hidden)
    products = 3 * k * model.n_neurons + 2 * model.n_layers * model.n_neurons
    return 4 * (keys + products) + model.bytes_per_example(tokens, attention=False)
