"""Cost of solving with the head's curvature, from shapes alone.

Self-influence takes blocks of the whole working memory.
"""

from __future__ import annotations

from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.curvature import ggn_row_bytes
from twinlens.attribution.instance.direct import direct_block_bytes
from twinlens.attribution.instance.dual import dual_block_bytes
from twinlens.attribution.instance.head_gradients import DifferentiableHead
from twinlens.attribution.instance.kronecker import (
    kronecker_block_bytes,
    kronecker_bytes_held,
    kronecker_plan,
    kronecker_row_bytes,
)
from twinlens.attribution.instance.solve import SolverPlan


def kronecker_cost(head: DifferentiableHead, sizes: PassSizes) -> InstanceCost:
    """(EK-)FAC: the factors, then rotated gradients."""
    plan, held = kronecker_plan(head), kronecker_bytes_held(head)
    per_row, per_query = kronecker_block_bytes(head)
    memory = max(
        plan.memory,
        held + min(sizes.budget - plan.memory // 2, kronecker_row_bytes(head) * sizes.n_train),
        held + min(sizes.budget, per_query * sizes.n_train),
        held + sizes.streamed(per_query, per_row, held),
    )
    rotation = 4.0 * sum(layer.weight.numel() * (layer.in_features + layer.out_features) for layer in head.layers)
    n_train, n_test = sizes.n_train, sizes.n_test
    operations = plan.operations + rotation * (n_train + n_test) + 2.0 * head.n_parameters * n_train * n_test
    return InstanceCost(memory, operations)


def solver_cost(head: DifferentiableHead, solver: str, plan: SolverPlan, sizes: PassSizes) -> InstanceCost:
    """The matrix over parameters (`direct`) or over the rows of the GGN (`dual`), factorised."""
    n_train = sizes.n_train
    if solver == "direct":
        size, held = head.n_parameters, head.n_parameters**2 * 8
        per_row, per_query = direct_block_bytes(head)
        prepared = ggn_row_bytes(head) * n_train
        pair = 2.0 * size
    else:
        size = n_train * (head.n_classes - 1)
        held = size * size * 8 + (plan.memory - 2 * size * size * 8) // 2
        per_row, per_query = dual_block_bytes(head, n_train)
        prepared = size * size * 8
        pair = 2.0 * size + 2.0 * head.widths
    memory = max(
        plan.memory,
        held + min(sizes.budget - plan.memory // 2, prepared),
        held + min(sizes.budget - plan.memory // 2, per_query * n_train),
        held + sizes.streamed(per_query, per_row, held),
    )
    operations = plan.operations + 2.0 * size * size * sizes.n_test + pair * n_train * sizes.n_test
    return InstanceCost(memory, operations, f"solver {solver}")
