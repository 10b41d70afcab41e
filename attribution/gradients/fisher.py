"""The Fisher matrix of one linear layer inside a model, by (EK-)FAC, from what the tape hands over.

K-FAC (Martens and Grosse 2015) takes the block of a layer as A ⊗ S, A the mean of a aᵀ over the tokens that its inputs
come from and S the mean over examples of Σ_tokens δ δᵀ (K-FAC-expand, Eschenhagen et al. 2023). EK-FAC (George et al.
2018) keeps their eigenvectors and takes as eigenvalues the mean squares of the examples' gradients in that basis.
Covariances and decompositions are float64, other products float32 at least, whatever the model's precision:
eigenvectors of neighbouring eigenvalues turn by far more than what float32 rounds off a covariance.

An example's gradient in the basis, Q_Sᵀ (Σ_t δ_t a_tᵀ) Q_A, can be rotated on either side before or after the sum over
tokens: before costs tokens · d² numbers, after d_out · d_in · d. Texts are short beside a layer's width, so that
rotating first is cheaper, mostly by far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import example_blocks
from twinlens.attribution.gradients.cotangents import softmax_root, train_cotangents

Fisher = Literal["expectation", "empirical"]

MOST_CLASSES = 512
"""Classes up to which the expectation over labels is taken, which costs classes − 1 backward passes."""

BLOCK_NUMBERS = 2**22
"""Numbers of per-example gradients in memory at a time: larger blocks fall out of the caches."""

MOST_DAMPING = 1e12
"""Of the mean eigenvalue: beside more nothing is left of a curvature, and float32 may overflow."""

FLOAT64_ROWS = 1024
"""Rows of a covariance that are float64 at a time."""

Gradients = Callable[..., Tensor]
"""(start, stop, out=None) → gradients of these examples, [stop − start, k_out, k_in], in `out` where that is given."""


def fisher_cotangents(scores: Tensor, labels: Tensor | None, fisher: Fisher) -> Tensor:
    """Gradients at the scores whose outer products make up the Fisher matrix, [rows, examples, classes], float64.

    Args:
        scores: logits, [examples, classes], or the losses of whole texts, [examples].
        labels: class of each example, [examples]; read by `empirical` alone; None: `scores` are losses.
        fisher: `expectation` over the model's distribution, classes − 1 rows (see `softmax_root`), or `empirical`, one
            row from the labels.

    Raises:
        UserError: an expectation over a vocabulary, or over whole texts.
    """
    if fisher == "empirical":
        return train_cotangents(scores, labels)[None]
    if labels is None:
        raise UserError(
            "fisher=expectation needs a backward pass for each of the vocabulary's tokens at every token of a text, "
            "but the train rows are whole texts; expected the gradients of their own losses: use fisher=empirical."
        )
    scores = scores.detach().double()
    if scores.shape[1] > MOST_CLASSES:
        raise UserError(
            f"fisher=expectation needs a backward pass for each of {scores.shape[1]} classes; expected at most "
            f"{MOST_CLASSES}: use fisher=empirical."
        )
    return softmax_root(scores.softmax(-1)).transpose(0, 1)


def token_mask(inputs: Tensor, attention_mask: Tensor, routed: bool = False) -> Tensor | None:
    """Mask of the handed-over tokens that are no padding, bool [sequences, tokens] as the inputs; None: all of them.

    Args:
        inputs: [sequences, tokens, d], as the tape hands them over.
        attention_mask: of the batch, of any shape with one entry per token.
        routed: whether the layer is an expert's, which sees zeros for the tokens that a router sends elsewhere: they
            are none of its tokens either.
    """
    shape = inputs.shape[:2]
    # a layer that reads one token per sequence, a head, sees the answer position, which is never padding
    real = attention_mask.to(inputs.device).bool().reshape(shape) if attention_mask.numel() == shape.numel() else None
    if not routed:
        return real
    sent = inputs.any(-1)
    return sent if real is None else sent & real


def covariances(inputs: Tensor, deltas: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ a aᵀ over the tokens that are no padding, and Σ δ δᵀ, float64.

    Args:
        inputs: a, [sequences, tokens, k_in], with their 1 for a bias and projected where they are to be.
        deltas: δ, [sequences, tokens, k_out]; zero at padding.
        valid: [sequences, tokens], see `token_mask`.

    Returns:
        [k_in, k_in], [k_out, k_out]. The first over the number of tokens is A, the second over that of examples S.
    """
    return _outer_sum(inputs.flatten(0, 1) if valid is None else inputs[valid]), output_covariance(deltas)


def output_covariance(deltas: Tensor) -> Tensor:
    """Σ δ δᵀ, [k_out, k_out], float64, of deltas as for `covariances`."""
    return _outer_sum(deltas.flatten(0, 1))


def _outer_sum(rows: Tensor) -> Tensor:
    """Σ r rᵀ of rows [rows, k], [k, k], float64; only some rows stand in float64 at a time."""
    total = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for part in rows.split(FLOAT64_ROWS):
        exact = part.double()
        total.addmm_(exact.T, exact)
    return total


def eigenbasis(inputs: Tensor, outputs: Tensor) -> LayerBasis:
    """K-FAC's block in its eigenbasis.

    Args:
        inputs: A, [k_in, k_in].
        outputs: S, [k_out, k_out].
    """
    input_values, input_vectors = torch.linalg.eigh(inputs.double())
    output_values, output_vectors = torch.linalg.eigh(outputs.double())
    products = output_values.clamp_min(0)[:, None] * input_values.clamp_min(0)
    return LayerBasis(output_vectors, input_vectors, products)


def squares(basis: LayerBasis, inputs: Tensor, deltas: Tensor, n_examples: int) -> Tensor:
    """Sum over a batch's examples of their squared gradients in the basis, Σ (Q_Sᵀ G Q_A)², [k_out, k_in].

    Over the number of examples these are EK-FAC's eigenvalues (with several rows per example, summed over them).

    Args:
        basis: of the layer.
        inputs: a, [sequences, tokens, k_in], as for `covariances`.
        deltas: δ, [sequences, tokens, k_out].
        n_examples: whose sequences they are, evenly and in order.
    """
    a, d, rotated = rotated_sides(basis, inputs, deltas, n_examples)
    if a.shape[1] == 1:
        return d[:, 0].square().T @ a[:, 0].square()
    total = a.new_zeros(basis.eigenvalues.shape)
    for _, _, block in in_blocks(rotated, n_examples, block_buffer(a, total.shape, n_examples)):
        # one pass over the squares, where a sum over a few examples takes three
        total.view(-1).addmv_(block.square_().flatten(1).T, block.new_ones(len(block)))
    return total


def weighted_squares(basis: LayerBasis, damping: float, inputs: Tensor, deltas: Tensor, n_examples: int) -> Tensor:
    """Each example's gᵀ(F + λ)⁻¹g, [examples], float64; inputs and deltas as for `squares`, `damping` λ, absolute."""
    a, d, rotated = rotated_sides(basis, inputs, deltas, n_examples)
    weights = (1 / (basis.eigenvalues + damping)).to(a)
    if a.shape[1] == 1:
        return ((d[:, 0].square() @ weights) * a[:, 0].square()).sum(1).double()
    parts = [
        (block.square_().flatten(1) @ weights.flatten()).double()
        for _, _, block in in_blocks(rotated, n_examples, block_buffer(a, weights.shape, n_examples))
    ]
    return torch.cat(parts)


def rotated_sides(
    basis: LayerBasis, inputs: Tensor, deltas: Tensor, n_examples: int
) -> tuple[Tensor, Tensor, Gradients]:
    """Both factors by example, rotated where that is cheaper before the sum over tokens, and the rotated gradients.

    Args:
        basis, inputs, deltas, n_examples: as for `squares`.

    Returns:
        [examples, tokens, k_in]; [examples, tokens, k_out]; Q_Sᵀ G Q_A of some examples. With one token both factors
        are rotated.
    """
    right, left = basis.inputs.to(inputs), basis.outputs.to(deltas)
    a, d = inputs.reshape(n_examples, -1, len(right)), deltas.reshape(n_examples, -1, len(left))
    # the sum over tokens leaves d_out rows to rotate on the right, d_in columns on the left
    a_first, d_first = a.shape[1] <= len(left), a.shape[1] <= len(right)
    a, d = a @ right if a_first else a, d @ left if d_first else d

    def rotated(start: int, stop: int, out: Tensor | None = None) -> Tensor:
        block = example_blocks(a[start:stop], d[start:stop], stop - start, out if a_first and d_first else None)
        if not a_first:
            block = torch.matmul(block, right, out=out if d_first else None)
        return block if d_first else torch.matmul(left.T, block, out=out)

    return a, d, rotated


def rotation_operations(tokens: int, d_in: int, d_out: int) -> float:
    """Operations of rotating an example's gradient on both sides, before or after the sum over tokens."""
    return 2.0 * (min(tokens, d_out) * d_in**2 + min(tokens, d_in) * d_out**2)


def solution_operations(d_in: int, d_out: int) -> float:
    """Operations of rotating a written-out gradient on both sides."""
    return 2.0 * d_in * d_out * (d_in + d_out)


def block_buffer(like: Tensor, shape: Sequence[int], n_examples: int) -> Tensor:
    """Empty memory for gradients of some of the examples, [examples of a block, *shape], in the type of `like`.

    It holds `BLOCK_NUMBERS` numbers at most, or a single gradient.
    """
    return like.new_empty(max(1, min(n_examples, BLOCK_NUMBERS // math.prod(shape))), *shape)


def in_blocks(gradients: Gradients, n_examples: int, buffer: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Gradients of all examples, some after the other: (start, stop, [stop − start, k_out, k_in]).

    Args:
        gradients: of some examples.
        n_examples: all of them.
        buffer: memory for a block, [examples of a block, k_out, k_in]; the next block overwrites it.
    """
    for start in range(0, n_examples, len(buffer)):
        stop = min(start + len(buffer), n_examples)
        yield start, stop, gradients(start, stop, buffer[: stop - start])


def example_chunks(n_examples: int, numbers: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut examples so that `numbers` of each stand in memory, `most` of all."""
    size = max(1, most // numbers)
    for start in range(0, n_examples, size):
        yield start, min(start + size, n_examples)


def absolute_damping(basis: LayerBasis, damping: float, name: str, idle: bool = False) -> float:
    """λ of a layer: `damping` times the mean eigenvalue of its block.

    Args:
        idle: whether the block may vanish, as of an expert that no train example is sent to. λ is infinite then: it has
            no share in any score.

    Raises:
        UserError: the block vanishes.
    """
    mean = float(basis.eigenvalues.mean())
    if idle and mean == 0:
        return math.inf
    if not mean > 0:
        raise UserError(
            f"The Fisher block of the layer {name} has mean eigenvalue {mean:.4g}, so that relative damping cannot "
            "make it invertible; expected a positive one: leave the layer out of the method's params, train less "
            "(trainer.max_epochs) or use gradsim."
        )
    return damping * mean


def solve(basis: LayerBasis, damping: float, gradients: Tensor) -> Tensor:
    """(F + λ)⁻¹ applied to gradients: rotate, divide by the eigenvalues plus λ, rotate back.

    Args:
        basis: of the layer.
        damping: λ, absolute.
        gradients: [rows, k_out, k_in].

    Returns:
        The same shape and dtype.
    """
    right, left = basis.inputs.to(gradients), basis.outputs.to(gradients)
    return _divided(basis, damping, left.T @ (gradients @ right))


def solve_sides(basis: LayerBasis, damping: float, inputs: Tensor, deltas: Tensor) -> Tensor:
    """(F + λ)⁻¹ applied to the gradients Σ_tokens δ ⊗ a of examples, rotated where that takes fewer operations.

    Args:
        basis, damping: as for `solve`.
        inputs: a, [examples, tokens, k_in].
        deltas: δ, [examples, tokens, k_out].

    Returns:
        [examples, k_out, k_in].
    """
    rotated = rotated_sides(basis, inputs, deltas, len(inputs))[2]
    return _divided(basis, damping, rotated(0, len(inputs)))


def _divided(basis: LayerBasis, damping: float, rotated: Tensor) -> Tensor:
    """Rotated gradients, overwritten, over the eigenvalues plus λ, rotated back."""
    right, left = basis.inputs.to(rotated), basis.outputs.to(rotated)
    return left @ (rotated.div_((basis.eigenvalues + damping).to(rotated)) @ right.T)


@dataclass(frozen=True)
class LayerBasis:
    """One layer's approximate Fisher block, Σ λ_oi (q_o ⊗ p_i)(q_o ⊗ p_i)ᵀ.

    Attributes:
        outputs: eigenvectors q of S in columns, [d_out, d_out].
        inputs: eigenvectors p of A in columns, [d_in + 1 with a bias, …].
        eigenvalues: λ, [d_out, d_in + 1 with a bias].

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.fisher import eigenbasis, solve
        >>> basis = eigenbasis(inputs=torch.diag(torch.tensor([1.0, 4.0])), outputs=torch.eye(2))
        >>> basis.eigenvalues  # [d_out, d_in]
        tensor([[1., 4.],
                [1., 4.]], dtype=torch.float64)
        >>> solve(basis, 1.0, torch.ones(1, 2, 2))  # a gradient over λ + 1, entry by entry
        tensor([[[0.5000, 0.2000],
                 [0.5000, 0.2000]]])
    """

    outputs: Tensor
    inputs: Tensor
    eigenvalues: Tensor
