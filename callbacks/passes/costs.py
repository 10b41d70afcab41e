"""What each pass costs, from shapes alone: memory of an example, and floating-point operations.

One multiplication with its addition counts as two operations. Stages cut their batches by the same numbers that the
plan shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.passes.memory import Need
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
        residual: the residual engine over the same, for its sizes alone; None: the family has no adapter.
        lm: the whole model, perhaps without values, for the names and widths of its linear layers.
    """

    footprint: Footprint
    parameters: int
    trained_parameters: int
    matmul_parameters: int
    head: Any
    residual: ResidualModel | None = None
    lm: Any = None

    def block_operations(self, columns: int) -> float:
        """Forward of one token through one block that sees `columns` columns."""
        attention = 4 * columns * self.footprint.query_width
        return 2 * self.matmul_parameters / self.footprint.n_layers + attention

    def forward_operations(self, tokens: int) -> float:
        """Forward of one sequence."""
        return tokens * self.footprint.n_layers * self.block_operations(tokens)


@dataclass(frozen=True)
class Sequences:
    """Sequences of one example: one, or in multiple choice one per choice.

    Attributes:
        read: whose scores make the prediction.
        edited: whose neurons are edited, `NeuronModel.sequences_per_example`.
    """

    read: int = 1
    edited: int = 1

    def states(self, footprint: Footprint, columns: int) -> int:
        """Peak of `NeuronModel.states`: all sequences' scores, then what is kept of the edited ones."""
        scores = self.read * footprint.forward(columns) if self.read > self.edited else 0
        return max(scores, self.edited * footprint.states(columns))

    def forwards(self) -> int:
        """Forwards that `NeuronModel.states` takes."""
        return self.read if self.read == self.edited else self.read + self.edited


ONE = Sequences()


# -- memory of one example -----------------------------------------------------------------------------------------


def prediction_need(footprint: Footprint, sequences: Sequences = ONE) -> Need:
    """The forward's largest block; no keys and values are kept."""

    def forward(columns: int) -> int:
        return sequences.read * footprint.forward(columns)

    return Need(forward, forward)


def neuron_need(
    method: Any, footprint: Footprint, sequences: Sequences = ONE, residual: ResidualModel | None = None
) -> Need:
    """A neuron method's pass.

    Methods over the residual stream say themselves what an example takes; in multiple choice the other choices' scores
    are computed before, one sequence at a time if need be.

    Integrated gradients: the forward beside the prefix's keys and values, then variant rows with what backward keeps
    of the blocks above them, one row at the least and all layers' rows at the most; at other positions than the last,
    whole sequences. Then the ranking of all neurons. Random neurons: hashes and ranking. Other methods: the forward.
    """
    if isinstance(method, RandomNeurons):
        return Need(lambda columns: footprint.random_ranking(), lambda columns: footprint.random_ranking())
    if residual is not None and isinstance(method, ResidualMethod):
        each = partial(method.bytes_per_example, residual)
        return Need(each, each)
    if not isinstance(method, IntegratedGradients):
        return Need(partial(sequences.states, footprint), partial(sequences.states, footprint))
    edited = sequences.edited
    step: Callable[[int], int] | None = None
    if method.path(footprint).positions == "last":
        rows = method.n_steps + 1

        def chunk(columns: int) -> int:
            return edited * (footprint.kept(columns) + footprint.chunk(columns, 1))

        def smallest(columns: int) -> int:
            return chunk(columns) + edited * footprint.row(columns, 1)

        def whole(columns: int) -> int:
            each = (footprint.row(columns, layer + 1) for layer in range(footprint.n_layers))
            return chunk(columns) + edited * rows * sum(each)
    else:

        def step(columns: int) -> int:
            return edited * footprint.sequence_above(columns)

        def smallest(columns: int) -> int:
            return edited * footprint.kept(columns) + step(columns)

        def whole(columns: int) -> int:
            return edited * footprint.kept(columns) + (method.n_steps + 2) * step(columns)

    def least(columns: int) -> int:
        return max(sequences.states(footprint, columns), smallest(columns), edited * footprint.ranking())

    return Need(least, lambda columns: max(least(columns), whole(columns)), step)


def reference_need(footprint: Footprint, sequences: Sequences = ONE) -> Need:
    """The activations that other examples' neurons are replaced by: what `NeuronModel.states` takes."""
    states = partial(sequences.states, footprint)
    return Need(states, states)


def faithfulness_need(
    footprint: Footprint,
    n_questions: int,
    random_control: bool,
    sequences: Sequences = ONE,
    evaluation: Faithfulness | None = None,
) -> Need:
    """The forward beside the prefix's keys and values, then edited rows without gradients, one per question.

    At all positions: edited forwards. The random control's rankings are drawn before. Another example's activations
    are held beside all.

    Args:
        evaluation: None: the answer position, zeros.
    """
    drawn = footprint.random_ranking() if random_control else 0
    replaced = evaluation is not None and evaluation.intervention == "resample"
    other = 2 * 4 * footprint.n_layers * footprint.n_neurons if replaced else 0
    everywhere = evaluation is not None and evaluation.positions == "all"

    def rows(columns: int, count: int) -> int:
        held = footprint.kept(columns) + other
        if everywhere:
            edits = held + count * footprint.edited_sequence(columns)
        else:
            prefix = held + footprint.chunk(columns, footprint.n_layers - 1)
            edits = prefix + count * footprint.edited_row(columns)
        return max(drawn, sequences.states(footprint, columns), sequences.edited * edits)

    def step(columns: int) -> int:
        one = footprint.edited_sequence(columns) if everywhere else footprint.edited_row(columns)
        return sequences.edited * one

    return Need(lambda columns: rows(columns, 1), lambda columns: rows(columns, n_questions), step)


# -- operations of one example -------------------------------------------------------------------------------------


def neuron_operations(method: Any, shape: Shape, tokens: int, sequences: Sequences = ONE) -> float | None:
    """Integrated gradients: the forward, then forward and backward (as much again) of every row through the blocks
    above its layer. None for methods that this page does not know."""
    footprint = shape.footprint
    layers = footprint.n_layers
    if isinstance(method, RandomNeurons):
        return 50.0 * layers * footprint.n_neurons * len(method.seeds)
    forward = shape.forward_operations(tokens)
    if shape.residual is not None and isinstance(method, ResidualMethod):
        extra = sequences.read if sequences.read > 1 else 0
        return (1 + extra) * forward + method.operations(shape.residual, tokens)
    if not isinstance(method, IntegratedGradients):
        return None
    if method.path(footprint).positions == "last":
        blocks = (method.n_steps + 1) * layers * (layers - 1) / 2
        return sequences.forwards() * forward + sequences.edited * 2 * blocks * shape.block_operations(tokens)
    return forward * (sequences.forwards() + sequences.edited * 1.5 * layers * (method.n_steps + 2))


def faithfulness_operations(
    shape: Shape, tokens: int, n_questions: int, sequences: Sequences = ONE, positions: str = "last"
) -> float:
    """The forward, and one token more for every question; at all positions one forward more."""
    forward = shape.forward_operations(tokens)
    row = shape.footprint.n_layers * shape.block_operations(tokens) if positions == "last" else forward
    return sequences.forwards() * forward + n_questions * sequences.edited * row


def batch_shapes(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(examples, columns) of every batch."""
    return [(len(batch), max(lengths[row] for row in batch)) for batch in batches]
