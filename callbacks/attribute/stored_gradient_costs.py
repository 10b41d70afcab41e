"""Cost of scores over stored gradients, from shapes alone: the passes that store rows, the solve, the products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.gradients.projected import BYTES_PER_NUMBER
from twinlens.attribution.gradients.projected_curvature import BLOCK_BYTES, choose_ggn_solver, ggn_bytes
from twinlens.callbacks.attribute.instance_costs import _Blocks, stream_memory
from twinlens.callbacks.attribute.stored_gradients import PCA_ROWS
from twinlens.callbacks.passes.costs import Shape
from twinlens.models.linear_layers import linear_layers


@dataclass(frozen=True)
class RowsCost:
    """Scores over stored rows.

    Attributes:
        numbers: of a row.
        disk: bytes of the rows of both splits, with those of the curvature.
        memory: peak of the scores in bytes; mapped rows are the system's.
        gradient_operations: of the passes that store the gradients of both splits' losses, and choose projections.
        fisher_operations: of the pass that stores the curvature's rows.
        rank: rows of an example in the curvature.
        host_operations: of the solve and the products.
        remark: size of a row, and the solver where there is a choice.
    """

    numbers: int
    disk: int
    memory: int
    gradient_operations: float
    fisher_operations: float
    rank: int
    host_operations: float
    remark: str


def rows_cost(
    method: Any, shape: Shape, train: Sequence[int], test: Sequence[int], n_classes: int, tests: int, budget: int
) -> RowsCost:
    """A method that reads stored rows, none of which are there yet.

    Args:
        method: gradient similarity or influence.
        shape: of the model.
        train, test: tokens of each example.
        n_classes: of the model's scores; the rows of a GGN are one fewer per example.
        tests: tests that are scored at a time.
        budget: bytes.

    Raises:
        UserError: no layer matches, or no solver fits the budget.
    """
    layers = linear_layers(shape.lm, shape.head, method.params)
    sides = [method.gradients.projection.sides(layer) for layer in layers]
    sizes = [k_out * k_in for k_out, k_in in sides]
    numbers, n_rows = sum(sizes), sum(train) if method.per == "token" else len(train)
    curvature = getattr(method, "curvature", None)
    expected = curvature == "ggn" or (curvature in ("kfac", "ekfac") and method.fisher == "expectation")
    own = expected or (method.per == "token" and curvature in ("kfac", "ekfac", "datainf"))
    rank = n_classes - 1 if expected else 1
    fisher_rows = len(train) * rank
    # the forward, and twice as much backward for every row of an example
    gradients = 3 * sum(map(shape.forward_operations, [*train, *test]))
    if method.gradients.projection.kind == "pca":
        sampled = min(1.0, PCA_ROWS / len(train))
        squares = 2.0 * sum(train) * sum(layer.d_in**2 + layer.d_out**2 for layer in layers)
        gradients += sampled * (3 * sum(map(shape.forward_operations, train)) + squares)
    fisher = own * (1 + 2 * rank) * sum(map(shape.forward_operations, train))
    held, solving, remark, prepared = 0, 0.0, f"{numbers} numbers a row", 0
    if curvature == "ggn":
        solver = choose_ggn_solver(numbers, fisher_rows, method.solver, budget)
        side = numbers if solver == "direct" else fisher_rows
        held, prepared = 8 * side**2, ggn_bytes(numbers, fisher_rows)[solver]
        solving = 2.0 * fisher_rows * numbers * side + side**3 / 3 + 2.0 * len(train) * side**2
        remark += f", solver {solver}"
    elif curvature == "datainf":
        held = 8 * sum(size**2 for size in sizes)
        prepared, solving = held + BLOCK_BYTES, 4.0 * len(train) * sum(size**2 for size in sizes)
    elif curvature in ("kfac", "ekfac"):
        held = 8 * sum(k_out**2 + k_in**2 + k_out * k_in for k_out, k_in in sides)
        prepared = held + BLOCK_BYTES
        solving = 8.0 * len(train) * (1 + rank) * sum(a * b * (a + b) for a, b in sides)
    blocks = _Blocks(n_rows, numbers * BYTES_PER_NUMBER, 0, held)
    return RowsCost(
        numbers, 4 * numbers * (n_rows + len(test) + own * fisher_rows),
        max(prepared, held + stream_memory(blocks, tests, budget)),
        gradients, fisher, rank, solving + 2.0 * numbers * n_rows * len(test), remark,
    )  # fmt: skip
