"""Cost of each pass, from shapes alone: memory of an example, and floating-point operations.

One multiplication with its addition counts as two operations. Stages cut their batches by the same numbers that the
plan shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.engine_sizes import ONE, Sequences
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.models.footprint import Footprint


@dataclass(frozen=True)
class Shape:
    """A classifier by its sizes.

    Attributes:
        footprint: of the decoder.
        parameters: number of all parameters.
        trained_parameters: of those that a fit changes: all, or those of kept adapters and what is trained beside them.
        matmul_parameters: those that every token is multiplied with: all matrices but the embeddings.
        head: the readout, perhaps without values (on the meta device).
        residual: the residual engine over the same, for its sizes alone; None: its parts are not found.
        lm: the whole model, perhaps without values, for the names and widths of its linear layers.
    """

    footprint: Footprint
    parameters: int
    trained_parameters: int
    matmul_parameters: int
    head: Any
    residual: ResidualModel | None = None
    lm: Any = None

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, each in the type that it is read in."""
        return sum(value.numel() * value.element_size() for value in self.lm.parameters())

    def block_operations(self, columns: int) -> float:
        """Forward of one token through one block that sees `columns` columns."""
        attention = 4 * columns * self.footprint.query_width
        return 2 * self.matmul_parameters / self.footprint.n_layers + attention

    def forward_operations(self, tokens: int) -> float:
        """Forward of one sequence."""
        return tokens * self.footprint.n_layers * self.block_operations(tokens)

    @property
    def readout_operations(self) -> float:
        """Scores of one hidden state: of a vocabulary a good part of what a token takes in all blocks."""
        return 2.0 * sum(parameter.numel() for parameter in self.head.parameters() if parameter.dim() > 1)


# -- memory of one example -----------------------------------------------------------------------------------------


def prediction_need(footprint: Footprint, sequences: Sequences = ONE, window: int | None = None) -> Need:
    """The forward's largest block; no keys and values are kept. Of a text in windows of that many tokens one is read at
    a time, and the states of all stay."""

    def forward(columns: int) -> int:
        return sequences.read * footprint.forward(columns)

    def states(columns: int) -> int:
        return 2 * columns * footprint.hidden_size * footprint.element_size

    need = Need(forward, forward)
    if window is None:
        return need
    by_windows = need.by_windows(window, states)
    return Need(by_windows.least, by_windows.least)


# -- operations of one example -------------------------------------------------------------------------------------


def batch_shapes(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(examples, columns) of every batch."""
    return [(len(batch), max(lengths[row] for row in batch)) for batch in batches]


def peak_of(need: Need, shards: Sequence[Sequence[Sequence[int]]], lengths: Sequence[int], budget: int) -> int:
    """Memory of the largest batch of a pass."""
    shapes = batch_shapes([batch for shard in shards for batch in shard], lengths)
    return max(need.peak(n, columns, budget) for n, columns in shapes)
