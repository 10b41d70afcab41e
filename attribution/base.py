"""The words shared by all parts: the user-facing error and the protocols that models satisfy structurally.

This module is the one leaf that `models`, `data` and `callbacks` may import as well; everything else in
`attribution` stays closed to `models` and `data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""A collated batch: `index` [batch], `input_ids` and `attention_mask` [batch, tokens], `labels` [batch] (-1: none).

In multiple choice an example is a question: `input_ids` and `attention_mask` are [batch, choices, tokens].
"""

ReadoutKind = Literal["classification", "choice", "token"]
"""What the scores of a model number: classes, the choices of a question, the vocabulary."""

ActivationEdit = Callable[[int, Tensor], Tensor]
"""(layer, activation [sequences, rows, neurons]) → edited activation of the same shape."""

SequenceEdit = Callable[[int, Tensor], Tensor]
"""(layer, activation [sequences·copies, tokens, neurons]) → edited activation of the same shape."""


class UserError(Exception):
    """Something the user can mend: what was wrong, where, what was expected, what to do, in one sentence.

    Caught once, in train.py: printed without a traceback, exit code 2.
    """


@dataclass(frozen=True)
class AnswerStates:
    """What one gradient-free forward over a batch leaves at the answer position (the last non-padding token).

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
        context: whatever the engine needs to evaluate variants of the answer token; opaque to methods.
    """

    scores: Tensor
    tokens: Batch
    residual: Tensor
    activation: Tensor
    pre_activation: Tensor | None
    mlp_output: Tensor
    context: Any


class ModelKind(Protocol):
    """What decides how a method reads a model, known before any weight is."""

    @property
    def family(self) -> str:
        """transformers' model type."""

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies a gate with its up-projection."""


@runtime_checkable
class NeuronModel(Protocol):
    """What neuron attribution asks of a model; `models.last_token.LastTokenEngine` and, for multiple choice,
    `models.choice.ChoiceEngine` provide it.

    Attributes:
        readout: what turns the answer token into scores; of `choice` the classes are the choices, one sequence each,
            of `token` the vocabulary.
        sequences_per_example: sequences of an example that edits concern: 1, or the number of choices where the same
            neuron is edited in all of them at once. Scores stay [batch, …, classes].
    """

    family: str
    n_layers: int
    n_neurons: int
    gated: bool
    readout: ReadoutKind
    sequences_per_example: int

    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """Run the batch once without gradients and keep what variants of its answer tokens need.

        Args:
            target: class that is explained, [batch]; None: the predicted one. In multiple choice edits concern its
                sequence, unless they concern all.
        """

    def score_rows(self, states: AnswerStates, rows: Sequence[Tensor | None]) -> Tensor:
        """Readout scores of variant rows given by their residual stream.

        `rows[l]` [sequences, rows_l, hidden] enters block l; `rows[layers]` goes straight to the final norm. Returns
        [batch, Σ rows_l, classes] in the order of l. Differentiable with respect to `rows`.
        """

    def score_edits(self, states: AnswerStates, edit: ActivationEdit, n_rows: int) -> Tensor:
        """Readout scores of `n_rows` copies of the answer token whose activations `edit` changes in every layer.

        Returns [batch, n_rows, classes].
        """

    def score_sequences(
        self,
        states: AnswerStates,
        layer: int,
        edit: Callable[[Tensor], Tensor],
        copies: int,
        pre_activation: bool = False,
    ) -> Tensor:
        """Readout scores of full forwards in which `edit` changes one layer at every position.

        `edit` receives the activation (or the up-projection's output) [sequences·copies, tokens, neurons], the copies
        of one sequence next to each other. Returns [batch, copies, classes]. Differentiable.
        """

    def score_sequence_edits(self, states: AnswerStates, edit: SequenceEdit, copies: int) -> Tensor:
        """Readout scores of full forwards in which `edit` changes every layer at every position.

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
        """Down-projection of a layer, bias included: [..., neurons] → [..., hidden]."""

    def values(self, layer: int) -> Tensor:
        """Down-projection rows, one value vector per neuron, [neurons, hidden]."""

    def activate(self, pre_activation: Tensor) -> Tensor:
        """The MLP's non-linearity, elementwise."""


@dataclass(frozen=True)
class HeadInputs:
    """What instance attribution over the head needs of one split.

    Attributes:
        features: head input at the answer position, [examples, hidden], or [examples, choices, hidden] for multiple
            choice, where an example's logits are the head's outputs on all its sequences, [examples, classes].
        labels: class whose loss is differentiated, [examples], int64; a folded class where there is a `fold`.
        head: the classification head, [..., hidden] → [..., outputs]; `nn.Linear` layers with element-wise functions
            between them.
        fold: class → folded class, [classes], int64. With it the loss is −log Σ p_c over the classes c of the label.
    """

    features: Tensor
    labels: Tensor
    head: nn.Module
    fold: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def sequences(self) -> int:
        """Sequences per example: 1, or the number of choices."""
        return self.features.shape[1] if self.features.dim() == 3 else 1

    def rows(self, start: int, stop: int) -> HeadInputs:
        """A contiguous part of the examples."""
        return HeadInputs(self.features[start:stop], self.labels[start:stop], self.head, self.fold)


@dataclass(frozen=True)
class CheckpointInputs:
    """What instance attribution along the training needs of one split.

    Attributes:
        steps: the split's head inputs under each kept checkpoint, in the order of training, with the learning rate
            that the checkpoint was reached with. All have the same examples.
    """

    steps: tuple[tuple[HeadInputs, float], ...]

    def __len__(self) -> int:
        return len(self.steps[0][0])

    def rows(self, start: int, stop: int) -> CheckpointInputs:
        """A contiguous part of the examples."""
        return CheckpointInputs(tuple((inputs.rows(start, stop), rate) for inputs, rate in self.steps))


@dataclass(frozen=True)
class TextInputs:
    """What lexical instance attribution needs of one split.

    Attributes:
        texts: the text of each example; one whole question with its choices for multiple choice.
    """

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> TextInputs:
        """A contiguous part of the examples."""
        return TextInputs(self.texts[start:stop])


def require_finite(values: Tensor, what: str, index: Tensor) -> None:
    """Refuse NaN and infinite values, naming the examples they belong to.

    Args:
        values: [examples, ...].
        what: name of the quantity for the message.
        index: [examples], row of each example in its split.

    Raises:
        UserError: with the first ten indices.
    """
    finite = torch.isfinite(values).flatten(1).all(1) if values.dim() > 1 else torch.isfinite(values)
    if not bool(finite.all()):
        bad = index[~finite.to(index.device)].tolist()
        shown = ", ".join(map(str, bad[:10])) + (" …" if len(bad) > 10 else "")
        raise UserError(
            f"{what} is NaN or infinite for {len(bad)} example(s) (index {shown}); expected finite numbers: "
            "lower model.learning_rate or use trainer.precision=32."
        )


@dataclass(frozen=True)
class ResidualStates:
    """What one gradient-free forward leaves of the residual stream at the answer position q.

    Attributes:
        residual: entry l enters block l, entry `layers` leaves the last block, [batch, layers + 1, hidden].
        attention_output: output of the attention's output projection, bias included, [batch, layers, hidden].
        mlp_output: output of the MLP down-projection, bias included, [batch, layers, hidden].
        activation: coefficients of the FFN neurons, the down-projection's input, [batch, layers, neurons].
        attention: weights with which q attends to each token, 0 on padding, [batch, layers, heads, tokens]; None where
            they were not asked for.
        value: value vectors of every token, [batch, layers, key heads, tokens, head_dim]; head h reads key head
            h // (heads / key heads). None where they were not asked for.
        statistic: by which the final norm divides, taken from the last entry of `residual`, [batch].
        scores: readout scores (logits), [batch, outputs], at least float32.
        position: column of the answer token, [batch].
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


@dataclass(frozen=True)
class LayerStates:
    """One block at every token, as it is streamed during a forward.

    Attributes:
        layer: number of the block.
        residual: what enters the block, [batch, tokens, hidden].
        attention_output, mlp_output: biases included, [batch, tokens, hidden].
        activation: coefficients of the FFN neurons, [batch, tokens, neurons].
    """

    layer: int
    residual: Tensor
    attention_output: Tensor
    mlp_output: Tensor
    activation: Tensor


@runtime_checkable
class ResidualModel(Protocol):
    """What log-probability increase asks of a model; `models.residual.ResidualEngine` provides it.

    `parallel`: the MLP reads the block's input beside the attention (GPT-NeoX). `output_weight` [outputs, width] and
    `output_bias` [outputs] belong to a linear readout, None where it is not linear (or has no bias); `final_bias`
    [width] is what the final norm adds, None where it adds nothing. `vocabulary`: whether the outputs are tokens.
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

    def states(self, batch: Batch, attention: bool = True) -> ResidualStates:
        """Run the batch once without gradients.

        Raises:
            UserError: with `attention`, when the model writes out no attention weights.
        """

    def stream(self, batch: Batch, visit: Callable[[LayerStates], None]) -> None:
        """Run the batch once without gradients and show every block at every token, one at a time."""

    def head(self, features: Tensor) -> Tensor:
        """Readout scores [..., outputs] of the final hidden state [..., width]."""

    def final_direction(self, vectors: Tensor) -> Tensor:
        """Linear part of the final norm (and of the projection behind it), [..., hidden] → [..., width].

        The final hidden state is `final_direction(h) / statistic + final_bias`.
        """

    def values(self, layer: int) -> Tensor:
        """Value vector of each FFN neuron: down-projection rows, [neurons, hidden]."""

    def attention_values(self, layer: int) -> Tensor:
        """Value vector of each attention neuron: output-projection rows, [heads · head_dim, hidden]."""

    def mlp_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Keys of FFN neurons seen from the residual stream: rows [units, factors, hidden], constants [units, factors].

        A factor's pre-activation is ⟨x, row⟩ / `mlp_statistic`(x) + constant; gated MLPs have two, up and gate. Not
        `corrected`: the notebooks' row, up (for gated MLPs: value) times the norm's scale, without constant.
        """

    def attention_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """Keys of attention neurons head · head_dim + dim: rows of the value projection, as in `mlp_keys`."""

    def mlp_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """By which the norm before the MLP divides, [..., hidden] → [...]."""

    def attention_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """By which the norm before the attention divides, [..., hidden] → [...]."""

    def zeroed_scores(self, batch: Batch, ffn: Tensor | None, attention: Tensor | None) -> Tensor:
        """Readout scores [batch, outputs] of full forwards in which chosen units are 0 at every token.

        Args:
            ffn: [batch, layers, neurons], True where a neuron is zeroed, or None.
            attention: [batch, layers, heads · head_dim], or None.
        """

    def mlp_gradient(self, batch: Batch, target: Tensor) -> Tensor:
        """Gradient of the log-probability of `target` [batch] by the MLP outputs at q, [batch, layers, hidden]."""

    def bytes_per_example(self, tokens: int, attention: bool = True) -> int:
        """Memory that `states` takes per example at most, what it returns included."""

    def bytes_per_gradient(self, tokens: int) -> int:
        """Memory that `mlp_gradient` takes per example at most."""
