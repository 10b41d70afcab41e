"""Cost of neuron methods, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.passes.costs import ONE, Sequences, Shape
from twinlens.callbacks.passes.memory import Need
from twinlens.models.footprint import Footprint


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
