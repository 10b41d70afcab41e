"""Sizes of a model's engines, by which methods and evaluations say what their passes take before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twinlens.attribution.protocols import ExpertPlaces
from twinlens.attribution.residual_protocol import ResidualModel


class EngineFootprint(Protocol):
    """Bytes of one example beside the weights, by its tokens; `twinlens.models.footprint.Footprint` provides it.

    Example:
        >>> from types import SimpleNamespace
        >>> from twinlens.attribution.engine_sizes import EngineFootprint, EngineSizes
        >>> from twinlens.attribution.neuron.random_neurons import RandomNeurons
        >>> footprint: EngineFootprint = SimpleNamespace(random_ranking=lambda site: 5000, experts=None)  # all it asks
        >>> RandomNeurons().need(EngineSizes(footprint)).least(8)  # the same for texts of any length
        5000
    """

    @property
    def family(self) -> str:
        """transformers' model type."""

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies a gate with its up-projection."""

    @property
    def experts(self) -> ExpertPlaces | None:
        """Where experts' units lie among the FFN neurons; None: there are no experts."""

    @property
    def n_layers(self) -> int:
        """Blocks."""

    @property
    def n_neurons(self) -> int:
        """FFN neurons of a layer."""

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""

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

    def ranking(self, site: str = "ffn") -> int:
        """Ranking all neurons of a site: `ffn`, `attn` or `both`."""

    def random_ranking(self, site: str = "ffn") -> int:
        """Drawing all neurons of a site in random order."""

    def units(self, site: str) -> int:
        """Neurons of a layer of a site: `ffn`, `attn` or `both`."""


class ForwardWork(Protocol):
    """Floating-point operations of a model's parts; `twinlens.callbacks.passes.costs.Shape` provides it.

    Example:
        >>> from types import SimpleNamespace
        >>> from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
        >>> from twinlens.attribution.evaluation.faithfulness import Faithfulness
        >>> model: ForwardWork = SimpleNamespace(
        ...     block_operations=lambda columns: 10.0, forward_operations=lambda tokens: 20.0 * tokens,
        ...     readout_operations=5.0,
        ... )
        >>> sizes = EngineSizes(SimpleNamespace(n_layers=2))
        >>> Faithfulness().work(sizes, model, tokens=4, n_questions=3)  # a forward, then one token per question
        160.0
    """

    def block_operations(self, columns: int) -> float:
        """Forward of one token through one block that sees so many columns."""

    def forward_operations(self, tokens: int) -> float:
        """Forward of one sequence."""

    @property
    def readout_operations(self) -> float:
        """Scores of one hidden state."""


@dataclass(frozen=True)
class Sequences:
    """Sequences of one example: one, or in multiple choice one per choice.

    Attributes:
        read: whose scores make the prediction.
        edited: whose neurons are edited, `NeuronModel.sequences_per_example`.

    Example:
        >>> from twinlens.attribution.engine_sizes import ONE, Sequences
        >>> ONE.forwards()
        1
        >>> Sequences(read=4, edited=1).forwards()  # four choices: their scores first, then what is kept of one
        5
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
        residual: the residual engine, for its sizes alone; None: its parts are not found, or it is not asked for.

    Example:
        >>> from types import SimpleNamespace
        >>> from twinlens.attribution.engine_sizes import EngineSizes, Sequences
        >>> footprint = SimpleNamespace(forward=lambda tokens: 100 * tokens, states=lambda tokens: 120 * tokens)
        >>> EngineSizes(footprint).states(columns=8)
        960
        >>> EngineSizes(footprint, Sequences(read=4, edited=1)).states(columns=8)  # the choices' scores take more
        3200
    """

    footprint: EngineFootprint
    sequences: Sequences = ONE
    residual: ResidualModel | None = None

    def states(self, columns: int) -> int:
        """Peak of `NeuronModel.states` of one example."""
        return self.sequences.states(self.footprint, columns)
