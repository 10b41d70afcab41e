"""Cost of scores from whole gradients, from shapes alone: the factors' passes and one pass per block of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from twinlens.attribution.gradients.fisher import rotation_operations, solution_operations
from twinlens.attribution.protocols import LinearLayer
from twinlens.callbacks.passes.costs import Shape

EXPECTED_STEPS = 15
"""Of conjugate gradients for a plan: a relative residual of 10⁻³ took 13 on the demo at a damping of 10⁴."""


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
    factors = method.needs_factors
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
    corrected = method.curvature != "kfac"
    eigenvalues = corrected * (covariances + backwards * formed)
    decompositions = sum(10.0 * (layer.d_in**3 + layer.d_out**3) for layer in layers)
    return WholeWork(covariances, eigenvalues, scoring, products, decompositions)


def step_work(
    layers: Sequence[LinearLayer],
    shape: Shape,
    method: Any,
    n_classes: int,
    lengths: Sequence[int],
    n_tests: int,
    read: int,
) -> WholeWork:
    """Operations of a product of the curvature with the vectors of some tests; arguments as of `whole_work`.

    A forward, for each row of an example a backward and its gradient, formed twice and multiplied with every vector
    twice.
    """
    parameters = sum(layer.n_parameters for layer in layers)
    forward = read * sum(map(shape.forward_operations, lengths))
    backwards = 1 if method.fisher == "empirical" else max(1, n_classes - 1)
    formed = 4.0 * read * sum(lengths) * parameters
    products = 4.0 * parameters * len(lengths) * n_tests
    return WholeWork(forward * (1 + backwards) + backwards * formed, 0.0, 0.0, backwards * products, 0.0)


def rotation_work(layers: Sequence[LinearLayer], lengths: Sequence[int], n_test: int, n_blocks: int) -> float:
    """Operations of rotating train gradients for the first block of tests, and these or the tests for each later one.

    See `HeldTests`; `lengths` are tokens of every train example, of all its sequences.
    """
    counts = Counter(lengths)  # few lengths, many examples
    sides = [(layer.d_in, layer.d_out) for layer in layers]
    train = [sum(n * rotation_operations(length, *side) for length, n in counts.items()) for side in sides]
    tests = [n_test / n_blocks * solution_operations(*side) for side in sides]
    return sum(train) + (n_blocks - 1) * sum(map(min, train, tests))
