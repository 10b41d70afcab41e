"""Rows of projected gradients from one recorded forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import TwoSided, example_blocks, project_sides, token_blocks
from twinlens.attribution.gradients.fisher import covariances, token_mask
from twinlens.attribution.gradients.layout import RowLayout, row_layout
from twinlens.attribution.gradients.tape import Tape
from twinlens.attribution.protocols import LinearLayer


@dataclass(frozen=True)
class RowPass:
    """Computation of a pass over a split, batch by batch.

    Attributes:
        layers: the layers, in the order of the rows.
        projections: of each layer.
        shapes: (k_out, k_in) of each layer's block.
        per: what has a row: each example, each token, or nothing, where the sums alone are wanted.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.blocks import UNPROJECTED
        >>> from twinlens.attribution.gradients.cotangents import logit_cotangents
        >>> from twinlens.attribution.gradients.row_pass import RowPass
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> module = torch.nn.Linear(3, 2, bias=False).requires_grad_(False)
        >>> layers = [LinearLayer("score", module, d_in=3, d_out=2, has_bias=False)]
        >>> row_pass = RowPass(layers, [UNPROJECTED], shapes=[(2, 3)])
        >>> with recording(layers) as tape:
        ...     scores = module(torch.randn(4, 3))
        ...     cotangents = logit_cotangents(scores.detach(), torch.tensor([0, 1, 1, 0]))[None]
        ...     rows, sums = row_pass.of_batch(tape, scores, cotangents, torch.ones(4, 1))
        >>> rows[0].shape  # [examples, k_out · k_in]
        torch.Size([4, 6])
    """

    layers: Sequence[LinearLayer]
    projections: Sequence[TwoSided]
    shapes: Sequence[tuple[int, int]]
    per: Literal["example", "token", "nothing"] = "example"

    @property
    def layout(self) -> RowLayout:
        """Places of the layers' blocks in a row."""
        return row_layout([layer.name for layer in self.layers], self.shapes)

    def of_batch(
        self, tape: Tape, scores: Tensor, cotangents: Tensor, attention_mask: Tensor
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor, int]]]:
        """Run the backwards of a recorded forward.

        Args:
            tape: of the forward.
            scores: what the forward gave, [examples, …].
            cotangents: gradients at the scores, one backward for each, [rank, examples, …].
            attention_mask: of the batch, [sequences, tokens] or [examples, choices, tokens].

        Returns:
            One tensor per group, [examples, rank · width], or [tokens that are no padding, width] in the order of
            examples and positions, or none; and per layer Σ a aᵀ, Σ δ δᵀ (over all backwards) and the number of tokens.

        Raises:
            UserError: rows of tokens with a layer that reads one token per sequence.
        """
        layout, rank, n = self.layout, len(cotangents), len(scores)
        columns = {"example": rank, "token": attention_mask.shape[-1], "nothing": 0}[self.per]
        # as rows are stored, whatever the model's precision; that is the default type while a pass runs under bf16-true
        out = [torch.zeros(n, columns, width, dtype=torch.float32, device=scores.device) for width in layout.widths]
        place = {layer: (group, part) for group in range(len(out)) for layer, part in layout.parts(group)}
        none = torch.zeros((), dtype=torch.float64, device=scores.device)
        sums: list[tuple[Tensor, Tensor, int]] = [
            (none.expand(k_in, k_in), none.expand(k_out, k_out), 0) for k_out, k_in in self.shapes
        ]
        for row, cotangent in enumerate(cotangents):

            def consume(number: int, inputs: Tensor, deltas: Tensor, row: int = row) -> None:
                valid = token_mask(inputs, attention_mask, self.layers[number].routed)
                a, d = project_sides(inputs, deltas, self.layers[number].has_bias, self.projections[number])
                before, outer = sums[number][:2]
                more, more_outer = covariances(a, d, valid)
                n_tokens = a.shape[:2].numel() if valid is None else int(valid.sum())
                # the inputs are the same in every backward
                sums[number] = (before if row else more, outer + more_outer, n_tokens)
                group, part = place[number]
                if self.per == "token":
                    if a.shape[:2].numel() != attention_mask.numel():
                        raise UserError(
                            f"per=token shares gradients among tokens, but the layer {self.layers[number].name} reads "
                            "one token per text; expected layers that read all: leave it out of the method's params."
                        )
                    blocks = token_blocks(a.reshape(n, columns, -1), d.reshape(n, columns, -1))
                    out[group][:, :, part] = blocks.flatten(2)
                elif self.per == "example":
                    out[group][:, row, part] = example_blocks(a, d, n).flatten(1)

            tape.gradients(scores, cotangent, consume, more=row < rank - 1)
        if self.per == "token":
            kept = attention_mask.bool()
            return [rows[kept] for rows in out], sums
        return [rows.flatten(1) for rows in out], sums
