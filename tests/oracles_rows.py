"""Scores over projected gradients by explicit matrices in float64: every curvature written out and inverted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ggn_scores(test: Tensor, train: Tensor, root: Tensor, n: int, damping: float) -> Tensor:
    """[tests, train] with H = 1/n Σ r rᵀ over the rows of `root`, λ relative to its mean eigenvalue."""
    curvature = root.T @ root / n
    return inverse_scores(test, train, curvature, damping)


def inverse_scores(test: Tensor, train: Tensor, curvature: Tensor, damping: float) -> Tensor:
    """Testᵀ(H + λ)⁻¹train."""
    eye = torch.eye(len(curvature), dtype=torch.float64)
    return test @ torch.linalg.inv(curvature + damping * curvature.diagonal().mean() * eye) @ train.T


def datainf_scores(test: Tensor, train: Tensor, rows: Tensor, damping: float) -> Tensor:
    """One layer: the mean over examples of the inverses of g gᵀ + λ."""
    size = rows.shape[1]
    eye = torch.eye(size, dtype=torch.float64)
    level = damping * rows.square().sum(1).mean() / size
    inverse = torch.stack([torch.linalg.inv(row[:, None] * row + level * eye) for row in rows]).mean(0)
    return test @ inverse @ train.T


def kfac_matrix(inputs: Tensor, outputs: Tensor) -> Tensor:
    """S ⊗ A, for row-major gradients [k_out, k_in]."""
    return torch.kron(outputs, inputs)


def ekfac_matrix(inputs: Tensor, outputs: Tensor, fisher: Tensor, n: int) -> Tensor:
    """The eigenvectors of S ⊗ A with the mean squares of the rows of `fisher` along them."""
    basis = torch.kron(torch.linalg.eigh(outputs).eigenvectors, torch.linalg.eigh(inputs).eigenvectors)
    return basis @ torch.diag((fisher @ basis).square().sum(0) / n) @ basis.T


def per_layer(parts: Sequence[Tensor]) -> Tensor:
    """Scores of layers that do not interact add up."""
    return torch.stack(list(parts)).sum(0)
