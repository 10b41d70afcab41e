"""Protocol of models whose neurons are attributed, and the types that all parts share.

This module, `residual_protocol` and `readouts` beside it are the leaves that `models`, `data` and `callbacks` may
import as well; everything else in `attribution` stays closed to `models` and `data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""A collated batch: `index` [batch], `input_ids` and `attention_mask` [batch, tokens], `labels` [batch] (-1: none).

Where something else than the predicted output is explained, it has `target` [batch] as well, and `against` [batch]
where the target is set apart from another output (`twinlens.attribution.targets`).

In multiple choice an example is a question: `input_ids` and `attention_mask` are [batch, choices, tokens].
"""

ActivationEdit = Callable[[int, Tensor], Tensor]
"""(layer, activation [sequences, rows, neurons]) → edited activation of the same shape."""

SequenceEdit = Callable[[int, Tensor], Tensor]
"""(layer, activation [sequences·copies, tokens, neurons]) → edited activation of the same shape."""

SequencePlace = Literal["activation", "pre_activation", "attention"]
"""What a full forward can edit in one layer: the input of the MLP's down-projection, the output of its up-projection,
the input of the attention's output projection."""


@dataclass(frozen=True)
class AnswerStates:
    """States of one gradient-free forward over a batch at the answer position (the last non-padding token).

    `sequences` = batch · `NeuronModel.sequences_per_example`, the sequences of one example next to each other.

    Attributes:
        scores: readout scores (logits), [batch, classes].
        tokens: `input_ids` and `attention_mask` of the sequences that edits concern, [sequences, tokens].
        residual: residual stream, entry l enters block l, entry `layers` leaves the last block,
            [sequences, layers + 1, hidden].
        activation: input of the MLP down-projection, [sequences, layers, neurons].
        pre_activation: output of the up-projection, before the non-linearity, [sequences, layers, neurons];
            None for gated MLPs, where the activation is no function of it alone.
        mlp_output: output of the down-projection, bias included, [sequences, layers, hidden].
        attention: input of the attention's output projection, [sequences, layers, attention neurons].
        context: whatever the engine needs to evaluate variants of the answer token; opaque to methods.

    Example:
        >>> from twinlens.attribution.example_models import ExampleNeuronModel, example_batch
        >>> states = ExampleNeuronModel(n_classes=3).states(example_batch())  # 2 texts, 2 layers, hidden 4, 5 neurons
        >>> states.scores.shape, states.residual.shape, states.activation.shape
        (torch.Size([2, 3]), torch.Size([2, 3, 4]), torch.Size([2, 2, 5]))
    """

    scores: Tensor
    tokens: Batch
    residual: Tensor
    activation: Tensor
    pre_activation: Tensor | None
    mlp_output: Tensor
    attention: Tensor
    context: Any


class ModelKind(Protocol):
    """Kind of a model, as far as it decides how a method reads it; known before any weight is.

    Example:
        >>> from twinlens.attribution.example_models import ExampleNeuronModel
        >>> from twinlens.attribution.protocols import ModelKind
        >>> kind: ModelKind = ExampleNeuronModel()
        >>> kind.family, kind.gated
        ('example', False)
    """

    @property
    def family(self) -> str:
        """transformers' model type."""

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies a gate with its up-projection."""


@runtime_checkable
class NeuronModel(Protocol):
    """Model whose neurons are attributed; `twinlens.models.last_token.LastTokenEngine` and, for multiple choice,
    `twinlens.models.choice.ChoiceEngine` are such models.

    Attributes:
        family: transformers' model type.
        n_layers, n_neurons: blocks, and FFN neurons of each.
        gated: whether the MLP multiplies a gate with its up-projection.
        readout: what turns the answer token into scores, a word of `twinlens.attribution.readouts.READOUTS`.
        n_attention: attention neurons of a layer, inputs of its output projection.
        sequences_per_example: sequences of an example that edits concern: 1, or the number of choices where the same
            neuron is edited in all of them at once. Scores stay [batch, …, classes].

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.protocols import NeuronModel
        >>> model = ExampleNeuronModel()
        >>> isinstance(model, NeuronModel)
        True
        >>> states = model.states(example_batch())
        >>> silent = model.score_edits(states, lambda layer, activation: torch.zeros_like(activation), n_rows=1)
        >>> silent.shape  # [batch, rows, classes]: scores without any neuron at the answer token
        torch.Size([2, 1, 2])
    """

    family: str
    n_layers: int
    n_neurons: int
    n_attention: int
    gated: bool
    readout: str
    sequences_per_example: int

    @property
    def experts(self) -> ExpertPlaces | None:
        """Where experts' units lie among the FFN neurons; None: there are no experts."""

    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """Run the batch once without gradients and keep what variants of its answer tokens need.

        Args:
            target: class that is explained, [batch]; None: the predicted one. In multiple choice edits concern its
                sequence, unless they concern all.
        """

    def score_rows(
        self, states: AnswerStates, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Readout scores of variant rows given by their residual stream.

        `rows[l]` [sequences, rows_l, hidden] enters block l; `rows[layers]` goes straight to the final norm. Where
        there is an `attended[l]` [sequences, rows_l, hidden], it takes the place of what block l's attention puts out
        for the rows that enter there, its output projection's bias included. Returns [batch, Σ rows_l, classes] in the
        order of l. Differentiable with respect to `rows` and `attended`.
        """

    def score_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """Readout scores of `n_rows` copies of the answer token whose activations `edit` changes in every layer, and
        `attention` the inputs of the attention's output projection.

        Returns [batch, n_rows, classes].
        """

    def leaving_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """As `score_edits`, but what leaves the last block: `rows[layers]` of `score_rows`.

        Returns [sequences, n_rows, hidden]. Differentiable.
        """

    def score_sequences(
        self,
        states: AnswerStates,
        layer: int,
        edit: Callable[[Tensor], Tensor],
        copies: int,
        place: SequencePlace = "activation",
    ) -> Tensor:
        """Readout scores of full forwards in which `edit` changes one layer at every position.

        `edit` receives what stands at `place`, [sequences·copies, tokens, units], the copies of one sequence next to
        each other. Returns [batch, copies, classes]. Differentiable.
        """

    def score_sequence_edits(
        self, states: AnswerStates, edit: SequenceEdit, copies: int, attention: SequenceEdit | None = None
    ) -> Tensor:
        """Readout scores of full forwards in which `edit` changes every layer at every position, and `attention` the
        inputs of the attention's output projection.

        The copies of one sequence stand next to each other. Returns [batch, copies, classes].
        """

    def bytes_per_row(self, states: AnswerStates, layer: int = 0) -> int:
        """Memory that one variant row of the whole batch takes that enters block `layer`, with gradients."""

    def bytes_per_chunk(self, states: AnswerStates, layer: int = 0) -> int:
        """Memory that the rows entering from block `layer` on take together, beside that of each row."""

    def bytes_per_edit(self, states: AnswerStates) -> int:
        """Memory that one edited row of the whole batch takes without gradients, its mask included."""

    def bytes_per_sequence(self, states: AnswerStates) -> int:
        """Memory that one full forward of the whole batch takes at most with gradients."""

    def bytes_per_sequence_edit(self, states: AnswerStates) -> int:
        """Memory that one edited full forward of the whole batch takes without gradients, its mask included."""

    def bytes_of_states(self, states: AnswerStates) -> int:
        """Memory that the states hold while rows are evaluated."""

    def down(self, layer: int, activation: Tensor) -> Tensor:
        """Down-projection of a layer, bias included: activation [..., neurons] → [..., hidden]."""

    def without_neurons(self, states: AnswerStates, layer: int) -> Tensor:
        """What the down-projection puts out where all neurons are 0: its bias, of experts with the router's weights,
        [sequences or 1, hidden]."""

    def write(self, layer: int, output: Tensor) -> Tensor:
        """What reaches the residual stream of the down-projection's output, [..., hidden] → [..., hidden]: itself, or
        what a norm behind it or a scale makes of it. Differentiable."""

    def values(self, layer: int) -> Tensor:
        """Down-projection rows, one value vector per neuron, [neurons, hidden]."""

    def attend(self, layer: int, attention: Tensor) -> Tensor:
        """Attention's output projection of a layer, bias included: [..., attention neurons] → [..., hidden]."""

    def attention_values(self, layer: int) -> Tensor:
        """Rows of the attention's output projection, one value vector per neuron, [attention neurons, hidden]."""

    def activate(self, pre_activation: Tensor) -> Tensor:
        """The MLP's non-linearity, elementwise: pre_activation [...] → activation [...]."""


@dataclass(frozen=True)
class LinearLayer:
    """A linear map inside a model, y = x Wᵀ + b, whatever module class implements it.

    Attributes:
        name: dotted name within the model.
        module: maps inputs [..., d_in] to outputs [..., d_out]; runs once in a forward.
        d_in, d_out: widths.
        has_bias: whether there is a b.
        block: number of the decoder block that it lies in; None: outside of all, as the head.
        inputs_of, outputs_of: what the module takes and gives → [sequences, tokens, d_in] and [sequences, tokens,
            d_out], where that is not what it has: of a convolution the patches, whose tokens are places; of an expert
            the tokens that a router sends to it, put among all, with zeros elsewhere. None: its last axis is d.
        routed: whether it is one expert's, whose parameter holds those of all, and which a router may send nothing.

    Example:
        >>> import torch
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> layer = LinearLayer("score", torch.nn.Linear(8, 3), d_in=8, d_out=3, has_bias=True)
        >>> layer.n_parameters
        27
    """

    name: str
    module: nn.Module
    d_in: int
    d_out: int
    has_bias: bool
    block: int | None = None
    inputs_of: Callable[[Tensor], Tensor] | None = None
    outputs_of: Callable[[Tensor], Tensor] | None = None
    routed: bool = False

    @property
    def n_parameters(self) -> int:
        """Numbers in W and b."""
        return self.d_out * (self.d_in + self.has_bias)


@dataclass(frozen=True)
class ExpertPlaces:
    """Where units of experts lie among the FFN neurons of a layer.

    Unit u of routed expert e is neuron e · units + u; units of shared experts, which every token goes through, follow
    as those of one expert whose number is `routed`. Layers that are no mixture have neurons as any dense layer.

    Attributes:
        layers: that are mixtures.
        routed: routed experts of each.
        units: of each routed expert.
        shared: units of the shared experts together.

    Example:
        >>> import torch
        >>> from twinlens.attribution.protocols import ExpertPlaces
        >>> places = ExpertPlaces(frozenset({1}), routed=4, units=10, shared=5)
        >>> expert, unit = places.of(torch.tensor([0, 1, 1, -1]), torch.tensor([33, 33, 42, -1]))
        >>> expert.tolist(), unit.tolist()  # layer 0 is dense; 42 lies in the shared expert; −1: no neuron
        ([-1, 3, 4, -1], [-1, 3, 2, -1])
    """

    layers: frozenset[int]
    routed: int
    units: int
    shared: int

    @property
    def n_units(self) -> int:
        """Units of all experts of a layer."""
        return self.routed * self.units + self.shared

    def of(self, layer: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Expert and unit within it of FFN neurons, each of the shape of `layer` and `unit`; −1: there is no expert."""
        mixed = torch.isin(layer, torch.tensor(sorted(self.layers), device=layer.device)) & (unit >= 0)
        expert = unit.div(self.units, rounding_mode="floor").clamp(max=self.routed)
        return torch.where(mixed, expert, -1), torch.where(mixed, unit - expert * self.units, -1)

    def described(self) -> dict[str, int]:
        """For method.yaml."""
        return {"routed": self.routed, "units": self.units, "shared": self.shared}
