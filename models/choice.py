"""Multiple choice through the last-token engine: one sequence per choice, softmax over the choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PretrainedConfig

from twinlens.attribution.protocols import ActivationEdit, AnswerStates, Batch, SequenceEdit, SequencePlace
from twinlens.attribution.readouts import ChoiceReadout
from twinlens.models.last_token import LastTokenEngine, LayerParts

Edited = Literal["predicted", "all"]
"""Sequences that an engine's edits concern."""
Choices = Literal["predicted", "all", "predicted_edit_all"]
"""What the user can say: both of the above for scores and tests, or scores of the first and tests of the second."""
OUTPUT = "score of the choice"
"""Name of a multiple-choice head's only output."""


@dataclass(frozen=True)
class ChoiceContext:
    """What `ChoiceEngine` needs beside the scores of all choices.

    Attributes:
        sequences: states of the sequences that edits concern; their scores are [sequences, 1].
        edited: choice whose sequence that is, [batch]; None: all.
    """

    sequences: AnswerStates
    edited: Tensor | None


class ChoiceEngine(LayerParts):
    """Evaluates variants of the answer tokens of questions; satisfies `twinlens.attribution.protocols.NeuronModel`.

    Batches are [batch, choices, tokens], scores always [batch, …, choices].

    Args:
        engine: over the backbone, with a head of one output per sequence.
        n_choices: sequences of a question.
        choices: `predicted`: rows and edits concern the sequence of the predicted choice (or of the target that
            `states` is given), the scores of the other choices are constants. `all`: the same neuron is edited in the
            sequences of all choices at once.
    """

    readout: str = ChoiceReadout.name

    def __init__(self, engine: LastTokenEngine, n_choices: int, choices: Edited = "predicted") -> None:
        self.engine = engine
        self.anatomy = engine.anatomy
        self.n_choices = n_choices
        self.choices = choices
        self.sequences_per_example = n_choices if choices == "all" else 1
        self.family = engine.family
        self.n_layers = engine.n_layers
        self.n_neurons = engine.n_neurons
        self.n_attention = engine.n_attention
        self.gated = engine.gated
        self.footprint = engine.footprint

    # -- one forward over the batch ------------------------------------------------------------------------------

    @torch.no_grad()
    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """Scores of all choices, and what variants of the edited sequences need; see `NeuronModel.states`.

        `predicted`: all sequences run once for their scores alone, then the target's once more with its cache kept.
        """
        if self.choices == "all":
            inner = self.engine.states(flat_sequences(batch))
            scores = inner.scores.view(-1, self.n_choices)
            edited = None
        else:
            scores = self.engine.scores(flat_sequences(batch)).view(-1, self.n_choices)
            edited = scores.argmax(-1) if target is None else target
            inner = self.engine.states(sequences_of(batch, edited))
        return replace(inner, scores=scores, context=ChoiceContext(inner, edited))

    # -- variants ------------------------------------------------------------------------------------------------

    def score_rows(
        self, states: AnswerStates, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Scores [batch, rows, choices] of variant rows; see `NeuronModel.score_rows`."""
        return self._over_choices(states, self.engine.score_rows(states.context.sequences, rows, attended))

    def score_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """Scores [batch, rows, choices] of edited answer tokens; see `NeuronModel.score_edits`."""
        return self._over_choices(states, self.engine.score_edits(states.context.sequences, edit, n_rows, attention))

    def leaving_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """What leaves the last block of edited answer tokens, [sequences, rows, hidden]."""
        return self.engine.leaving_edits(states.context.sequences, edit, n_rows, attention)

    def score_sequences(
        self,
        states: AnswerStates,
        layer: int,
        edit: Callable[[Tensor], Tensor],
        copies: int,
        place: SequencePlace = "activation",
    ) -> Tensor:
        """Scores [batch, copies, choices] of full forwards edited in one layer; see `NeuronModel.score_sequences`."""
        inner = states.context.sequences
        return self._over_choices(states, self.engine.score_sequences(inner, layer, edit, copies, place))

    def score_sequence_edits(
        self, states: AnswerStates, edit: SequenceEdit, copies: int, attention: SequenceEdit | None = None
    ) -> Tensor:
        """Scores [batch, copies, choices] of full forwards edited in all layers."""
        inner = states.context.sequences
        return self._over_choices(states, self.engine.score_sequence_edits(inner, edit, copies, attention))

    def _over_choices(self, states: AnswerStates, scores: Tensor) -> Tensor:
        """From the edited sequences' scores, [sequences, rows, 1], to those of all choices, [batch, rows, choices]."""
        edited = states.context.edited
        if edited is None:
            return scores[..., 0].unflatten(0, (-1, self.n_choices)).transpose(1, 2)
        rows = scores.shape[1]
        constant = states.scores.to(scores.dtype)[:, None].expand(-1, rows, -1)
        return constant.scatter(-1, edited[:, None, None].expand(-1, rows, 1), scores)

    # -- memory ---------------------------------------------------------------------------------------------------

    def bytes_per_row(self, states: AnswerStates, layer: int = 0) -> int:
        """One variant row of every edited sequence, with gradients."""
        return self.engine.bytes_per_row(states.context.sequences, layer)

    def bytes_per_chunk(self, states: AnswerStates, layer: int = 0) -> int:
        """What rows of the edited sequences need together, however many."""
        return self.engine.bytes_per_chunk(states.context.sequences, layer)

    def bytes_per_edit(self, states: AnswerStates) -> int:
        """One edited row of every edited sequence, without gradients."""
        return self.engine.bytes_per_edit(states.context.sequences)

    def bytes_per_sequence(self, states: AnswerStates) -> int:
        """One full forward of the edited sequences, with gradients."""
        return self.engine.bytes_per_sequence(states.context.sequences)

    def bytes_per_sequence_edit(self, states: AnswerStates) -> int:
        """One edited full forward of the edited sequences, without gradients."""
        return self.engine.bytes_per_sequence_edit(states.context.sequences)

    def bytes_of_states(self, states: AnswerStates) -> int:
        """What the edited sequences' states hold."""
        return self.engine.bytes_of_states(states.context.sequences)


def edited_by(choices: Choices, tests: bool) -> Edited:
    """Sequences whose neurons are edited.

    Args:
        choices: as the user says it.
        tests: whether neuron lists are tested; False: scored.

    Example:
        >>> from twinlens.models.choice import edited_by
        >>> edited_by("predicted_edit_all", tests=False), edited_by("predicted_edit_all", tests=True)
        ('predicted', 'all')
    """
    return "all" if choices == "all" or (tests and choices == "predicted_edit_all") else "predicted"


def output_names(label_names: Sequence[str], n_choices: int | None) -> list[str]:
    """Names of a head's outputs: the labels, or in multiple choice the one score of a sequence."""
    return list(label_names) if n_choices is None else [OUTPUT]


def scores_choices(config: PretrainedConfig) -> bool:
    """Whether a saved classifier gives one score per sequence, which is what multiple choice compares."""
    return config.num_labels == 1


def flat_sequences(batch: Batch) -> Mapping[str, Tensor]:
    """The sequences of all choices as examples of their own, [batch·choices, tokens], those of a question together."""
    return {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}


def sequences_of(batch: Batch, choice: Tensor) -> Mapping[str, Tensor]:
    """The sequence of one choice per question, [batch, tokens]."""
    rows = torch.arange(len(choice), device=choice.device)
    return {name: batch[name][rows, choice] for name in ("input_ids", "attention_mask")}
