"""Generalised Gauss-Newton matrix (GGN) of the mean train loss in the head's parameters.

With J the derivative of the logits, the GGN is 1/n Σ_i J_iᵀ A_i J_i, A = diag(p) − p pᵀ; for cross-entropy it is also
the Fisher matrix, it is positive semi-definite, and for a linear head it is the Hessian. Each A has rank
classes − 1 and is split as B Bᵀ, so that the GGN is 1/n GᵀG with n·(classes − 1) rows G, gradients of the head for
the cotangents in B, and can be handled through the rows' Gram matrix G Gᵀ without ever writing out P × P numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from twinlens.attribution.gradients.cotangents import softmax_root
from twinlens.attribution.instance.factors import LayerFactors, compact, dense, gram, squared_norms
from twinlens.attribution.instance.head_gradients import DifferentiableHead, head_factors, head_logits


def ggn_root(head: DifferentiableHead, features: Tensor) -> list[LayerFactors]:
    """The rows G of the GGN n·H = GᵀG, factored, classes − 1 of them per example of `features` [examples, hidden]."""
    return compact(head_factors(head, features, softmax_root(head_logits(head, features).softmax(-1))))


def blocks(n: int, bytes_per_row: int, memory_budget: int) -> Iterator[tuple[int, int]]:
    """Cut n rows into blocks whose working memory stays under the budget."""
    size = max(1, memory_budget // max(1, bytes_per_row))
    for start in range(0, n, size):
        yield start, min(start + size, n)


def ggn_trace(head: DifferentiableHead, features: Tensor, memory_budget: int) -> float:
    """Trace of the GGN of the mean loss, the sum of its eigenvalues, from squared row lengths alone.

    Args:
        head: the head.
        features: head inputs of the train split, [examples, hidden] or [examples, sequences, hidden].
        memory_budget: bytes of working memory.
    """
    per_row = 4 * head.widths * head.n_classes * 8
    total = sum(
        float(squared_norms(ggn_root(head, features[start:stop])).sum())
        for start, stop in blocks(len(features), per_row, memory_budget)
    )
    return total / len(features)


def ggn_row_bytes(head: DifferentiableHead) -> int:
    """Working memory per example of `ggn_matrix`: classes − 1 dense rows and the factors they are made of."""
    dense_rows = head.dense_copies * head.n_parameters * (head.n_classes - 1)
    return (dense_rows + head.n_classes * head.factor_numbers) * 8


def ggn_matrix(head: DifferentiableHead, features: Tensor, memory_budget: int) -> Tensor:
    """The GGN of the mean loss, [P, P], float64.

    Args:
        head: the head.
        features: head inputs of the train split, [examples, hidden] or [examples, sequences, hidden].
        memory_budget: bytes of working memory beside the matrix.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.curvature import ggn_matrix, ggn_trace
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> train, _ = example_head_inputs()
        >>> head = differentiable_head(train.head, "head")
        >>> matrix = ggn_matrix(head, train.features, BUDGET)
        >>> matrix.shape, bool(abs(matrix.trace() - ggn_trace(head, train.features, BUDGET)) < 1e-9)
        (torch.Size([4, 4]), True)
    """
    matrix = torch.zeros(head.n_parameters, head.n_parameters, dtype=torch.float64, device=features.device)
    for start, stop in blocks(len(features), ggn_row_bytes(head), memory_budget):
        rows = dense(ggn_root(head, features[start:stop]))
        matrix.addmm_(rows.T, rows)
        del rows  # else they would stand beside the next block's
    return matrix.div_(len(features))


def ggn_gram(root: Sequence[LayerFactors], memory_budget: int) -> Tensor:
    """Inner products of the GGN's rows, G Gᵀ, [R, R], R = examples · (classes − 1)."""
    examples, rows = root[0].deltas.shape[:2]
    size = examples * rows
    matrix = torch.empty(size, size, dtype=torch.float64, device=root[0].deltas.device)
    # no more than the matrix itself: its factor will take as much
    for start, stop in blocks(examples, 3 * rows * size * 8, min(memory_budget, matrix.numel() * 8)):
        matrix[start * rows : stop * rows] = gram([f.examples(start, stop) for f in root], root)
    return matrix
