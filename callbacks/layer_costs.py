"""What scores from whole gradients cost, from shapes alone: the factors' passes and one pass per block of tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attribution.base import LinearLayer
from attribution.gradients.settings import needs_factors
from callbacks.costs import Shape, batch_shapes
from callbacks.instance_costs import InstanceCost
from callbacks.layer_factors import factor_bytes
from callbacks.layer_inputs import gradient_need
from callbacks.layer_scores import SEGMENTS, test_blocks
from callbacks.segments import segments_of
from callbacks.session import Session, rows_per_shard
from models.linear_layers import linear_layers


def layer_cost(
    session: Session, shape: Shape, method: Any, lengths: Mapping[str, Sequence[int]]
) -> tuple[InstanceCost, int]:
    """Memory and operations of a method's passes, and bytes on the disk.

    Every train example runs forward and backward, its gradients are formed and multiplied with those of the tests, once
    for each block of tests; the factors take a backward pass for each row of the Fisher matrix, twice for EK-FAC.

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
    read = session.sequences.read
    forward = read * sum(map(shape.forward_operations, lengths["train"]))
    tokens = read * sum(lengths["train"])
    scored = len(blocks) * (2 * forward + 2.0 * tokens * parameters) + 2.0 * parameters * n_train * n_test
    rotation = 2.0 * sum(layer.d_in**2 + layer.d_out**2 for layer in layers)
    own = tokens * (rotation if factors else 0.0)
    operations = (
        scored + own + (_factor_operations(session, method, layers, forward, tokens, rotation) if factors else 0)
    )
    rows = session.data.splits["train"]
    shards = segments_of(rows, session.eval_batch_size, rows_per_shard(n_train), SEGMENTS)
    need = gradient_need(layers, shape.footprint, session.sequences)
    batches = batch_shapes([batch for segment in shards for batch in segment], list(lengths["train"]))
    working = max(need.peak(n, columns, session.memory_budget // 4) for n, columns in batches)
    held = 4 * parameters * max(stop - start for start, stop in blocks)
    fixed = factor_bytes(layers) if factors else 0
    disk = n_test * method.top_k * 24 * (len(shards) + 1) + len(blocks) * n_train * 32 + n_train * 40 + fixed
    remark = f"{len(layers)} layers, {len(blocks)} block{'s' if len(blocks) > 1 else ''} of tests"
    return InstanceCost(held + fixed + working + session.memory_budget // 8, operations, remark), disk


def _factor_operations(
    session: Session, method: Any, layers: Sequence[LinearLayer], forward: float, tokens: int, rotation: float
) -> float:
    """Covariances, decompositions and, for EK-FAC, squares of rotated gradients."""
    backwards = 1 if method.fisher == "empirical" else max(1, len(session.data.label_names) - 1)
    passes = 1 + (method.curvature == "ekfac")
    decomposed = sum(10.0 * (layer.d_in**3 + layer.d_out**3) for layer in layers)
    formed = 2.0 * tokens * sum(layer.n_parameters for layer in layers) * (passes - 1)
    return passes * forward * (1 + backwards) + backwards * (passes * tokens * rotation + formed) + decomposed
