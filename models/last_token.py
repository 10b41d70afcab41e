"""Last-token engine: any number of variants of the answer token for the price of one forward.

In a causal model nothing before the answer position depends on it. One gradient-free forward keeps the keys and values
of the prefix; R variants then run as R extra rows that all stand at the answer position and see the prefix and
themselves only. A variant that changes layer l equals the unedited token below l, so its row enters at block l + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from twinlens.attribution.protocols import (
    ActivationEdit,
    AnswerStates,
    Batch,
    ExpertPlaces,
    SequenceEdit,
    SequencePlace,
)
from twinlens.attribution.readouts import READOUTS, ReadoutKind
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy
from twinlens.models.expert_projection import HookedProjection
from twinlens.models.footprint import footprint_of
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments
from twinlens.models.padding import aligned
from twinlens.models.recording import recording, removing
from twinlens.models.rows import RowRunner, put_at


class LayerParts:
    """The part of `twinlens.attribution.protocols.NeuronModel` that is arithmetic of one layer alone."""

    anatomy: Anatomy

    @property
    def experts(self) -> ExpertPlaces | None:
        """Where experts' units lie among the FFN neurons; None: there are no experts."""
        return self.anatomy.experts

    def down(self, layer: int, activation: Tensor) -> Tensor:
        """Down-projection with bias, [..., neurons] → [..., hidden]."""
        return self.anatomy.down_projection(self.anatomy.blocks[layer])(activation)

    def without_neurons(self, states: AnswerStates, layer: int) -> Tensor:
        """What the down-projection puts out where all neurons are 0, [sequences or 1, hidden]."""
        down = self.anatomy.down_projection(self.anatomy.blocks[layer])
        if isinstance(down, HookedProjection):
            return down.without_neurons(states.activation[:, layer], states.mlp_output[:, layer])
        return self.down(layer, torch.zeros_like(states.activation[:1, layer]))

    def write(self, layer: int, output: Tensor) -> Tensor:
        """What reaches the residual stream of the down-projection's output, [..., hidden] → [..., hidden]."""
        return self.anatomy.mlp_write(layer)(output)

    def values(self, layer: int) -> Tensor:
        """Value vector of every neuron, [neurons, hidden]."""
        return self.anatomy.value_rows(layer)

    def attend(self, layer: int, attention: Tensor) -> Tensor:
        """Attention's output projection with bias, [..., attention neurons] → [..., hidden]."""
        return self.anatomy.attention_output(self.anatomy.blocks[layer])(attention)

    def attention_values(self, layer: int) -> Tensor:
        """Value vector of every attention neuron, [attention neurons, hidden]."""
        return projection_rows(self.anatomy.attention_output(self.anatomy.blocks[layer]))

    def activate(self, pre_activation: Tensor) -> Tensor:
        """The MLP's elementwise non-linearity."""
        return self.anatomy.activation_function(self.anatomy.blocks[0])(pre_activation)


class LastTokenEngine(LayerParts):
    """Evaluates variants of the answer token; satisfies `twinlens.attribution.protocols.NeuronModel`.

    Args:
        anatomy: verified parts of the backbone.
        head: from the final hidden state [..., hidden] to readout scores [..., classes].
        readout: what the scores number, a word of `twinlens.attribution.readouts.READOUTS`.
    """

    sequences_per_example: int = 1

    def __init__(self, anatomy: Anatomy, head: Callable[[Tensor], Tensor], readout: str = ReadoutKind.name) -> None:
        self.anatomy = anatomy
        self.readout = readout
        self.head = head
        self.n_layers = anatomy.n_layers
        self.n_neurons = anatomy.n_neurons
        self.n_attention = anatomy.n_heads * anatomy.head_dim
        self.gated = anatomy.gated
        self.family = anatomy.config.model_type
        outputs = int(getattr(head, "out_features", 0)) if READOUTS[readout].of_vocabulary else 0
        self.footprint = footprint_of(anatomy.backbone, outputs)
        self.rows = RowRunner(anatomy)

    # -- one forward over the batch ------------------------------------------------------------------------------

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """Readout scores of one gradient-free forward that keeps nothing else, [batch, classes]."""
        batch = aligned(self.anatomy.backbone, batch)
        output = self.anatomy.backbone(**backbone_arguments(self.anatomy.backbone, batch), use_cache=False)
        return self.head(at_positions(output.last_hidden_state, answer_positions(batch["attention_mask"])))

    @torch.no_grad()
    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """Run the batch once without gradients; see `AnswerStates`. The target changes nothing."""
        batch = aligned(self.anatomy.backbone, batch)
        mask = batch["attention_mask"]
        positions = answer_positions(mask)
        seen: dict[str, list[Tensor]] = {"up": []}

        def keep(name: str, layer: int, tensor: Tensor) -> None:
            if name != "leaving" or layer == self.n_layers - 1:
                seen.setdefault("residual" if name == "leaving" else name, []).append(at_positions(tensor, positions))

        names = ["residual", "activation", "mlp_output", "attention_input", *([] if self.gated else ["up"]), "leaving"]
        recorded = ExitStack()
        recorded.enter_context(recording(self.anatomy, mask.shape, keep, *names))
        hidden, context = self.rows.forward(batch, recorded)
        pre = [self.anatomy.pre_activation(*each) for each in zip(self.anatomy.blocks, seen["up"], strict=False)]
        return AnswerStates(
            scores=self.head(at_positions(hidden, positions)),
            tokens=context.tokens,
            residual=torch.stack(seen["residual"], 1),
            activation=torch.stack(seen["activation"], 1),
            pre_activation=torch.stack(pre, 1) if pre else None,
            mlp_output=torch.stack(seen["mlp_output"], 1),
            attention=torch.stack(seen["attention_input"], 1),
            context=context,
        )

    # -- variants ------------------------------------------------------------------------------------------------

    def score_rows(
        self, states: AnswerStates, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Readout scores of variant rows given by their residual stream; see `NeuronModel.score_rows`."""
        return self.head(self.rows.run(states.context, rows, attended))

    def score_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """Readout scores of edited copies of the answer token; see `NeuronModel.score_edits`."""
        if states.context.replayed is None:
            each = (self._edited_forward(states, row, n_rows, edit, attention) for row in range(n_rows))
            return torch.cat(list(each), 1)
        copies = states.residual[:, :1].expand(-1, n_rows, -1)
        with self._editing(edit, attention, (len(copies), n_rows)):
            return self.score_rows(states, [copies, *[None] * self.n_layers])

    def leaving_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """What leaves the last block of edited copies of the answer token; see `NeuronModel.leaving_edits`."""
        seen: list[Tensor] = []
        handle = self.anatomy.blocks[-1].register_forward_hook(
            lambda module, args, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        with removing([handle]):
            self.score_edits(states, edit, n_rows, attention)
        if states.context.replayed is not None:
            return seen[0].reshape(len(states.residual), n_rows, -1)
        mask = states.tokens["attention_mask"]
        whole = [each.reshape(*mask.shape, each.shape[-1]) for each in seen]  # a forward for each row
        return torch.stack([at_positions(each, answer_positions(mask)) for each in whole], 1)

    def _edited_forward(
        self, states: AnswerStates, row: int, n_rows: int, edit: ActivationEdit, attention: ActivationEdit | None
    ) -> Tensor:
        """One of the rows of `score_edits` as a full forward, [batch, 1, classes], for models without replay."""
        positions = answer_positions(states.tokens["attention_mask"])

        def alone(edit: ActivationEdit) -> SequenceEdit:
            def of_row(layer: int, whole: Tensor) -> Tensor:
                copies = at_positions(whole, positions)[:, None].repeat(1, n_rows, 1)
                return put_at(edit(layer, copies)[:, row], positions, whole.shape[:2])(whole)

            return of_row

        return self.score_sequence_edits(states, alone(edit), 1, None if attention is None else alone(attention))

    def score_sequences(
        self,
        states: AnswerStates,
        layer: int,
        edit: Callable[[Tensor], Tensor],
        copies: int,
        place: SequencePlace = "activation",
    ) -> Tensor:
        """Readout scores of full forwards edited in one layer; see `NeuronModel.score_sequences`."""
        mask = states.tokens["attention_mask"].repeat_interleave(copies, 0)
        block = self.anatomy.blocks[layer]

        def edited(tensor: Tensor) -> Tensor:
            return edit(tensor.reshape(*mask.shape, tensor.shape[-1])).reshape(tensor.shape)

        if place == "pre_activation":
            up = self.anatomy.up_projection(block)
            handle = up.register_forward_hook(lambda module, args, output: edited(output))
        else:
            find = self.anatomy.attention_output if place == "attention" else self.anatomy.down_projection
            handle = find(block).register_forward_pre_hook(lambda module, args: (edited(args[0]), *args[1:]))
        with removing([handle]):
            return self._full_forwards(states, copies)

    def score_sequence_edits(
        self, states: AnswerStates, edit: SequenceEdit, copies: int, attention: SequenceEdit | None = None
    ) -> Tensor:
        """Readout scores of full forwards edited in all layers; see `NeuronModel.score_sequence_edits`."""
        mask = states.tokens["attention_mask"]
        with self._editing(edit, attention, (len(mask) * copies, mask.shape[1])):
            return self._full_forwards(states, copies)

    def _full_forwards(self, states: AnswerStates, copies: int) -> Tensor:
        """Scores of every sequence `copies` times over, [sequences, copies, classes]."""
        repeated = {name: tensor.repeat_interleave(copies, 0) for name, tensor in states.tokens.items()}
        output = self.anatomy.backbone(**backbone_arguments(self.anatomy.backbone, repeated), use_cache=False)
        scores = self.head(at_positions(output.last_hidden_state, answer_positions(repeated["attention_mask"])))
        return scores.unflatten(0, (-1, copies))

    @contextmanager
    def _editing(
        self, edit: ActivationEdit, attention: ActivationEdit | None, shape: tuple[int, ...]
    ) -> Iterator[None]:
        def hook_of(layer: int, edit: ActivationEdit) -> Callable[[nn.Module, tuple], tuple]:
            def hook(module: nn.Module, args: tuple) -> tuple:
                activation = args[0]
                edited = edit(layer, activation.reshape(*shape, activation.shape[-1]))
                return (edited.reshape(activation.shape), *args[1:])

            return hook

        handles = [
            self.anatomy.down_projection(block).register_forward_pre_hook(hook_of(layer, edit))
            for layer, block in enumerate(self.anatomy.blocks)
        ]
        if attention is not None:
            handles += [
                self.anatomy.attention_output(block).register_forward_pre_hook(hook_of(layer, attention))
                for layer, block in enumerate(self.anatomy.blocks)
            ]
        with removing(handles):
            yield

    # -- memory ---------------------------------------------------------------------------------------------------

    def bytes_per_row(self, states: AnswerStates, layer: int = 0) -> int:
        """Memory of one variant row of the batch that enters block `layer`, with what backward keeps."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.row(columns, layer)

    def bytes_per_chunk(self, states: AnswerStates, layer: int = 0) -> int:
        """Memory that rows of the batch need together, however many: copies of the prefix's keys and values."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.chunk(columns, layer)

    def bytes_per_edit(self, states: AnswerStates) -> int:
        """Memory of one edited row of the batch without gradients."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.edited_row(columns)

    def bytes_per_sequence(self, states: AnswerStates) -> int:
        """Memory of one full forward of the batch edited in one layer, with what backward keeps."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.sequence_above(columns)

    def bytes_per_sequence_edit(self, states: AnswerStates) -> int:
        """Memory of one full forward of the batch edited in all layers, without gradients."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.edited_sequence(columns)

    def bytes_of_states(self, states: AnswerStates) -> int:
        """Memory that the states themselves hold, keys and values of the prefix among them."""
        batch, columns = states.context.visible.shape
        return batch * self.footprint.kept(columns)
