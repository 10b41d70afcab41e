"""Sets of gradients of linear layers, kept as factors.

The gradient of a loss with respect to the weight of a linear layer that runs on several sequences is Σ_s δ_s ⊗ a_s, δ
the gradient at the layer's output and a the layer's input; with respect to the bias it is Σ_s δ_s. Classification has
one sequence per example, multiple choice one per choice. Inner products of gradients are

    Σ_layers Σ_{s,u} (a_is·a_ju [+ 1 with a bias]) (δ_is·δ_ju):

small matrix products, never a per-example gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerFactors:
    """One linear layer's share of a set of gradients; each example has `rows` gradients with the same inputs.

    Attributes:
        inputs: input of the layer, [examples, sequences, d_in].
        deltas: gradients at the layer's output, [examples, rows, sequences, d_out]; rows = 1 for loss gradients.
        has_bias: whether the gradient with respect to the bias, Σ_s δ_s, belongs to the set.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.factors import LayerFactors, dense, gram
        >>> inputs = torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]])  # two examples, one sequence each, d_in 2
        >>> deltas = torch.tensor([[[[0.5, -0.5]]], [[[1.0, 0.0]]]])  # d_out 2
        >>> factors = [LayerFactors(inputs, deltas, has_bias=False)]
        >>> dense(factors)  # the gradients written out, weight row by row
        tensor([[ 0.5000,  1.0000, -0.5000, -1.0000],
                [ 0.0000,  1.0000,  0.0000,  0.0000]])
        >>> gram(factors, factors)  # their inner products, without writing them out
        tensor([[2.5000, 1.0000],
                [1.0000, 1.0000]])
    """

    inputs: Tensor
    deltas: Tensor
    has_bias: bool

    @property
    def sequences(self) -> int:
        """Sequences per example."""
        return self.inputs.shape[1]

    @property
    def n_parameters(self) -> int:
        """Length of a written-out gradient."""
        return self.deltas.shape[-1] * (self.inputs.shape[-1] + self.has_bias)

    def examples(self, start: int, stop: int) -> LayerFactors:
        """A contiguous part of the examples."""
        return LayerFactors(self.inputs[start:stop], self.deltas[start:stop], self.has_bias)

    def at(self, index: Tensor) -> LayerFactors:
        """The examples with the numbers `index`, [examples]."""
        return LayerFactors(self.inputs[index], self.deltas[index], self.has_bias)

    def scaled(self, scale: Tensor | float) -> LayerFactors:
        """The gradients times `scale`, a number or one per example [examples]."""
        factor = scale[:, None, None, None] if isinstance(scale, Tensor) else scale
        return LayerFactors(self.inputs, self.deltas * factor, self.has_bias)

    def to(self, dtype: torch.dtype) -> LayerFactors:
        """The same factors in another floating-point type."""
        return LayerFactors(self.inputs.to(dtype), self.deltas.to(dtype), self.has_bias)


def is_smaller_dense(sequences: int, d_in: int, d_out: int, has_bias: bool) -> bool:
    """Whether a layer's gradient holds fewer numbers than its factors do, as that of a choice head d → 1."""
    return sequences > 1 and d_out * (d_in + has_bias) <= sequences * (d_in + d_out)


def compact(factors: Sequence[LayerFactors]) -> list[LayerFactors]:
    """Write out the layers whose gradients are smaller than their factors: one sequence, input 1, δ the gradient.

    Inner products, lengths and written-out gradients stay what they are, and cost one product instead of one for each
    pair of sequences.
    """
    result = []
    for f in factors:
        if is_smaller_dense(f.sequences, f.inputs.shape[-1], f.deltas.shape[-1], f.has_bias):
            flat = _layer_dense(f).unflatten(0, f.deltas.shape[:2])[:, :, None]
            f = LayerFactors(flat.new_ones(len(flat), 1, 1), flat, False)
        result.append(f)
    return result


def gram(left: Sequence[LayerFactors], right: Sequence[LayerFactors]) -> Tensor:
    """Inner products of two sets of gradients.

    Returns:
        [left examples · left rows, right examples · right rows], rows of one example next to each other.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.factors import LayerFactors, dense, gram
        >>> factors = [LayerFactors(torch.randn(3, 2, 4), torch.randn(3, 1, 2, 5), has_bias=True)]  # 2 sequences each
        >>> products = gram(factors, factors)
        >>> products.shape, bool((products - dense(factors) @ dense(factors).T).abs().max() < 1e-4)
        (torch.Size([3, 3]), True)
    """
    total: Tensor | None = None
    for a, b in zip(left, right, strict=True):
        shape = (len(a.inputs), a.deltas.shape[1], len(b.inputs), b.deltas.shape[1])
        # Pair by pair, so that no more than three products stand in memory whatever the number of sequences.
        for s in range(a.sequences):
            for u in range(b.sequences):
                product = (a.deltas[:, :, s].flatten(0, 1) @ b.deltas[:, :, u].flatten(0, 1).T).view(shape)
                shared = a.inputs[:, s] @ b.inputs[:, u].T
                if a.has_bias:
                    shared += 1
                product *= shared[:, None, :, None]
                total = product if total is None else total.add_(product)
    assert total is not None
    return total.flatten(0, 1).flatten(1, 2)


def squared_norms(factors: Sequence[LayerFactors]) -> Tensor:
    """Squared length of each gradient, [examples · rows]."""
    parts = []
    for f in factors:
        if f.sequences == 1:
            shared = f.inputs[:, 0].square().sum(-1, keepdim=True) + float(f.has_bias)
            parts.append(shared * f.deltas[:, :, 0].square().sum(-1))
        else:
            pairs = f.inputs @ f.inputs.mT + float(f.has_bias)
            parts.append((pairs[:, None] * (f.deltas @ f.deltas.mT)).sum((-2, -1)))
    return torch.stack(parts).sum(0).flatten()


def dense(factors: Sequence[LayerFactors]) -> Tensor:
    """The gradients written out, [examples · rows, P]: layer by layer, weight row by row, then bias."""
    parts = [part for f in factors for part in _layer_parts(f)]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _layer_dense(f: LayerFactors) -> Tensor:
    parts = _layer_parts(f)
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _layer_parts(f: LayerFactors) -> list[Tensor]:
    """Gradients of one layer's weight and, where it belongs to the set, bias, [examples · rows, …] each."""
    inputs = f.inputs[:, None]
    weight = f.deltas[:, :, 0, :, None] * inputs if f.sequences == 1 else f.deltas.mT @ inputs
    parts = [weight.flatten(0, 1).flatten(1)]
    if f.has_bias:
        parts.append(f.deltas.sum(2).flatten(0, 1))
    return parts


def project(factors: Sequence[LayerFactors], vectors: Tensor) -> Tensor:
    """Inner products of dense vectors with the gradients, without writing these out.

    Args:
        factors: not compacted, or compacted: either works.
        vectors: [vectors, P].

    Returns:
        [vectors, examples · rows].
    """
    total: Tensor | None = None
    for f, weight, bias in _by_layer(factors, vectors):
        if _is_written_out(f):
            product = (weight.flatten(1) @ f.deltas.flatten(0, 2).T).unflatten(1, f.deltas.shape[:2])
            total = product if total is None else total.add_(product)
            continue
        along = torch.einsum("voi,esi->voes", weight, f.inputs)
        if bias is not None:
            along += bias[:, :, None, None]
        product = torch.einsum("voes,erso->ver", along, f.deltas)
        total = product if total is None else total.add_(product)
    assert total is not None
    return total.flatten(1)


def combine(factors: Sequence[LayerFactors], coefficients: Tensor) -> Tensor:
    """Linear combinations of the gradients as dense vectors, the transpose of `project`.

    Args:
        factors: the set.
        coefficients: [vectors, examples · rows].

    Returns:
        [vectors, P].
    """
    parts = []
    for f in factors:
        if _is_written_out(f):
            parts.append(coefficients @ f.deltas.flatten(0, 2))
            continue
        weighted = torch.einsum("ver,erso->voes", coefficients.unflatten(1, f.deltas.shape[:2]), f.deltas)
        parts.append(torch.einsum("voes,esi->voi", weighted, f.inputs).flatten(1))
        if f.has_bias:
            parts.append(weighted.sum((2, 3)))
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _is_written_out(f: LayerFactors) -> bool:
    """Whether `compact` has written the layer's gradients out."""
    return f.sequences == 1 and f.inputs.shape[-1] == 1 and not f.has_bias and bool((f.inputs == 1).all())


def _by_layer(factors: Sequence[LayerFactors], vectors: Tensor) -> list[tuple[LayerFactors, Tensor, Tensor | None]]:
    """Each layer's factors with its share of the vectors: weight [vectors, d_out, d_in] and bias [vectors, d_out]."""
    shares = vectors.split([f.n_parameters for f in factors], 1)
    result = []
    for f, share in zip(factors, shares, strict=True):
        d_in, d_out = f.inputs.shape[-1], f.deltas.shape[-1]
        weight = share[:, : d_out * d_in].unflatten(1, (d_out, d_in))
        result.append((f, weight, share[:, d_out * d_in :] if f.has_bias else None))
    return result
