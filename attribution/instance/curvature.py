"""Curvature of the mean train loss in the head's parameters: generalised Gauss-Newton (GGN) and exact Hessian.

With J the derivative of the logits, the GGN is 1/n Σ_i J_iᵀ A_i J_i, A = diag(p) − p pᵀ; for cross-entropy it is also
the Fisher matrix, it is positive semi-definite, and for a linear head it is the Hessian. Each A has rank
classes − 1 and is split as B Bᵀ, so that the GGN is 1/n GᵀG with n·(classes − 1) rows G, gradients of the head for
the cotangents in B, and can be handled through the rows' Gram matrix G Gᵀ without ever writing out P × P numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from attribution.base import HeadInputs
from attribution.instance.head_gradients import (
    DifferentiableHead,
    LayerFactors,
    dense,
    gram,
    head_factors,
    head_logits,
    run_recorded,
    squared_norms,
)


def softmax_root(probabilities: Tensor) -> Tensor:
    """Split diag(p) − p pᵀ as B Bᵀ, in closed form and without cancellation.

    With s = √p, diag(p) − p pᵀ = diag(s)(I − s sᵀ)diag(s). The Householder reflection I − u uᵀ/(1 + s_C), u = s + e_C,
    sends s to −e_C, so its first C − 1 columns are an orthonormal basis of what I − s sᵀ projects onto.

    Args:
        probabilities: [examples, classes].

    Returns:
        Bᵀ, [examples, classes − 1, classes]: each row is a cotangent of the logits.
    """
    s = probabilities.sqrt()
    u = s.clone()
    u[:, -1] += 1
    reflection = torch.eye(s.shape[1], dtype=s.dtype, device=s.device) - u[:, :, None] * u[:, None, :] / u[:, -1:, None]
    return reflection[:, :-1] * s[:, None, :]


def ggn_root(head: DifferentiableHead, features: Tensor) -> list[LayerFactors]:
    """The rows G of the GGN n·H = GᵀG, factored, classes − 1 of them per example."""
    return head_factors(head, features, softmax_root(head_logits(head, features).softmax(-1)))


def blocks(n: int, bytes_per_row: int, memory_budget: int) -> Iterator[tuple[int, int]]:
    """Cut n rows into blocks whose working memory stays under the budget."""
    size = max(1, memory_budget // max(1, bytes_per_row))
    for start in range(0, n, size):
        yield start, min(start + size, n)


def ggn_trace(head: DifferentiableHead, features: Tensor, memory_budget: int) -> float:
    """Trace of the GGN of the mean loss, the sum of its eigenvalues, from squared row lengths alone."""
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
    """The GGN of the mean loss, [P, P]; `memory_budget` in bytes bounds the working memory beside it."""
    matrix = torch.zeros(head.n_parameters, head.n_parameters, dtype=torch.float64, device=features.device)
    for start, stop in blocks(len(features), ggn_row_bytes(head), memory_budget):
        rows = dense(ggn_root(head, features[start:stop]))
        matrix.addmm_(rows.T, rows)
        del rows  # else they would stand beside the next block's
    return matrix.div_(len(features))


def ggn_gram(root: Sequence[LayerFactors], memory_budget: int) -> Tensor:
    """Inner products of the GGN's rows, G Gᵀ, [R, R], R = examples · (classes − 1)."""
    examples, rows, _ = root[0].deltas.shape
    size = examples * rows
    matrix = torch.empty(size, size, dtype=torch.float64, device=root[0].deltas.device)
    for start, stop in blocks(examples, 3 * rows * size * 8, memory_budget):
        matrix[start * rows : stop * rows] = gram([f.examples(start, stop) for f in root], root)
    return matrix


def exact_hessian(head: DifferentiableHead, train: HeadInputs, memory_budget: int) -> Tensor:
    """The Hessian of the mean cross-entropy, [P, P].

    Moving weight (o, k) of layer m moves that layer's output o by a_m[k]. So with D the derivative of the per-example
    gradient δ_l ⊗ a_l with respect to an offset of output o of layer m, the columns (m, o, ·) are Σ_i D_i ⊗ a_m,i: one
    forward-mode derivative per output unit, not per parameter, and one matrix product. Blocks are taken for layers l
    that run after m or are m; the rest follows by symmetry. Exact for any head whose linear layers run once.

    Args:
        head: the head.
        train: examples with the labels of the loss.
        memory_budget: bytes of working memory beside the matrix.
    """
    matrix = torch.zeros(head.n_parameters, head.n_parameters, dtype=torch.float64, device=train.features.device)
    starts = _layer_starts(head)
    per_row = (6 * head.n_parameters + 12 * head.widths) * 8
    # 256 rows already make full matrix products; the written-out derivatives of more would only leave the caches.
    for begin, end in blocks(len(train), per_row, min(memory_budget, 256 * per_row)):
        part = train.rows(begin, end)
        for m, layer in enumerate(head.layers):
            for unit in range(layer.out_features):
                inputs, change = _unit_derivative(head, part, m, unit)
                column = starts[m] + unit * layer.in_features
                matrix[starts[m] :, column : column + layer.in_features].addmm_(change.T, inputs)
                if head.has_bias[m]:
                    matrix[starts[m] :, starts[m] + layer.weight.numel() + unit] += change.sum(0)
    for m in range(1, len(head.layers)):
        matrix[: starts[m], starts[m] :] = matrix[starts[m] :, : starts[m]].T
    return matrix.div_(len(train))


def _layer_starts(head: DifferentiableHead) -> list[int]:
    """Position of each layer's first parameter in a flat vector."""
    starts = [0]
    for layer, bias in zip(head.layers, head.has_bias, strict=True):
        starts.append(starts[-1] + layer.weight.numel() + bias * layer.out_features)
    return starts[:-1]


def _unit_derivative(head: DifferentiableHead, part: HeadInputs, m: int, unit: int) -> tuple[Tensor, Tensor]:
    """Layer m's input and the derivative of all gradients from layer m on, when output `unit` of layer m is offset.

    Returns:
        [examples, d_in of m] and [examples, parameters of layers m, m + 1, …].
    """
    with torch.inference_mode(False), torch.enable_grad():
        features = part.features.detach().to(torch.float64, copy=True)
        labels = part.labels.to(features.device, copy=True)
        offsets = tuple(
            torch.zeros(len(part), layer.out_features, dtype=torch.float64, device=features.device)
            for layer in head.layers
        )

        def loss(shift: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
            logits, inputs, _ = run_recorded(head, features, shift)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), inputs

        direction = tuple(torch.zeros_like(offset) for offset in offsets)
        direction[m][:, unit] = 1
        values, changes = torch.func.jvp(torch.func.grad(loss, has_aux=True), (offsets,), (direction,))[:2]
    (deltas, inputs), (deltas_change, inputs_change) = values, changes
    starts = _layer_starts(head)
    change = torch.empty(len(part), head.n_parameters - starts[m], dtype=torch.float64, device=features.device)
    for layer in range(m, len(head.layers)):
        delta, a, delta_change, a_change = (x[layer].detach() for x in (deltas, inputs, deltas_change, inputs_change))
        first, last = starts[layer] - starts[m], starts[layer] - starts[m] + head.layers[layer].weight.numel()
        outer = change[:, first:last].view(len(part), delta.shape[1], a.shape[1])
        torch.mul(delta_change[:, :, None], a[:, None, :], out=outer)
        if layer > m:  # the offset leaves its own layer's input as it is
            outer.addcmul_(delta[:, :, None], a_change[:, None, :])
        if head.has_bias[layer]:
            change[:, last : last + delta.shape[1]] = delta_change
    return inputs[m].detach(), change


def smallest_eigenvalue(matrix: Tensor, tolerance: float = 1e-6, max_steps: int = 400) -> float:
    """Smallest eigenvalue of a symmetric matrix, by Lanczos with full reorthogonalisation.

    Args:
        matrix: [P, P], float64.
        tolerance: the residual at which to stop, relative to the spread of the eigenvalues.
        max_steps: matrix-vector products at most; P of them are exact.

    Returns:
        An upper bound that differs from an eigenvalue by at most the residual.
    """
    size = len(matrix)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(size, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.empty(min(max_steps, size), size, dtype=matrix.dtype, device=matrix.device)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    norm = float(vector.norm())
    while True:
        step = len(diagonal)
        basis[step] = vector / norm
        vector = matrix @ basis[step]
        diagonal.append(float(basis[step] @ vector))
        for _ in range(2):  # once leaves rounding errors in the basis, twice is enough (Kahan)
            vector -= basis[: step + 1].T @ (basis[: step + 1] @ vector)
        norm = float(vector.norm())
        off = torch.tensor(off_diagonal, dtype=torch.float64)
        ritz, states = torch.linalg.eigh(
            torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
        )
        spread = max(float(ritz[-1] - ritz[0]), abs(float(ritz[0])), math.ulp(0.0))
        if step + 1 == len(basis) or norm * abs(float(states[-1, 0])) <= tolerance * spread:
            return float(ritz[0])
        off_diagonal.append(norm)
