"""The residual stream taken apart: what every layer, head and neuron adds at the answer position.

One forward without gradients gives the parts, further ones zero units at every token. Attention weights need the eager
implementation, which is switched on for such a forward alone. Conventions: the answer position is the last token of the
mask; where the MLP runs beside the attention (GPT-NeoX, `parallel`), it is added after the attention all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import LayerStates, ResidualStates, ScaledUnits
from twinlens.models.adapters import projection_rows
from twinlens.models.anatomy import Anatomy, MissingPart
from twinlens.models.chain import eagerly
from twinlens.models.footprint import footprint_of
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments
from twinlens.models.norms import Behind, norm_of, wide
from twinlens.models.padding import aligned
from twinlens.models.readouts import linear_readout
from twinlens.models.recording import recording, removing
from twinlens.models.residual_keys import KeysInStream


class NoAttentionWeights(MissingPart):
    """The model keeps its attention weights to itself, which scores of attention neurons and heads need."""


class ResidualEngine(KeysInStream):
    """Satisfies the protocol `ResidualModel`; `twinlens.models.residual_identities.build_residual` makes it.

    Args:
        anatomy: verified parts of the backbone.
        readout: from the final hidden state [..., width] to scores [..., outputs]: `lm_head` or a classification head.
        vocabulary: whether the outputs are tokens.
    """

    def __init__(self, anatomy: Anatomy, readout: Callable[[Tensor], Tensor], vocabulary: bool = False) -> None:
        self.anatomy = anatomy
        self.vocabulary = vocabulary
        self.readout = readout
        self.family = anatomy.config.model_type
        self.n_layers = anatomy.n_layers
        self.n_neurons = anatomy.n_neurons
        self.n_heads = anatomy.n_heads
        self.head_dim = anatomy.head_dim
        self.hidden_size = anatomy.hidden_size
        self.gated = anatomy.gated
        self.experts = anatomy.experts
        self.parallel = anatomy.parallel
        self.final_norm = norm_of(anatomy.last_norm, anatomy.hidden_size)
        self.mlp_behind = [Behind.of(anatomy.mlp_write(layer), self.hidden_size) for layer in range(self.n_layers)]
        self.attention_behind = [
            Behind.of(anatomy.attention_write(layer), self.hidden_size) for layer in range(self.n_layers)
        ]
        self.norms_behind = any(b.norm is not None for b in (*self.mlp_behind, *self.attention_behind))
        self.output_weight, self.output_bias = linear_readout(readout)
        bias = self.final_norm.bias
        self.final_bias = None if bias is None else self._projected(bias)
        self.n_key_heads = anatomy.n_key_heads
        self.norms = {}

    def where_it_is(self) -> ResidualEngine:
        """The engine over the weights where they are now: a model may have been moved to another device."""
        return ResidualEngine(self.anatomy, self.readout, self.vocabulary)

    # -- one forward ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def states(self, batch: Batch, attention: bool = True) -> ResidualStates:
        """One forward over the batch; see `twinlens.attribution.residual_protocol.ResidualStates`."""
        batch = aligned(self.anatomy.backbone, batch)
        mask = batch["attention_mask"]
        positions = answer_positions(mask)
        kept: dict[str, list[Tensor]] = {name: [] for name in ("residual", "attention", "mlp", "activation")}
        scales: dict[str, list[Tensor]] = {"attention": [], "mlp": []}
        weights: list[Tensor] = []
        values: list[Tensor] = []

        def visit(layer: LayerStates) -> None:
            parts = (layer.residual, layer.attention_output, layer.mlp_output, layer.activation)
            for name, part in zip(kept, parts, strict=True):
                kept[name].append(at_positions(part, positions))
            for name, scale in (("attention", layer.attention_scale), ("mlp", layer.mlp_scale)):
                if scale is not None:
                    scales[name].append(at_positions(scale, positions))

        with self._recording(visit, mask.shape) as last:
            if attention:
                with self._attending(weights, values, positions):
                    hidden = self._run(batch)
            else:
                hidden = self._run(batch)
        residual = torch.stack([*kept["residual"], at_positions(last[0], positions)], 1)
        return ResidualStates(
            residual=residual,
            attention_output=torch.stack(kept["attention"], 1),
            mlp_output=torch.stack(kept["mlp"], 1),
            activation=torch.stack(kept["activation"], 1),
            attention=torch.stack(weights, 1) * mask[:, None, None] if attention else None,
            value=torch.stack(values, 1) if attention else None,
            statistic=self.final_norm.statistic(residual[:, -1]),
            scores=wide(self.head(at_positions(hidden, positions))),
            position=positions,
            **{f"{name}_scale": torch.stack(found, 1) for name, found in scales.items() if found},
        )

    @torch.no_grad()
    def stream(self, batch: Batch, visit: Callable[[LayerStates], None]) -> None:
        """Show every block at every token; see `ResidualModel.stream`."""
        with self._recording(visit, batch["attention_mask"].shape):
            self._run(aligned(self.anatomy.backbone, batch))

    def _run(self, batch: Batch) -> Tensor:
        """Final hidden state of every token, [batch, tokens, width]."""
        arguments = backbone_arguments(self.anatomy.backbone, batch)
        return self.anatomy.backbone(**arguments, use_cache=False).last_hidden_state

    @contextmanager
    def _recording(self, visit: Callable[[LayerStates], None], shape: torch.Size) -> Iterator[list[Tensor]]:
        """Call `visit` after every block; yields a list that receives the last block's output."""
        parts: dict[str, Tensor] = {}
        last: list[Tensor] = []

        def keep(name: str, layer: int, tensor: Tensor) -> None:
            if name != "leaving":
                parts[name] = tensor.clone() if name.endswith("output") else tensor
                return
            scales = {}
            for part, behind in (("attention", self.attention_behind[layer]), ("mlp", self.mlp_behind[layer])):
                if not behind.writing.plain:
                    raw = parts[f"{part}_output"]
                    parts[f"{part}_output"], scales[f"{part}_scale"] = behind.writing(raw), behind.scale(raw)
            visit(LayerStates(layer, **parts, **scales))
            parts.clear()
            if layer == self.n_layers - 1:
                last.append(tensor)

        names = ("residual", "activation", "mlp_output", "attention_output", "leaving")
        with recording(self.anatomy, shape, keep, *names):
            yield last

    @contextmanager
    def _attending(self, weights: list[Tensor], values: list[Tensor], positions: Tensor) -> Iterator[None]:
        """Keep the answer token's attention and all value vectors of every layer, under the eager implementation."""

        def keep_weights(module: nn.Module, args: tuple, output: Any) -> None:
            if not isinstance(output, tuple) or len(output) < 2 or output[1] is None:
                raise NoAttentionWeights(
                    f"this {self.family} model writes out no attention weights (attention implementation "
                    f"'{backbone.config._attn_implementation}'), which scores of attention neurons and heads need; "
                    "expected 'eager': load the model with model.attention=eager or attribute site=ffn alone."
                )
            weights.append(at_positions(output[1].transpose(1, 2), positions))

        def keep_values(block: nn.Module, output: Tensor) -> None:
            # a copy, so that queries and keys projected together with the values are let go
            values.append(self.anatomy.head_values(block, output).transpose(1, 2).clone())

        backbone = self.anatomy.backbone
        # a part that is missing is refused before any hook is there
        parts = [
            (each, self.anatomy.attention(each), self.anatomy.value_projection(each)) for each in self.anatomy.blocks
        ]
        handles = []
        for block, attending, projection in parts:
            handles.append(attending.register_forward_hook(keep_weights))
            handles.append(projection.register_forward_hook(lambda m, a, out, block=block: keep_values(block, out)))
        with removing(handles), eagerly(backbone):
            yield

    # -- readout -------------------------------------------------------------------------------------------------

    def head(self, features: Tensor) -> Tensor:
        """Scores of the readout, computed in its own type."""
        parameter = next(self.readout.parameters(), None) if isinstance(self.readout, nn.Module) else None
        return self.readout(features if parameter is None else features.to(parameter.dtype))

    def final_direction(self, vectors: Tensor) -> Tensor:
        """Linear part of the final norm and of what lies between it and the head; see `ResidualModel`."""
        return self._projected(self.final_norm.direction(vectors))

    def _projected(self, vectors: Tensor) -> Tensor:
        projection = self.anatomy.last_projection
        return vectors if projection is None else wide(vectors) @ wide(projection_rows(projection).detach())

    # -- weights -------------------------------------------------------------------------------------------------

    def values(self, layer: int) -> Tensor:
        """Down-projection rows seen through what lies behind them, [neurons, hidden]."""
        return self.mlp_behind[layer].directions(self.anatomy.value_rows(layer).detach())

    def activate(self, layer: int, values: Tensor) -> Tensor:
        """The MLP's non-linearity, [...] → [...]."""
        return self.anatomy.activation_function(self.anatomy.blocks[layer])(values)

    def attention_values(self, layer: int) -> Tensor:
        """Output-projection rows seen through what lies behind them, [heads · head_dim, hidden]."""
        rows = projection_rows(self.anatomy.attention_output(self.anatomy.blocks[layer])).detach()
        return self.attention_behind[layer].directions(rows)

    # -- edited forwards -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def zeroed_scores(self, batch: Batch, ffn: Tensor | None, attention: Tensor | None) -> Tensor:
        """Scores with units zeroed at every token; see `ResidualModel.zeroed_scores`."""

        def zeroed(rows: Tensor, layer: int, of_attention: bool) -> Tensor:
            chosen = attention if of_attention else ffn
            if chosen is None or not bool(chosen[:, layer].any()):
                return rows
            return rows.masked_fill(chosen[:, layer, None], 0)

        return self._edited_scores(batch, zeroed)

    @torch.no_grad()
    def scaled_scores(self, batch: Batch, units: ScaledUnits) -> Tensor:
        """Scores with a unit of each row scaled at every token; see `ResidualModel.scaled_scores`."""
        return self._edited_scores(batch, units.scaled)

    def _edited_scores(self, batch: Batch, edit: Callable[[Tensor, int, bool], Tensor]) -> Tensor:
        """Scores of a forward whose coefficients `edit` changes: (coefficients [batch, tokens, units], layer, whether
        they are attention neurons') → the same, changed."""
        batch = aligned(self.anatomy.backbone, batch)
        mask = batch["attention_mask"]

        def hook(module: nn.Module, args: tuple, layer: int, of_attention: bool) -> tuple | None:
            rows = args[0].reshape(*mask.shape, -1)
            edited = edit(rows, layer, of_attention)
            return None if edited is rows else (edited.reshape(args[0].shape), *args[1:])

        handles = [
            part(block).register_forward_pre_hook(partial(hook, layer=layer, of_attention=of_attention))
            for layer, block in enumerate(self.anatomy.blocks)
            for of_attention, part in ((False, self.anatomy.down_projection), (True, self.anatomy.attention_output))
        ]
        with removing(handles):
            hidden = self._run(batch)
        return wide(self.head(at_positions(hidden, answer_positions(mask))))

    def mlp_gradient(self, batch: Batch, cotangent: Tensor) -> Tensor:
        """Gradient by what the MLPs add at the answer position; see `ResidualModel.mlp_gradient`."""
        batch = aligned(self.anatomy.backbone, batch)
        mask = batch["attention_mask"]
        positions = answer_positions(mask)
        here = torch.zeros_like(mask).scatter_(1, positions[:, None], 1)
        leaves: list[Tensor] = []

        def hook(module: nn.Module, args: tuple, output: Tensor, scale: float = 1.0) -> Tensor:
            leaf = output.new_zeros(len(mask), output.shape[-1]).requires_grad_()
            leaves.append(leaf)
            return output + (leaf[:, None] / scale * here[..., None].to(leaf.dtype)).reshape(output.shape)

        writings = [behind.writing for behind in self.mlp_behind]
        handles = [w.part.register_forward_hook(partial(hook, scale=w.scale)) for w in writings]
        with removing(handles), torch.enable_grad():
            final = at_positions(self._run(batch), positions)
            value = (wide(self.head(final)) * cotangent).sum()
            return torch.stack(torch.autograd.grad(value, leaves), 1)

    # -- memory --------------------------------------------------------------------------------------------------

    def bytes_per_example(self, tokens: int, attention: bool = True) -> int:
        """Kept: the answer token's parts and, for attention, weights and values. Passing: one block at every token."""
        width, size = self.anatomy.hidden_size, next(self.anatomy.backbone.parameters()).element_size()
        kept = self.n_layers * (3 * width + self.n_neurons)
        passing = tokens * (8 * width + 4 * self.n_neurons)
        if attention:
            kept += self.n_layers * tokens * (2 * self.n_heads + self.n_key_heads * self.head_dim)
            passing += 4 * self.n_heads * tokens * tokens
        outputs = 0 if self.output_weight is None else 2 * len(self.output_weight)
        # what is stacked stands twice for a moment
        return size * (2 * kept + passing) + 4 * outputs

    def bytes_per_gradient(self, tokens: int) -> int:
        """One full forward with what backward keeps, and the scores."""
        outputs = 0 if self.output_weight is None else len(self.output_weight)
        return footprint_of(self.anatomy.backbone).sequence(tokens) + 12 * outputs
