"""Cost of an instance method's pass, from shapes alone: peak memory and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twinlens.attribution.bridge.neuron_instances import NeuronInstances
from twinlens.attribution.bridge.shared_sums import BYTES_PER_CHUNK
from twinlens.attribution.instance.curvature import ggn_row_bytes
from twinlens.attribution.instance.direct import direct_block_bytes
from twinlens.attribution.instance.dual import dual_block_bytes
from twinlens.attribution.instance.gradsim import GradientSimilarity, similarity_block_bytes
from twinlens.attribution.instance.head_gradients import DifferentiableHead, differentiable_head
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.kronecker import (
    kronecker_block_bytes,
    kronecker_bytes_held,
    kronecker_plan,
    kronecker_row_bytes,
)
from twinlens.attribution.instance.random_instances import RandomInstances
from twinlens.attribution.instance.similarity import HiddenSimilarity, hidden_block_bytes
from twinlens.attribution.instance.solve import SolverPlan
from twinlens.attribution.instance.stream import BYTES_PER_PAIR, BYTES_PER_PRODUCT, block_row_bytes, block_sizes
from twinlens.attribution.instance.tracin import TracIn


@dataclass(frozen=True)
class InstanceCost:
    """Memory and operations of an instance method's pass over n_test examples.

    Attributes:
        memory: peak in bytes, beside the cached features.
        operations: in the method's type; None where the method is not known here.
        remark: the solver, where there is a choice.
    """

    memory: int
    operations: float | None
    remark: str = ""


@dataclass(frozen=True)
class _Blocks:
    n_train: int
    bytes_per_query: int
    bytes_per_row: int
    bytes_held: int


def stream_memory(blocks: Any, n_tests: int, budget: int, kept: tuple[int, int] | None = None) -> int:
    """One block of tests beside one block of train rows and their scores.

    Args:
        kept: bytes that are left of a test and of a train row once their gradients are taken; None: all.
    """
    tests, rows = block_sizes(blocks, n_tests, budget)
    if kept is not None:
        left = max(kept[1] + tests * BYTES_PER_PRODUCT, tests * BYTES_PER_PAIR)
        return max(tests * blocks.bytes_per_query, tests * kept[0] + rows * max(blocks.bytes_per_row, left))
    return tests * blocks.bytes_per_query + rows * block_row_bytes(blocks, tests)


def instance_cost(
    method: Any,
    head: Any,
    n_train: int,
    n_test: int,
    tests: int,
    budget: int,
    sequences: int = 1,
    checkpoints: int = 1,
) -> InstanceCost:
    """An instance method's pass.

    Gradient similarity and TracIn: blocks of factored gradients and their scores. Influence: the curvature's matrix and
    its factor beside each other while factorising, then the factor beside the blocks; self-influence takes blocks of
    the whole working memory. An iterative solver, which takes what it is given, and a method that is not known here:
    the whole budget.

    Args:
        tests: tests that are scored at a time, the rows of a shard.
        sequences: sequences per example: 1, or the number of choices.
        checkpoints: checkpoints that TracIn reads.

    Raises:
        UserError: no solver fits the budget.
    """
    if isinstance(method, RandomInstances):
        blocks = _Blocks(n_train, 64, 64, 0)
        return InstanceCost(stream_memory(blocks, tests, budget), 50.0 * n_train * n_test)
    if isinstance(method, NeuronInstances):
        return _shared_neurons_cost(method, n_train, n_test, tests, budget)
    if not isinstance(method, GradientSimilarity | TracIn | HiddenSimilarity | Influence):
        return InstanceCost(budget, None)
    differentiable = differentiable_head(head, getattr(method, "params", "weight"), sequences)
    if isinstance(method, HiddenSimilarity):
        hidden = differentiable.layers[0].in_features
        per_row = hidden_block_bytes(hidden, differentiable)
        blocks = _Blocks(n_train, per_row, per_row, 0)
        return InstanceCost(stream_memory(blocks, tests, budget), 2.0 * n_train * n_test * hidden)
    if isinstance(method, GradientSimilarity | TracIn) or method.curvature == "identity":
        times = checkpoints if isinstance(method, TracIn) else 1
        per_row = similarity_block_bytes(differentiable)
        kept = 8 * differentiable.widths
        # then self-influence
        memory = max(
            stream_memory(_Blocks(n_train, times * per_row, per_row, 0), tests, budget, (times * kept, kept)),
            min(budget, 8 * n_train * differentiable.squares_numbers),
        )
        pair = differentiable.pair_operations(1)
        return InstanceCost(memory, times * n_train * (n_test * pair + 4.0 * tests * differentiable.widths))
    if method.curvature in ("kfac", "ekfac"):
        return _kronecker_cost(differentiable, n_train, n_test, tests, budget)
    solver, plan = method.choose(differentiable, n_train, budget, method.is_exact(differentiable))
    if solver in ("cg", "lissa"):
        return InstanceCost(budget, None, f"solver {solver}")
    return _solver_cost(differentiable, solver, plan, n_train, n_test, tests, budget)


def _shared_neurons_cost(method: NeuronInstances, n_train: int, n_test: int, tests: int, budget: int) -> InstanceCost:
    """NA-Instances: the train lists with their gains, a chunk of look-ups and blocks of lists.

    How many neurons stand in most lists shows only in the lists: a few hundred are assumed, whose dense product takes
    most of the operations.
    """
    common = 512
    per_list = 16 * (common + 1) + 64 * method.train_list
    held = n_train * method.train_list * 12 + BYTES_PER_CHUNK
    memory = held + stream_memory(_Blocks(n_train, per_list, per_list, held), tests, budget)
    return InstanceCost(memory, 2.0 * common * n_train * n_test)


def _kronecker_cost(head: DifferentiableHead, n_train: int, n_test: int, tests: int, budget: int) -> InstanceCost:
    plan, held = kronecker_plan(head), kronecker_bytes_held(head)
    per_row, per_query = kronecker_block_bytes(head)
    memory = max(
        plan.memory,
        held + min(budget - plan.memory // 2, kronecker_row_bytes(head) * n_train),
        held + min(budget, per_query * n_train),
        held + stream_memory(_Blocks(n_train, per_query, per_row, held), tests, budget),
    )
    rotation = 4.0 * sum(layer.weight.numel() * (layer.in_features + layer.out_features) for layer in head.layers)
    operations = plan.operations + rotation * (n_train + n_test) + 2.0 * head.n_parameters * n_train * n_test
    return InstanceCost(memory, operations)


def _solver_cost(
    head: DifferentiableHead, solver: str, plan: SolverPlan, n_train: int, n_test: int, tests: int, budget: int
) -> InstanceCost:
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
    workspace = budget - plan.memory // 2
    own = per_query * n_train
    memory = max(
        plan.memory,
        held + min(workspace, prepared),
        held + min(workspace, own),
        held + stream_memory(_Blocks(n_train, per_query, per_row, held), tests, budget),
    )
    operations = plan.operations + 2.0 * size * size * n_test + pair * n_train * n_test
    return InstanceCost(memory, operations, f"solver {solver}")
