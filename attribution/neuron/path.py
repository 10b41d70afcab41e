"""The path of integrated gradients: which neurons are scaled, where, and what the model makes of a point on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.neuron.quadrature import Rule
from twinlens.attribution.protocols import AnswerStates, NeuronModel, SequencePlace
from twinlens.attribution.readouts import READOUTS

Positions = Literal["last", "all", "broadcast_last"]
PathSite = Literal["ffn", "attn"]
Scaled = Literal["activation", "pre_activation"]
Quantity = Literal["probability", "score", "log_prob"]


@dataclass(frozen=True)
class Path:
    """Path of the integral: which neurons' values are scaled, where, and by which quadrature.

    Attributes:
        scaled: `activation`, the neurons' own values (inputs of the projection behind them), or `pre_activation`, the
            up-projection's output, which FFN neurons alone have.
        positions: `last`, `all` or `broadcast_last`, see `twinlens.attribution.neuron.ig.IntegratedGradients`.
        rule: of the quadrature.
        threshold: keep only neurons above this share of the highest score, so that a list can be shorter than top_k.
        of_choice: what is attributed in multiple choice, the target's `probability` or its sequence's raw `score`.
        site: `ffn` neurons or `attn` neurons; each site has a path of its own.

    Example:
        >>> from twinlens.attribution.example_models import ExampleNeuronModel
        >>> from twinlens.attribution.neuron.path import Path
        >>> path = Path(scaled="activation", positions="last", rule="right")
        >>> path.quantity(ExampleNeuronModel()), path.site
        ('probability', 'ffn')
    """

    scaled: Scaled
    positions: Positions
    rule: Rule
    threshold: float | None = None
    of_choice: Quantity = "probability"
    site: PathSite = "ffn"

    def quantity(self, model: NeuronModel) -> Quantity:
        """Quantity that is attributed for a model."""
        return self.of_choice if READOUTS[model.readout].of_sequences else "probability"

    @property
    def place(self) -> SequencePlace:
        """What full forwards edit."""
        return "attention" if self.site == "attn" else self.scaled

    def origin(self, states: AnswerStates) -> Tensor:
        """End point of the path, [sequences, layers, units]."""
        if self.site == "attn":
            return states.attention
        if self.scaled == "activation":
            return states.activation
        assert states.pre_activation is not None
        return states.pre_activation

    def values(self, model: NeuronModel, layer: int) -> Tensor:
        """What a unit of each neuron adds to the residual stream, [units, hidden], float32."""
        return (model.attention_values(layer) if self.site == "attn" else model.values(layer)).float()

    def entry(self, layer: int) -> int:
        """Block that rows of a layer enter: the next one, and for attention neurons, which the MLP reads, its own."""
        return layer if self.site == "attn" else layer + 1

    def points(self, model: NeuronModel, states: AnswerStates, layer: int, nodes: Tensor) -> Tensor:
        """Points of a layer's path as they are differentiated with respect to, [sequences, nodes, hidden].

        The output of the projection behind the neurons, before whatever norm or scale follows it; see `entering`.
        """
        scale = nodes.to(states.mlp_output)[:, None]
        if self.site == "attn":
            output = model.attend(layer, states.attention[:, layer])
            bias = model.attend(layer, torch.zeros_like(states.attention[:1, layer]))
            return (scale * (output - bias)[:, None] + bias).to(states.residual)
        if self.scaled == "activation":
            bias = model.without_neurons(states, layer)[:, None]
            return scale * (states.mlp_output[:, layer, None] - bias) + bias
        return model.down(layer, model.activate(scale * self.origin(states)[:, layer, None]))

    def entering(self, model: NeuronModel, states: AnswerStates, layer: int, points: Tensor) -> Tensor:
        """The residual stream of rows at points of a layer's path, as it enters the block `entry`, differentiable.

        FFN: the block's output with what the MLP adds replaced, which is exact, as the residual stream is additive;
        attention: the block's input, whose attention the points replace.

        Args:
            points: [sequences, nodes, hidden].
        """
        if self.site == "attn":
            return states.residual[:, layer, None].expand(-1, points.shape[1], -1)
        rest = states.residual[:, layer + 1] - model.write(layer, states.mlp_output[:, layer])
        return rest[:, None] + model.write(layer, points)

    def contract(
        self, model: NeuronModel, layer: int, gradient: Tensor, nodes: Tensor, weights: Tensor, origin: Tensor
    ) -> Tensor:
        """From ∂P/∂(points of the path) to a layer's scores.

        Args:
            gradient: [sequences, nodes, hidden].
            nodes, weights: of the quadrature.
            origin: of the layer, [sequences, units].

        Returns:
            [sequences, units], in the unit of P, float32.
        """
        gradient = gradient.float()
        weights = weights.to(gradient)
        values = self.values(model, layer)
        if self.scaled == "activation":
            return origin.float() * (torch.einsum("bkd,k->bd", gradient, weights) @ values.T)
        slope = _activation_slope(model, nodes.to(origin)[:, None] * origin[:, None])
        return origin.float() * torch.einsum("bkn,bkn,k->bn", slope, gradient @ values.T, weights)


def _activation_slope(model: NeuronModel, pre_activation: Tensor) -> Tensor:
    """Derivative of the non-linearity, elementwise."""
    with torch.enable_grad():
        point = pre_activation.detach().requires_grad_()
        (slope,) = torch.autograd.grad(model.activate(point).sum(), point)
    return slope.float()
