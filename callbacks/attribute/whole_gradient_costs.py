"""Cost of scores from whole gradients, from shapes alone: the factors' passes and one pass per block of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from twinlens.attribution.gradients.fisher import rotation_operations, solution_operations
from twinlens.attribution.instance.whole_gradients import needs_factors
from twinlens.attribution.protocols import LinearLayer
from twinlens.callbacks.attribute.whole_gradient_factors import factor_bytes
from twinlens.callbacks.attribute.whole_gradient_inputs import gradient_need
from twinlens.callbacks.attribute.whole_gradient_scores import SEGMENTS, test_blocks
from twinlens.callbacks.passes.costs import Shape, batch_shapes
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import rows_per_shard, segments_of
from twinlens.models.linear_layers import linear_layers


@dataclass(frozen=True)
class WholeWork:
    """Operations of the passes over whole gradients, or how many of them a second does.

    Attributes:
        covariances, eigenvalues: of the factors' passes over the train split.
        scoring: forward, backward and gradients of the train split, once for each block of tests.
        products: of these gradients with those of the tests.
        decompositions: of the factors.
    """

    covariances: float
    eigenvalues: float
    scoring: float
    products: float
    decompositions: float

    def seconds(self, rates: WholeWork) -> float:
        """Time at the rates of another one; what takes no operations takes no time."""
        pairs = zip(astuple(self), astuple(rates), strict=True)
        return sum(operations / rate for operations, rate in pairs if operations)


@dataclass(frozen=True)
class LayerCost:
    """What scores from whole gradients take.

    Attributes:
        memory: peak in bytes.
        disk: bytes.
        work: operations.
        remark: layers, and blocks of tests.
    """

    memory: int
    disk: int
    work: WholeWork
    remark: str


def layer_cost(session: Session, shape: Shape, method: Any, lengths: Mapping[str, Sequence[int]]) -> LayerCost:
    """Memory, disk and operations of a method's passes.

    Args:
        lengths: of the splits, tokens of every row.

    Raises:
        UserError: no layer, a curvature that is not built layer by layer, or a test that does not fit the budget.
    """
    layers = linear_layers(shape.lm, shape.head, method.params)
    factors = needs_factors(method)
    n_train, n_test = len(lengths["train"]), len(lengths[session.split])
    blocks = test_blocks(session, layers, factors, n_test)
    parameters = sum(layer.n_parameters for layer in layers)
    n_classes, read = len(session.data.label_names), session.sequences.read
    work = whole_work(layers, shape, method, n_classes, lengths["train"], n_test, len(blocks), read)
    rows = session.data.splits["train"]
    shards = segments_of(rows, session.eval_batch_size, rows_per_shard(n_train), SEGMENTS)
    need = gradient_need(layers, shape.footprint, session.sequences)
    batches = batch_shapes([batch for segment in shards for batch in segment], list(lengths["train"]))
    working = max(need.peak(n, columns, session.memory_budget // 4) for n, columns in batches)
    held = 4 * parameters * max(stop - start for start, stop in blocks)
    fixed = factor_bytes(layers) if factors else 0
    disk = n_test * method.top_k * 24 * (len(shards) + 1) + len(blocks) * n_train * 32 + n_train * 40 + fixed
    remark = f"{len(layers)} layers, {len(blocks)} block{'s' if len(blocks) > 1 else ''} of tests"
    return LayerCost(held + fixed + working + session.memory_budget // 8, disk, work, remark)


def whole_work(
    layers: Sequence[LinearLayer],
    shape: Shape,
    method: Any,
    n_classes: int,
    lengths: Sequence[int],
    n_test: int,
    n_blocks: int,
    read: int,
) -> WholeWork:
    """Operations over a train split.

    Every train example runs forward and backward, its gradients are formed and multiplied with those of the tests, once
    for each block of tests; for the first they are rotated too, as self-influence needs. The factors take a backward
    pass for each row of the Fisher matrix, twice for EK-FAC.

    Args:
        lengths: tokens of every train example.
        read: sequences of an example.
    """
    factors = needs_factors(method)
    parameters = sum(layer.n_parameters for layer in layers)
    forward = read * sum(map(shape.forward_operations, lengths))
    tokens = read * sum(lengths)
    rotation = 2.0 * tokens * sum(layer.d_in**2 + layer.d_out**2 for layer in layers)
    formed = 2.0 * tokens * parameters
    rotations = rotation_work(layers, [read * length for length in lengths], n_test, n_blocks) if factors else 0.0
    scoring = n_blocks * (2 * forward + formed) + rotations
    products = 2.0 * parameters * len(lengths) * n_test
    if not factors:
        return WholeWork(0.0, 0.0, scoring, products, 0.0)
    backwards = 1 if method.fisher == "empirical" else max(1, n_classes - 1)
    covariances = forward * (1 + backwards) + backwards * rotation
    corrected = method.curvature == "ekfac"
    eigenvalues = corrected * (covariances + backwards * formed)
    decompositions = sum(10.0 * (layer.d_in**3 + layer.d_out**3) for layer in layers)
    return WholeWork(covariances, eigenvalues, scoring, products, decompositions)


def rotation_work(layers: Sequence[LinearLayer], lengths: Sequence[int], n_test: int, n_blocks: int) -> float:
    """Operations of rotating train gradients for the first block of tests, and these or the tests for each later one.

    See `HeldTests`; `lengths` are tokens of every train example, of all its sequences.
    """
    counts = Counter(lengths)  # few lengths, many examples
    sides = [(layer.d_in, layer.d_out) for layer in layers]
    train = [sum(n * rotation_operations(length, *side) for length, n in counts.items()) for side in sides]
    tests = [n_test / n_blocks * solution_operations(*side) for side in sides]
    return sum(train) + (n_blocks - 1) * sum(map(min, train, tests))
