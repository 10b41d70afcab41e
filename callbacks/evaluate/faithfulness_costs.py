"""Cost of the faithfulness tests, from shapes alone."""

from __future__ import annotations

from functools import partial

from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.callbacks.passes.costs import ONE, Sequences, Shape
from twinlens.callbacks.passes.memory import Need
from twinlens.models.footprint import Footprint


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


def faithfulness_operations(
    shape: Shape, tokens: int, n_questions: int, sequences: Sequences = ONE, positions: str = "last"
) -> float:
    """The forward, and one token more for every question; at all positions one forward more."""
    forward = shape.forward_operations(tokens)
    row = shape.footprint.n_layers * shape.block_operations(tokens) if positions == "last" else forward
    return sequences.forwards() * forward + n_questions * sequences.edited * row
