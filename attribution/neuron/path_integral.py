"""The path integral behind integrated gradients: dense scores of every neuron of every layer.

Pure functions of a model that satisfies the protocol `NeuronModel`; `twinlens.attribution.neuron.ig` configures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.neuron.path import Path, Quantity
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.readout import at_target
from twinlens.attribution.protocols import AnswerStates, Batch, NeuronModel
from twinlens.attribution.targets import target_of


@dataclass(frozen=True)
class IntegratedGradientsResult:
    """Dense scores of a batch.

    Attributes:
        scores: attribution of each neuron of the path's site to the target's P (see `Path.quantity`), in its unit,
            positive raises it, [batch, layers, units]; the sum over the sequences of an example where edits concern
            several.
        target: class whose P is attributed, [batch].
        target_prob: its softmax probability, [batch].
        completeness: |Σ_neurons score − (P(ā) − P(0))| per layer, in the unit of P, [batch, layers].
        log_prob: log of `target_prob`, of improbable classes too, [batch].

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.path import Path
        >>> from twinlens.attribution.neuron.path_integral import integrated_gradients
        >>> path = Path(scaled="activation", positions="last", rule="gauss")
        >>> result = integrated_gradients(ExampleNeuronModel(), example_batch(), path, 16, BUDGET)
        >>> result.scores.shape  # [batch, layers, neurons]
        torch.Size([2, 2, 5])
        >>> bool(result.completeness.max() < 1e-4)  # they sum to what the layer's neurons change
        True
    """

    scores: Tensor
    target: Tensor
    target_prob: Tensor
    completeness: Tensor
    log_prob: Tensor


def integrated_gradients(
    model: NeuronModel,
    batch: Batch,
    path: Path,
    n_steps: int,
    memory_budget: int,
    quantity: Quantity | None = None,
) -> IntegratedGradientsResult:
    """Dense integrated gradients of every neuron of every layer.

    On the path a(α) = α·ā the output of the projection behind the neurons (the MLP's, or the attention's, see
    `Path.site`) is α·(W ā) + b, so only g(α) = ∂P/∂(that output) is needed: IG = ā ⊙ W Σ_k w_k g(α_k). The
    (layer, step) pairs are variant rows of the answer token; one backward over all of them gives every g. For the
    pre-activation z the chain rule adds act'(α z).

    Where the same neuron of several sequences is edited at once (multiple choice, `choices: all`), all of them go along
    one joint path and a neuron's score is the sum over the sequences. A `target` in the batch takes the place of what
    is predicted, in multiple choice its sequence that of the predicted choice; with `against` P is the difference of
    the two log-probabilities. `quantity`: what P is; None: the path's.
    """
    nodes, weights = nodes_and_weights(path.rule, n_steps)
    states = model.states(batch, batch.get("target"))
    target_class = target_of(batch, states.scores)
    chosen = Target(target_class, quantity or path.quantity(model), batch.get("against"))
    if path.positions == "last":
        gradients, at_zero = _gradients_at_last(model, states, chosen, nodes, path, memory_budget)
        scores = torch.stack(
            [
                path.contract(model, layer, gradients[layer], nodes, weights, path.origin(states)[:, layer])
                for layer in range(model.n_layers)
            ],
            1,
        )
        at_one = chosen.of(states.scores[:, None])
    else:
        scores, at_zero, at_one = _over_sequences(model, states, chosen, nodes, weights, path, memory_budget)
    scores = scores.unflatten(0, (-1, model.sequences_per_example)).sum(1)
    probability = Target(target_class, "probability").of(states.scores[:, None])[:, 0]
    completeness = (scores.double().sum(-1) - (at_one - at_zero).double()).abs().float()
    log_prob = Target(target_class, "log_prob").of(states.scores[:, None])[:, 0]
    return IntegratedGradientsResult(scores, target_class, probability, completeness, log_prob)


@dataclass(frozen=True)
class Target:
    """P of a batch, the quantity that is attributed.

    Attributes:
        classes: class of each example, [batch], int64.
        quantity: its softmax `probability`, its raw `score`, or its `log_prob`, in nats.
        against: class whose log-probability is taken off the class's own, which is then the quantity, [batch]; None:
            none.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.path_integral import Target
        >>> Target(torch.tensor([1]), "probability").of(torch.tensor([[[0.0, 0.0], [0.0, 100.0]]]))
        tensor([[0.5000, 1.0000]])
        >>> Target(torch.tensor([1]), "probability", torch.tensor([0])).of(torch.tensor([[[0.0, 0.0], [0.0, 100.0]]]))
        tensor([[  0., 100.]])
    """

    classes: Tensor
    quantity: Quantity
    against: Tensor | None = None

    def of(self, scores: Tensor) -> Tensor:
        """P of each row, scores [batch, rows, classes] → [batch, rows], float32."""
        if self.against is not None:  # the normalisation of the two cancels
            return at_target(scores.float(), self.classes) - at_target(scores.float(), self.against)
        scores = scores.float()
        if self.quantity == "log_prob":
            return at_target(scores.log_softmax(-1), self.classes)
        return at_target(scores if self.quantity == "score" else scores.softmax(-1), self.classes)


def _gradients_at_last(
    model: NeuronModel, states: AnswerStates, target: Target, nodes: Tensor, path: Path, memory_budget: int
) -> tuple[list[Tensor], Tensor]:
    """∂P/∂(points of the path) per layer [sequences, steps, hidden], and P at its beginning, where the layer's neurons
    are zero, [batch, layers]."""
    with_zero = torch.cat([nodes, nodes.new_zeros(1)])
    slopes: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
    at_zero: list[Tensor] = []
    for chunk in row_chunks(model, states, len(with_zero), memory_budget, path):
        rows: list[Tensor | None] = [None] * (model.n_layers + 1)
        attended: list[Tensor | None] = [None] * model.n_layers
        leaves = []
        for layer, first, last in chunk:
            with torch.no_grad():
                points = path.points(model, states, layer, with_zero[first:last])
            leaves.append(points.detach().requires_grad_())
            if path.site == "attn":
                attended[layer] = leaves[-1]
        with torch.enable_grad():
            for (layer, _, _), leaf in zip(chunk, leaves, strict=True):
                rows[path.entry(layer)] = path.entering(model, states, layer, leaf)
            probabilities = target.of(model.score_rows(states, rows, attended))
            found = torch.autograd.grad(probabilities.sum(), leaves)
        ends = probabilities.detach().split([last - first for _, first, last in chunk], 1)
        for (layer, _, last), slope, end in zip(chunk, found, ends, strict=True):
            slopes[layer].append(slope)
            if last == len(with_zero):
                at_zero.append(end[:, -1])
    return [torch.cat(parts, 1)[:, : len(nodes)] for parts in slopes], torch.stack(at_zero, 1)


def row_chunks(
    model: NeuronModel, states: AnswerStates, n_rows: int, memory_budget: int, path: Path
) -> list[list[tuple[int, int, int]]]:
    """Cut the rows of all layers into chunks that fit the budget beside the states, one row at least.

    Args:
        n_rows: rows of each layer.
        path: which block the rows of a layer enter.

    Returns:
        chunks of (layer, first row, last row + 1), all rows in order.
    """
    room = memory_budget - model.bytes_of_states(states)
    chunks: list[list[tuple[int, int, int]]] = []
    left = 0
    for layer in range(model.n_layers):
        per_row = max(1, model.bytes_per_row(states, path.entry(layer)))
        first = 0
        while first < n_rows:
            if left < per_row or not chunks:
                chunks.append([])
                left = max(room - model.bytes_per_chunk(states, path.entry(layer)), per_row)
            last = min(n_rows, first + left // per_row)
            chunks[-1].append((layer, first, last))
            left -= (last - first) * per_row
            first = last
    return chunks


def _over_sequences(
    model: NeuronModel,
    states: AnswerStates,
    target: Target,
    nodes: Tensor,
    weights: Tensor,
    path: Path,
    memory_budget: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [sequences, layers, neurons] and P at both ends of the path [batch, layers], by full forwards.

    `all`: every position's own value is scaled and the scores are summed over positions. `broadcast_last`: the answer
    token's scaled value stands at every position.
    """
    scores, at_zero, at_one = [], [], []
    ends = torch.cat([nodes, nodes.new_tensor([0.0, 1.0])])
    room = memory_budget - model.bytes_of_states(states)
    copies = max(1, min(len(ends), room // max(1, model.bytes_per_sequence(states))))
    for layer in range(model.n_layers):
        total = torch.zeros_like(path.origin(states)[:, layer], dtype=torch.float32)
        probabilities = []
        for start in range(0, len(ends), copies):
            part = ends[start : start + copies]
            share = torch.cat([weights, weights.new_zeros(2)])[start : start + copies]
            found, contribution = _sequence_chunk(model, states, target, layer, part, share, path)
            probabilities.append(found)
            total += contribution
        ends_probability = torch.cat(probabilities, 1)[:, -2:]
        scores.append(total)
        at_zero.append(ends_probability[:, 0])
        at_one.append(ends_probability[:, 1])
    return torch.stack(scores, 1), torch.stack(at_zero, 1), torch.stack(at_one, 1)


def _sequence_chunk(
    model: NeuronModel,
    states: AnswerStates,
    target: Target,
    layer: int,
    nodes: Tensor,
    weights: Tensor,
    path: Path,
) -> tuple[Tensor, Tensor]:
    """P at the given nodes [batch, nodes], and their weighted contribution to the scores [sequences, neurons]."""
    copies = len(nodes)
    kept: dict[str, Tensor] = {}
    valid = states.tokens["attention_mask"].bool()[:, None, :, None]

    def scale(value: Tensor) -> Tensor:
        """[sequences·copies, tokens, neurons] where the path scales → the point on the path, remembered as a leaf."""
        own = value.detach().unflatten(0, (-1, copies))
        if path.positions == "broadcast_last":
            own = path.origin(states)[:, layer, None, None].to(own.dtype).expand_as(own)
        kept["origin"] = own
        point = own * nodes.to(own)[:, None, None]
        kept["point"] = point.requires_grad_()
        return kept["point"].flatten(0, 1)

    with torch.enable_grad():
        probabilities = target.of(model.score_sequences(states, layer, scale, copies, path.place))
        (slope,) = torch.autograd.grad(probabilities.sum(), kept["point"])
    contribution = kept["origin"].float() * slope.float() * valid
    return probabilities.detach(), torch.einsum("bktn,k->bn", contribution, weights.to(contribution))
