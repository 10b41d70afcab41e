"""Protocol of models whose residual stream is read: states, streamed blocks, units.

A leaf beside `twinlens.attribution.protocols`, for `models` to import as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from twinlens.attribution.protocols import Batch, ExpertPlaces


@dataclass(frozen=True)
class ResidualStates:
    """Residual stream of one gradient-free forward at the answer position q.

    Attributes:
        residual: entry l enters block l, entry `layers` leaves the last block, [batch, layers + 1, hidden].
        attention_output: what the attention adds to the residual stream, bias included, [batch, layers, hidden].
        mlp_output: what the MLP adds, bias included, [batch, layers, hidden].
        activation: coefficients of the FFN neurons, the down-projection's input, [batch, layers, neurons].
        attention: weights with which q attends to each token, 0 on padding, [batch, layers, heads, tokens]; None where
            they were not asked for.
        value: value vectors of every token, [batch, layers, key heads, tokens, head_dim]; head h reads key head
            h // (heads / key heads). None where they were not asked for.
        statistic: by which the final norm divides, taken from the last entry of `residual`, [batch].
        scores: readout scores (logits), [batch, outputs], at least float32.
        position: column of the answer token, [batch].
        mlp_scale, attention_scale: what coefficients are multiplied with behind the projection, where the model has a
            factor or a norm there, whose statistic is frozen, [batch, layers]; None: nothing is there.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> states = ExampleResidualModel().states(example_batch())  # 2 texts of 4 tokens, 2 layers, 2 heads of 2
        >>> states.residual.shape, states.attention.shape, states.value.shape
        (torch.Size([2, 3, 4]), torch.Size([2, 2, 2, 4]), torch.Size([2, 2, 2, 4, 2]))
    """

    residual: Tensor
    attention_output: Tensor
    mlp_output: Tensor
    activation: Tensor
    attention: Tensor | None
    value: Tensor | None
    statistic: Tensor
    scores: Tensor
    position: Tensor
    mlp_scale: Tensor | None = None
    attention_scale: Tensor | None = None


@dataclass(frozen=True)
class LayerStates:
    """One block at every token, as it is streamed during a forward.

    Attributes:
        layer: number of the block.
        residual: what enters the block, [batch, tokens, hidden].
        attention_output, mlp_output: what is added to the stream, biases included, [batch, tokens, hidden].
        activation: coefficients of the FFN neurons, [batch, tokens, neurons].
        mlp_scale, attention_scale: as of `ResidualStates`, [batch, tokens].

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> seen = []
        >>> ExampleResidualModel().stream(example_batch(), seen.append)
        >>> [(states.layer, tuple(states.activation.shape)) for states in seen]  # [batch, tokens, neurons]
        [(0, (2, 4, 5)), (1, (2, 4, 5))]
    """

    layer: int
    residual: Tensor
    attention_output: Tensor
    mlp_output: Tensor
    activation: Tensor
    mlp_scale: Tensor | None = None
    attention_scale: Tensor | None = None


@dataclass(frozen=True)
class ScaledUnits:
    """One unit of each row of a batch, and what its coefficient is multiplied by.

    Attributes:
        attention: whether it is an attention neuron rather than one of the FFN, bool [batch].
        layer, unit: its place, int64 [batch], unit = head · head_dim + dim for attention neurons.
        factor: 0 switches it off, −1 turns it round, 1 leaves everything as it is, [batch].

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.residual_protocol import ScaledUnits
        >>> model, batch, one = ExampleResidualModel(), example_batch(), torch.ones(2, dtype=torch.int64)
        >>> same = ScaledUnits(attention=one == 0, layer=one, unit=3 * one, factor=one.float())
        >>> bool((model.scaled_scores(batch, same) == model.states(batch).scores).all())
        True
    """

    attention: Tensor
    layer: Tensor
    unit: Tensor
    factor: Tensor

    def scaled(self, values: Tensor, layer: int, attention: bool) -> Tensor:
        """Coefficients of a layer and site with those of the units that lie there multiplied.

        Args:
            values: [batch, tokens, units].
        """
        rows = torch.nonzero((self.layer == layer) & (self.attention == attention))[:, 0]
        if not len(rows):
            return values
        found, units = values.clone(), self.unit[rows]
        found[rows, :, units] *= self.factor[rows, None].to(values.dtype)
        return found


@runtime_checkable
class ResidualModel(Protocol):
    """Model whose residual stream is read; `twinlens.models.residual.ResidualEngine` is one.

    Attributes:
        family: transformers' model type.
        n_layers, n_neurons, hidden_size: blocks, FFN neurons of each, width of the residual stream.
        n_heads, n_key_heads, head_dim: heads of a block, those of its keys and values, and their width.
        gated: whether the MLP multiplies a gate with its up-projection.
        parallel: whether the MLP reads the block's input beside the attention (GPT-NeoX).
        vocabulary: whether the outputs are tokens.
        output_weight: of a linear readout, [outputs, width]; None: the readout is not linear.
        output_bias: of a linear readout, [outputs]; None: it has none.
        final_bias: what the final norm adds, [width]; None: nothing.
        norms_behind: whether a norm lies between neurons and the residual stream, whose statistic is frozen.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.residual_protocol import ResidualModel
        >>> model = ExampleResidualModel()
        >>> isinstance(model, ResidualModel)
        True
        >>> states = model.states(example_batch())
        >>> features = model.final_direction(states.residual[:, -1]) / states.statistic[:, None]
        >>> bool((model.head(features) - states.scores).abs().max() < 1e-5)  # the readout, taken apart
        True
    """

    family: str
    n_layers: int
    n_neurons: int
    n_heads: int
    n_key_heads: int
    head_dim: int
    hidden_size: int
    gated: bool
    parallel: bool
    vocabulary: bool
    output_weight: Tensor | None
    output_bias: Tensor | None
    final_bias: Tensor | None
    norms_behind: bool

    @property
    def experts(self) -> ExpertPlaces | None:
        """Where experts' units lie among the FFN neurons; None: there are no experts."""

    def states(self, batch: Batch, attention: bool = True) -> ResidualStates:
        """Run the batch once without gradients.

        Raises:
            UserError: with `attention`, when the model writes out no attention weights.
        """

    def stream(self, batch: Batch, visit: Callable[[LayerStates], None]) -> None:
        """Run the batch once without gradients and show every block at every token, one at a time."""

    def head(self, features: Tensor) -> Tensor:
        """Readout scores [..., outputs] of the final hidden state, `features` [..., width]."""

    def final_direction(self, vectors: Tensor) -> Tensor:
        """Linear part of the final norm (and of the projection behind it), vectors [..., hidden] → [..., width].

        The final hidden state is `final_direction(h) / statistic + final_bias`.
        """

    def values(self, layer: int) -> Tensor:
        """Value vector of each FFN neuron: down-projection rows, [neurons, hidden]; where a norm lies behind them, as
        its linear part sees them."""

    def attention_values(self, layer: int) -> Tensor:
        """Value vector of each attention neuron: output-projection rows, [heads · head_dim, hidden], as `values`."""

    def mlp_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Keys of FFN neurons seen from the residual stream: rows [units, factors, hidden], constants [units, factors].

        A factor's pre-activation is ⟨x, row⟩ / `mlp_statistic`(x) + constant; gated MLPs have two, up and gate. Not
        `corrected`: the notebooks' row, up (for gated MLPs: value) times the norm's scale, without constant.
        """

    def activate(self, layer: int, values: Tensor) -> Tensor:
        """The MLP's non-linearity, elementwise: pre-activations [...] (of gated MLPs the gate's) → [...]."""

    def attention_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Keys of attention neurons head · head_dim + dim, `units` [units]: rows of the value projection.

        As in `mlp_keys`: rows [units, factors, hidden], constants [units, factors].
        """

    def mlp_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """Divisor of the norm before the MLP, residual [..., hidden] → [...]."""

    def attention_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """Divisor of the norm before the attention, residual [..., hidden] → [...]."""

    def zeroed_scores(self, batch: Batch, ffn: Tensor | None, attention: Tensor | None) -> Tensor:
        """Readout scores [batch, outputs] of full forwards in which chosen units are 0 at every token.

        Args:
            ffn: [batch, layers, neurons], True where a neuron is zeroed, or None.
            attention: [batch, layers, heads · head_dim], or None.
        """

    def scaled_scores(self, batch: Batch, units: ScaledUnits) -> Tensor:
        """Readout scores [batch, outputs] of full forwards in which one unit of each row is multiplied by a factor at
        every token."""

    def mlp_gradient(self, batch: Batch, cotangent: Tensor) -> Tensor:
        """Gradient of ⟨cotangent, scores⟩ by what the MLPs add at q, [batch, layers, hidden].

        Args:
            cotangent: [batch, outputs].
        """

    def bytes_per_example(self, tokens: int, attention: bool = True) -> int:
        """Memory that `states` takes per example at most, what it returns included."""

    def bytes_per_gradient(self, tokens: int) -> int:
        """Memory that `mlp_gradient` takes per example at most."""


def told_of(model: ResidualModel) -> dict[str, object]:
    """What method.yaml says of a model's norms: nothing where none lies behind its neurons.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel
        >>> from twinlens.attribution.residual_protocol import told_of
        >>> told_of(ExampleResidualModel())
        {}
    """
    return {"norm_behind": "frozen"} if model.norms_behind else {}
