"""Cost of scores over stored gradients, from shapes alone: the passes that store rows, the solve, the products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlens.attribution.gradients.blocks import UNPROJECTED
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.projected import BYTES_PER_NUMBER
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.storage import bytes_per_row
from twinlens.attribution.instance.costs import Block, stream_memory
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.needed_memory import Need
from twinlens.callbacks.attribute.stored_gradient_pass import Wanted, gradient_need
from twinlens.callbacks.attribute.stored_gradients import PCA_ROWS
from twinlens.callbacks.passes.costs import Shape
from twinlens.models.linear_layers import linear_layers


@dataclass(frozen=True)
class RowsCost:
    """Scores over stored rows.

    Attributes:
        disk: bytes of the rows of both splits, with those of the curvature.
        memory: peak of the scores in bytes; mapped rows are the system's.
        need: memory of an example in the pass that stores the train split's.
        gradient_operations: of the passes that store the gradients of both splits' losses, and choose projections.
        fisher_operations: of the pass that stores the curvature's rows.
        rank: rows of an example in the curvature.
        host_operations: of the solve and the products.
        remark: size of a row, and the solver where there is a choice.
    """

    disk: int
    memory: int
    need: Need
    gradient_operations: float
    fisher_operations: float
    rank: int
    host_operations: float
    remark: str


def rows_cost(
    method: OverLayers, shape: Shape, train: Sequence[int], test: Sequence[int], n_classes: int, tests: int,
    budget: int, read: int = 1, window: int | None = None,
) -> RowsCost:  # fmt: skip
    """A method that reads stored rows, none of which are there yet.

    Args:
        method: gradient similarity or influence.
        shape: of the model.
        train, test: tokens of each example.
        n_classes: of the model's scores; the rows of a GGN are one fewer per example.
        tests: tests that are scored at a time.
        budget: bytes.
        read: sequences of an example.
        window: tokens of the windows of longer texts, see `Session.window`.

    Raises:
        UserError: no layer matches, or no solver fits the budget.
    """
    layers = linear_layers(shape.lm, shape.head, method.params)
    sides = [method.gradients.projection.sides(layer) for layer in layers]
    numbers, n_rows = sum(k_out * k_in for k_out, k_in in sides), sum(train) if method.per == "token" else len(train)
    losses = method.curvature_losses
    own = losses == "expectation" or (losses == "loss" and method.per == "token")
    rank = n_classes - 1 if losses == "expectation" else 1
    # the forward, and twice as much backward for every row of an example
    gradients = 3 * sum(map(shape.forward_operations, [*train, *test]))
    if method.gradients.projection.kind == "pca":
        sampled = min(1.0, PCA_ROWS / len(train))
        squares = 2.0 * sum(train) * sum(layer.d_in**2 + layer.d_out**2 for layer in layers)
        gradients += sampled * (3 * sum(map(shape.forward_operations, train)) + squares)
    fisher = own * (1 + 2 * rank) * sum(map(shape.forward_operations, train))
    solve = method.solve_rows(sides, len(train), rank, budget)
    layout, options = row_layout([layer.name for layer in layers], sides), method.gradients
    wanted = Wanted(options, "train"), Wanted(options, "test", explained=True), Wanted(options, "train", "expectation")
    pass_ = RowPass(layers, [UNPROJECTED] * len(layers), sides, wanted[0].per)
    put, explained, curved = (bytes_per_row(one.form, layout) for one in wanted)
    block = Block(n_rows, numbers * BYTES_PER_NUMBER, 0, solve.held + wanted[0].form.working_bytes(layout))
    return RowsCost(
        disk=n_rows * put + len(test) * explained + own * len(train) * rank * curved,
        memory=max(solve.prepared, block.bytes_held + stream_memory(block, tests, budget)),
        need=gradient_need(shape.footprint, read, pass_, 1, wanted[0].form, window),
        gradient_operations=gradients,
        fisher_operations=fisher,
        rank=rank,
        host_operations=solve.operations + 2.0 * numbers * n_rows * len(test),
        remark=f"{numbers} numbers a row" + (f", solver {solve.solver}" if solve.solver else ""),
    )
