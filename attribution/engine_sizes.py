"""Sizes of a model's engines, by which methods and evaluations say what their passes take before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twinlens.attribution.residual_protocol import ResidualModel


class EngineFootprint(Protocol):
    """Bytes of one example beside the weights, by its tokens; `twinlens.models.footprint.Footprint` provides it."""

    @property
    def family(self) -> str:
        """transformers' model type."""

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies a gate with its up-projection."""

    @property
    def n_layers(self) -> int:
        """Blocks."""

    @property
    def n_neurons(self) -> int:
        """FFN neurons of a layer."""

    def forward(self, tokens: int) -> int:
        """Peak of a gradient-free forward."""

    def kept(self, tokens: int) -> int:
        """What `NeuronModel.states` leaves."""

    def states(self, tokens: int) -> int:
        """Peak of `NeuronModel.states`."""

    def sequence_above(self, tokens: int) -> int:
        """A full forward edited in one layer, with gradients of that layer's neurons."""

    def chunk(self, tokens: int, layer: int) -> int:
        """What any number of variant rows that enter at block `layer` need together."""

    def row(self, tokens: int, layer: int) -> int:
        """One variant row that enters at block `layer`, with what backward keeps."""

    def edited_row(self, tokens: int) -> int:
        """One edited copy of the answer token without gradients."""

    def edited_sequence(self, tokens: int) -> int:
        """One full forward edited in all layers, without gradients."""

    def ranking(self) -> int:
        """Ranking all neurons."""

    def random_ranking(self) -> int:
        """Drawing all neurons in random order."""


class ForwardWork(Protocol):
    """Floating-point operations of a model's parts; `twinlens.callbacks.passes.costs.Shape` provides it."""

    def block_operations(self, columns: int) -> float:
        """Forward of one token through one block that sees so many columns."""

    def forward_operations(self, tokens: int) -> float:
        """Forward of one sequence."""


@dataclass(frozen=True)
class Sequences:
    """Sequences of one example: one, or in multiple choice one per choice.

    Attributes:
        read: whose scores make the prediction.
        edited: whose neurons are edited, `NeuronModel.sequences_per_example`.
    """

    read: int = 1
    edited: int = 1

    def states(self, footprint: EngineFootprint, columns: int) -> int:
        """Peak of `NeuronModel.states`: all sequences' scores, then what is kept of the edited ones."""
        scores = self.read * footprint.forward(columns) if self.read > self.edited else 0
        return max(scores, self.edited * footprint.states(columns))

    def forwards(self) -> int:
        """Forwards that `NeuronModel.states` takes."""
        return self.read if self.read == self.edited else self.read + self.edited


ONE = Sequences()


@dataclass(frozen=True)
class EngineSizes:
    """What a pass over the model is planned from.

    Attributes:
        footprint: of the decoder.
        sequences: of one example.
        residual: the residual engine, for its sizes alone; None: the family has none, or it is not asked for.
    """

    footprint: EngineFootprint
    sequences: Sequences = ONE
    residual: ResidualModel | None = None

    def states(self, columns: int) -> int:
        """Peak of `NeuronModel.states` of one example."""
        return self.sequences.states(self.footprint, columns)
