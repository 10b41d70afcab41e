"""Engine of encoders: variants of the classification token, each by a full forward.

In an encoder every token sees every other, so that a changed classification token changes all of them: nothing can be
kept of an unedited forward. The engine gives the same numbers as plain edited forwards, at their price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import ActivationEdit, AnswerStates, Batch
from twinlens.attribution.readouts import ReadoutKind
from twinlens.models.encoder_anatomy import EncoderAnatomy
from twinlens.models.footprint import footprint_of
from twinlens.models.forwards import at_positions, backbone_arguments, first_positions
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.padding import aligned
from twinlens.models.recording import removing
from twinlens.models.rows import RowContext, put_at


def refuse_residual(family: str) -> UserError:
    """The refusal of methods over an additive residual stream."""
    return UserError(
        f"the {family} model is an encoder: all of its tokens change with one, and norms may stand behind its sums, so "
        "that no residual stream adds up to its scores; expected a method that edits and differentiates the model: use "
        "method=ig or ablation."
    )


class EncoderEngine(LastTokenEngine):
    """Evaluates variants of the classification token; satisfies `twinlens.attribution.protocols.NeuronModel`.

    The stream of `AnswerStates.residual` and of rows is what the sum at the end of a block is, before the norm that may
    follow it: entry 0 enters the first block, entry l the norm of block l − 1, or block l where there is none. What an
    MLP adds there is what its projection puts out.

    Args:
        anatomy: parts of the backbone.
        head: from the final state of the classification token, [..., hidden], to scores, [..., classes].
        readout: what the scores number.
    """

    def __init__(
        self, anatomy: EncoderAnatomy, head: Callable[[Tensor], Tensor], readout: str = ReadoutKind.name
    ) -> None:
        self.anatomy: Any = anatomy
        self.readout = readout
        self.head = head
        self.n_layers = anatomy.n_layers
        self.n_neurons = anatomy.n_neurons
        self.n_attention = anatomy.n_heads * anatomy.head_dim
        self.gated = anatomy.gated
        self.family = anatomy.config.model_type
        self.footprint = footprint_of(anatomy.backbone)

    @torch.no_grad()
    def scores(self, batch: Batch) -> Tensor:
        """Readout scores of one gradient-free forward, [batch, classes]."""
        return self._read(aligned(self.anatomy.backbone, batch))

    def _read(self, tokens: Batch) -> Tensor:
        output = self.anatomy.backbone(**backbone_arguments(self.anatomy.backbone, tokens))
        return self.head(at_positions(output.last_hidden_state, first_positions(tokens["attention_mask"])))

    @torch.no_grad()
    def states(self, batch: Batch, target: Tensor | None = None) -> AnswerStates:
        """Run the batch once without gradients; see `AnswerStates`, and the class on its residual stream."""
        batch = aligned(self.anatomy.backbone, batch)
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        mask = tokens["attention_mask"]
        positions = first_positions(mask)
        seen: dict[str, list[Tensor]] = {}

        def keep(name: str, tensor: Tensor) -> None:
            whole = tensor.reshape(*mask.shape, tensor.shape[-1])
            seen.setdefault(name, []).append(at_positions(whole, positions).clone())

        def keep_both(module: Any, args: tuple, output: Tensor) -> None:
            keep("activation", args[0])
            keep("mlp_output", output)

        with ExitStack() as hooks:
            for layer, block in enumerate(self.anatomy.blocks):
                down, output = self.anatomy.down_projection(block), self.anatomy.attention_output(block)
                norm = self.anatomy.closing_norm(block)
                handles = [
                    down.register_forward_hook(keep_both),
                    output.register_forward_pre_hook(lambda m, args: keep("attention", args[0])),
                ]
                if layer == 0:
                    handles.append(
                        block.register_forward_pre_hook(
                            lambda m, args, kwargs: keep("residual", args[0] if args else kwargs["hidden_states"]),
                            with_kwargs=True,
                        )
                    )
                if norm is None:
                    handles.append(block.register_forward_hook(lambda m, args, out: keep("residual", _first(out))))
                else:
                    handles.append(norm.register_forward_pre_hook(lambda m, args: keep("residual", args[0])))
                if not self.gated:
                    up = self.anatomy.up_projection(block)
                    handles.append(up.register_forward_hook(lambda m, args, out: keep("up", out)))
                for handle in handles:
                    hooks.callback(handle.remove)
            scores = self._read(tokens)
        up = seen.get("up", [])
        pre = [self.anatomy.pre_activation(*each) for each in zip(self.anatomy.blocks, up, strict=False)]
        return AnswerStates(
            scores=scores,
            tokens=tokens,
            residual=torch.stack(seen["residual"], 1),
            activation=torch.stack(seen["activation"], 1),
            pre_activation=torch.stack(pre, 1) if pre else None,
            mlp_output=torch.stack(seen["mlp_output"], 1),
            attention=torch.stack(seen["attention"], 1),
            context=RowContext(tokens, mask.bool(), None),
        )

    def score_rows(
        self, states: AnswerStates, rows: Sequence[Tensor | None], attended: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Readout scores of variants of the classification token, one full forward each; see the class on rows."""
        found = []
        for layer, entering in enumerate(rows):
            if entering is None:
                continue
            count = entering.shape[1]
            copies = {name: tensor.repeat_interleave(count, 0) for name, tensor in states.tokens.items()}
            mask = copies["attention_mask"]
            positions = first_positions(mask)
            put = put_at(entering.flatten(0, 1), positions, mask.shape)
            with ExitStack() as hooks:
                hooks.callback(self._entering(layer, put).remove)
                chosen = attended[layer] if layer < len(attended) else None
                if chosen is not None:
                    at = put_at(chosen.flatten(0, 1), positions, mask.shape)
                    output = self.anatomy.attention_output(self.anatomy.blocks[layer])
                    hooks.callback(output.register_forward_hook(lambda m, args, out, at=at: at(out)).remove)
                found.append(self._read(copies).unflatten(0, (-1, count)))
        return torch.cat(found, 1)

    def _entering(self, layer: int, put: Callable[[Tensor], Tensor]) -> Any:
        """A hook that writes what enters there into the classification token."""
        if layer == 0:

            def before(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
                if args:
                    return (put(args[0]), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": put(kwargs["hidden_states"])}

            return self.anatomy.blocks[0].register_forward_pre_hook(before, with_kwargs=True)
        block = self.anatomy.blocks[layer - 1]
        norm = self.anatomy.closing_norm(block)
        if norm is not None:
            return norm.register_forward_pre_hook(lambda m, args: (put(args[0]), *args[1:]))
        return block.register_forward_hook(
            lambda m, args, out: (put(out[0]), *out[1:]) if isinstance(out, tuple) else put(out)
        )

    def score_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """Readout scores of edited copies of the classification token, one full forward each."""
        copies = {name: tensor.repeat_interleave(n_rows, 0) for name, tensor in states.tokens.items()}
        positions = first_positions(copies["attention_mask"])

        def at_token(edit: ActivationEdit) -> ActivationEdit:
            def of(layer: int, whole: Tensor) -> Tensor:
                own = at_positions(whole, positions)
                changed = edit(layer, own.unflatten(0, (-1, n_rows))).flatten(0, 1)
                return put_at(changed, positions, whole.shape[:2])(whole)

            return of

        shape = tuple(copies["attention_mask"].shape)
        with self._editing(at_token(edit), None if attention is None else at_token(attention), shape):
            return self._read(copies).unflatten(0, (-1, n_rows))

    def leaving_edits(
        self, states: AnswerStates, edit: ActivationEdit, n_rows: int, attention: ActivationEdit | None = None
    ) -> Tensor:
        """The sum at the end of the last block of edited copies of the classification token."""
        seen: list[Tensor] = []
        block = self.anatomy.blocks[-1]
        norm = self.anatomy.closing_norm(block)
        if norm is None:
            handle = block.register_forward_hook(lambda m, args, out: seen.append(_first(out)))
        else:
            handle = norm.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        with removing([handle]):
            self.score_edits(states, edit, n_rows, attention)
        mask = states.tokens["attention_mask"].repeat_interleave(n_rows, 0)
        whole = seen[0].reshape(*mask.shape, seen[0].shape[-1])
        return at_positions(whole, first_positions(mask)).unflatten(0, (-1, n_rows))

    def _full_forwards(self, states: AnswerStates, copies: int) -> Tensor:
        repeated = {name: tensor.repeat_interleave(copies, 0) for name, tensor in states.tokens.items()}
        return self._read(repeated).unflatten(0, (-1, copies))

    # -- memory: a row is a whole sequence ------------------------------------------------------------------------

    def bytes_per_row(self, states: AnswerStates, layer: int = 0) -> int:
        """Memory of one variant of the batch, with what backward keeps."""
        return self.bytes_per_sequence(states)

    def bytes_per_chunk(self, states: AnswerStates, layer: int = 0) -> int:
        """Nothing: rows share nothing."""
        return 0

    def bytes_per_edit(self, states: AnswerStates) -> int:
        """Memory of one edited variant of the batch without gradients."""
        return self.bytes_per_sequence_edit(states)


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
