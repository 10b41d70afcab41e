"""Example of a `NeuronModel`: a classifier whose answer token can be edited, recomputed in full each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu

from twinlens.attribution.example_models.decoder import ExampleDecoder, answer_position
from twinlens.attribution.protocols import ActivationEdit, AnswerStates, Batch, SequenceEdit, SequencePlace


class ExampleNeuronModel:
    """A `NeuronModel` over `ExampleDecoder`: a classifier whose answer token can be edited.

    Args:
        n_classes: classes of the head.

    Example:
        >>> from twinlens.attribution.example_models import ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.protocols import NeuronModel
        >>> model = ExampleNeuronModel()
        >>> isinstance(model, NeuronModel)
        True
        >>> states = model.states(example_batch())
        >>> unchanged = model.score_edits(states, lambda layer, activation: activation, n_rows=3)
        >>> unchanged.shape  # [batch, rows, classes]
        torch.Size([2, 3, 2])
        >>> bool((unchanged[:, 0] - states.scores).abs().max() < 1e-5)
        True
    """

    family = "example"
    gated = False
    experts = None
    readout: str = "classification"
    sequences_per_example = 1

    def __init__(self, n_classes: int = 2) -> None:
        self.decoder = ExampleDecoder(n_classes)
        self.n_layers, self.n_neurons = self.decoder.n_layers, self.decoder.n_neurons
        self.n_attention = self.decoder.n_heads * self.decoder.head_dim

    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """See `NeuronModel`."""
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        blocks, last = self.decoder.run(self.decoder.embedding[tokens["input_ids"]], tokens["attention_mask"])
        stream = [*(block.residual for block in blocks), last]
        at = torch.arange(len(last)), answer_position(tokens["attention_mask"])
        return AnswerStates(
            scores=self.decoder.scores(last[at]),
            tokens=tokens,
            residual=torch.stack([residual[at] for residual in stream], 1),
            activation=torch.stack([block.activation[at] for block in blocks], 1),
            pre_activation=torch.stack([block.pre_activation[at] for block in blocks], 1),
            mlp_output=torch.stack([block.mlp_output[at] for block in blocks], 1),
            attention=torch.stack([block.attention[at] for block in blocks], 1),
            context=stream,
        )

    def score_rows(
        self, states: AnswerStates, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """See `NeuronModel`: each row takes the answer token's place in a copy of its sequence."""
        found = []
        for layer, part in enumerate(rows):
            if part is None:
                continue
            mask = states.tokens["attention_mask"].repeat_interleave(part.shape[1], 0)
            stream = states.context[layer].repeat_interleave(part.shape[1], 0)
            here = torch.arange(mask.shape[1]) == answer_position(mask)[:, None]
            stream = torch.where(here[..., None], part.flatten(0, 1)[:, None], stream)
            output = attended[layer] if layer < len(attended) else None

            last = self.decoder.run(stream, mask, layer, attended=replacing(layer, here, output))[1]
            found.append(self._scores(last, mask, part.shape[1]))
        return torch.cat(found, 1)

    def score_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """See `NeuronModel`."""
        return self.decoder.scores(self.leaving_edits(states, edit, n_rows, attention))

    def leaving_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """See `NeuronModel`."""
        mask = states.tokens["attention_mask"].repeat_interleave(n_rows, 0)
        at = torch.arange(len(mask)), answer_position(mask)

        def at_answer(change: ActivationEdit) -> SequenceEdit:
            def changed(layer: int, activation: Tensor) -> Tensor:
                result = activation.clone()
                result[at] = change(layer, activation[at].unflatten(0, (-1, n_rows))).flatten(0, 1)
                return result

            return changed

        stream = states.context[0].repeat_interleave(n_rows, 0)
        attended = None if attention is None else at_answer(attention)
        return self.decoder.run(stream, mask, 0, at_answer(edit), attended)[1][at].unflatten(0, (-1, n_rows))

    def score_sequences(
        self,
        states: AnswerStates,
        layer: int,
        edit: Callable[[Tensor], Tensor],
        copies: int,
        place: SequencePlace = "activation",
    ) -> Tensor:
        """See `NeuronModel`."""

        def of_layer(number: int, values: Tensor) -> Tensor:
            return edit(values) if number == layer else values

        if place == "pre_activation":
            return self._edited(states, copies, None, pre_edit=of_layer)
        return self._edited(states, copies, *((None, of_layer) if place == "attention" else (of_layer, None)))

    def score_sequence_edits(
        self, states: AnswerStates, edit: SequenceEdit, copies: int, attention: SequenceEdit | None = None
    ) -> Tensor:
        """See `NeuronModel`."""
        return self._edited(states, copies, edit, attention)

    def _edited(
        self,
        states: AnswerStates,
        copies: int,
        edit: SequenceEdit | None,
        attention: SequenceEdit | None = None,
        pre_edit: SequenceEdit | None = None,
    ) -> Tensor:
        """Scores of full forwards with edits, [batch, copies, classes]."""
        stream, mask = (t.repeat_interleave(copies, 0) for t in (states.context[0], states.tokens["attention_mask"]))
        return self._scores(self.decoder.run(stream, mask, 0, edit, attention, pre_edit)[1], mask, copies)

    def _scores(self, last: Tensor, mask: Tensor, copies: int) -> Tensor:
        answer = last[torch.arange(len(last)), answer_position(mask)]
        return self.decoder.scores(answer).unflatten(0, (-1, copies))

    def down(self, layer: int, activation: Tensor) -> Tensor:
        """See `NeuronModel`."""
        return activation @ self.decoder.down[layer]

    def without_neurons(self, states: AnswerStates, layer: int) -> Tensor:
        """See `NeuronModel`."""
        return torch.zeros_like(states.mlp_output[:1, layer])

    def write(self, layer: int, output: Tensor) -> Tensor:
        """See `NeuronModel`."""
        return output

    def values(self, layer: int) -> Tensor:
        """See `NeuronModel`."""
        return self.decoder.down[layer]

    def attend(self, layer: int, attention: Tensor) -> Tensor:
        """See `NeuronModel`."""
        return attention @ self.decoder.output[layer]

    def attention_values(self, layer: int) -> Tensor:
        """See `NeuronModel`."""
        return self.decoder.output[layer]

    def activate(self, pre_activation: Tensor) -> Tensor:
        """See `NeuronModel`."""
        return gelu(pre_activation)

    def bytes_per_row(self, states: AnswerStates, layer: int = 0) -> int:
        """A rough count, as are the others: examples fit any budget."""
        return 8 * states.context[0].numel()

    def bytes_per_chunk(self, states: AnswerStates, layer: int = 0) -> int:
        """See `bytes_per_row`."""
        return self.bytes_per_row(states)

    def bytes_per_edit(self, states: AnswerStates) -> int:
        """See `bytes_per_row`."""
        return self.bytes_per_row(states)

    def bytes_per_sequence(self, states: AnswerStates) -> int:
        """See `bytes_per_row`."""
        return self.bytes_per_row(states)

    def bytes_per_sequence_edit(self, states: AnswerStates) -> int:
        """See `bytes_per_row`."""
        return self.bytes_per_row(states)

    def bytes_of_states(self, states: AnswerStates) -> int:
        """See `bytes_per_row`."""
        return self.bytes_per_row(states)


def replacing(layer: int, here: Tensor, output: Tensor | None) -> SequenceEdit | None:
    """Puts rows `output` [sequences, rows, hidden] in the place of what a layer puts out at the tokens `here`."""
    if output is None:
        return None

    def edit(number: int, values: Tensor) -> Tensor:
        return torch.where(here[..., None], output.flatten(0, 1)[:, None], values) if number == layer else values

    return edit
