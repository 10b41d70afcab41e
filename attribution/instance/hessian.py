"""Exact Hessian of the mean train loss in the head's parameters, and its smallest eigenvalue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.instance.curvature import blocks
from twinlens.attribution.instance.head_gradients import DifferentiableHead, run_recorded
from twinlens.attribution.instance.inputs import HeadInputs


def exact_hessian(head: DifferentiableHead, train: HeadInputs, memory_budget: int) -> Tensor:
    """The Hessian of the mean cross-entropy, [P, P].

    Moving weight (o, k) of layer m moves that layer's output o on sequence s by a_m,s[k]. So with D the derivative of
    the per-example gradient Σ_u δ_l,u ⊗ a_l,u with respect to an offset of output o of layer m on sequence s, the
    columns (m, o, ·) are Σ_i,s D_i,s ⊗ a_m,i,s: one forward-mode derivative per output unit and sequence, not per
    parameter, and one matrix product. Blocks are taken for layers l that run after m or are m; the rest follows by
    symmetry. Exact for any head whose linear layers run once.

    Args:
        head: the head.
        train: examples with the labels of the loss.
        memory_budget: bytes of working memory beside the matrix.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.curvature import ggn_matrix
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> from twinlens.attribution.instance.hessian import exact_hessian
        >>> train, _ = example_head_inputs()
        >>> head = differentiable_head(train.head, "head")
        >>> hessian = exact_hessian(head, train, BUDGET)
        >>> bool((hessian - ggn_matrix(head, train.features, BUDGET)).abs().max() < 1e-9)  # equal for a linear head
        True
    """
    matrix = torch.zeros(head.n_parameters, head.n_parameters, dtype=torch.float64, device=train.features.device)
    starts = _layer_starts(head)
    per_row = (6 * head.n_parameters + 12 * head.widths) * 8
    # 256 rows already make full matrix products; the written-out derivatives of more would only leave the caches.
    for begin, end in blocks(len(train), per_row, min(memory_budget, 256 * per_row)):
        part = train.rows(begin, end)
        for m, layer in enumerate(head.layers):
            for unit in range(layer.out_features):
                column = starts[m] + unit * layer.in_features
                for sequence in range(head.sequences):
                    derivative = _offset_derivative(head, part, m, unit, sequence)
                    change = _gradient_change(head, derivative, m)
                    inputs = derivative.inputs[m][:, sequence]
                    matrix[starts[m] :, column : column + layer.in_features].addmm_(change.T, inputs)
                    if head.has_bias[m]:
                        matrix[starts[m] :, starts[m] + layer.weight.numel() + unit] += change.sum(0)
    for m in range(1, len(head.layers)):
        matrix[: starts[m], starts[m] :] = matrix[starts[m] :, : starts[m]].T
    return matrix.div_(len(train))


def hessian_trace(head: DifferentiableHead, train: HeadInputs, memory_budget: int) -> float:
    """Trace of the Hessian of the mean cross-entropy: the diagonal blocks of `exact_hessian` alone, never [P, P]."""
    total = 0.0
    for begin, end in blocks(len(train), 24 * head.widths * 8, memory_budget):
        part = train.rows(begin, end)
        for m, layer in enumerate(head.layers):
            for unit in range(layer.out_features):
                for sequence in range(head.sequences):
                    found = _offset_derivative(head, part, m, unit, sequence)
                    # The offset unit's δ on every sequence u meets a_u; its own layer's inputs do not move.
                    shared = found.inputs[m] @ found.inputs[m][:, sequence, :, None] + float(head.has_bias[m])
                    total += float((found.deltas_change[m][:, :, unit] * shared[..., 0]).sum())
    return total / len(train)


def hessian_products(head: DifferentiableHead, part: HeadInputs, vectors: Tensor) -> Tensor:
    """Products of the Hessian of the *summed* cross-entropy with vectors, [vectors, P] → [vectors, P].

    Forward-mode derivatives of the gradient, for all vectors at once.
    """
    with torch.inference_mode(False), torch.enable_grad():
        features = part.features.detach().to(torch.float64, copy=True).reshape(-1, part.features.shape[-1])
        labels = part.labels.to(features.device, copy=True)
        names = {id(parameter): name for name, parameter in head.module.named_parameters()}
        parameters = {}
        for layer, bias in zip(head.layers, head.has_bias, strict=True):
            parameters[names[id(layer.weight)]] = layer.weight.detach()
            if bias:
                parameters[names[id(layer.bias)]] = layer.bias.detach()
        sizes = [p.numel() for p in parameters.values()]

        def loss(values: dict[str, Tensor]) -> Tensor:
            outputs = torch.func.functional_call(head.module, values, (features,))
            return torch.nn.functional.cross_entropy(outputs.reshape(len(part), -1), labels, reduction="sum")

        def product(vector: Tensor) -> Tensor:
            shares = zip(parameters.items(), vector.split(sizes), strict=True)
            tangents = {name: share.view_as(value) for (name, value), share in shares}
            change = torch.func.jvp(torch.func.grad(loss), (parameters,), (tangents,))[1]
            return torch.cat([change[name].flatten() for name in parameters])

        return torch.func.vmap(product)(vectors.clone()).detach()


def _layer_starts(head: DifferentiableHead) -> list[int]:
    """Position of each layer's first parameter in a flat vector."""
    starts = [0]
    for layer, bias in zip(head.layers, head.has_bias, strict=True):
        starts.append(starts[-1] + layer.weight.numel() + bias * layer.out_features)
    return starts[:-1]


@dataclass(frozen=True)
class _OffsetDerivative:
    """Each layer's inputs and δ, and their derivatives with respect to one offset, [examples, sequences, width]."""

    deltas: list[Tensor]
    inputs: list[Tensor]
    deltas_change: list[Tensor]
    inputs_change: list[Tensor]


def _offset_derivative(
    head: DifferentiableHead, part: HeadInputs, m: int, unit: int, sequence: int
) -> _OffsetDerivative:
    """What changes when output `unit` of layer m is offset on one sequence of each example."""
    with torch.inference_mode(False), torch.enable_grad():
        features = part.features.detach().to(torch.float64, copy=True)
        labels = part.labels.to(features.device, copy=True)
        offsets = tuple(
            torch.zeros(len(part) * head.sequences, layer.out_features, dtype=torch.float64, device=features.device)
            for layer in head.layers
        )

        def loss(shift: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
            logits, inputs, _ = run_recorded(head, features, shift)
            return torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), inputs

        direction = tuple(torch.zeros_like(offset) for offset in offsets)
        direction[m][sequence :: head.sequences, unit] = 1
        values, changes = torch.func.jvp(torch.func.grad(loss, has_aux=True), (offsets,), (direction,))[:2]
    parts = [[x.detach().unflatten(0, (-1, head.sequences)) for x in side] for side in (*values, *changes)]
    return _OffsetDerivative(*parts)


def _gradient_change(head: DifferentiableHead, derivative: _OffsetDerivative, m: int) -> Tensor:
    """The derivative of all gradients from layer m on, [examples, parameters of layers m, m + 1, …]."""
    starts = _layer_starts(head)
    deltas_of_m = derivative.deltas[m]
    change = deltas_of_m.new_empty(len(deltas_of_m), head.n_parameters - starts[m])
    for layer in range(m, len(head.layers)):
        delta, a = derivative.deltas[layer], derivative.inputs[layer]
        delta_change, a_change = derivative.deltas_change[layer], derivative.inputs_change[layer]
        first, last = starts[layer] - starts[m], starts[layer] - starts[m] + head.layers[layer].weight.numel()
        outer = change[:, first:last].view(len(change), delta.shape[2], a.shape[2])
        torch.mul(delta_change[:, 0, :, None], a[:, 0, None, :], out=outer)
        for s in range(1, head.sequences):
            outer.addcmul_(delta_change[:, s, :, None], a[:, s, None, :])
        if layer > m:  # the offset leaves its own layer's input as it is
            for s in range(head.sequences):
                outer.addcmul_(delta[:, s, :, None], a_change[:, s, None, :])
        if head.has_bias[layer]:
            change[:, last : last + delta.shape[2]] = delta_change.sum(1)
    return change


def smallest_eigenvalue(matrix: Tensor, tolerance: float = 1e-6, max_steps: int = 400) -> float:
    """Smallest eigenvalue of a symmetric matrix, by Lanczos with full reorthogonalisation.

    Args:
        matrix: [P, P], float64.
        tolerance: the residual at which to stop, relative to the spread of the eigenvalues.
        max_steps: matrix-vector products at most; P of them are exact.

    Returns:
        An upper bound that differs from an eigenvalue by at most the residual.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.hessian import smallest_eigenvalue
        >>> round(smallest_eigenvalue(torch.diag(torch.tensor([3.0, -0.5, 1.0], dtype=torch.float64))), 6)
        -0.5
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
