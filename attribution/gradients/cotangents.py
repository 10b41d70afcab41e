"""Gradients at a model's scores: of its losses, and roots of the softmax's curvature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from twinlens.attribution.targets import Targets


def softmax_root(probabilities: Tensor) -> Tensor:
    """Split diag(p) − p pᵀ as B Bᵀ, in closed form and without cancellation.

    With s = √p, diag(p) − p pᵀ = diag(s)(I − s sᵀ)diag(s). The Householder reflection I − u uᵀ/(1 + s_C), u = s + e_C,
    sends s to −e_C, so its first C − 1 columns are an orthonormal basis of what I − s sᵀ projects onto.

    Args:
        probabilities: [examples, classes].

    Returns:
        Bᵀ, [examples, classes − 1, classes]: each row is a cotangent of the logits.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.cotangents import softmax_root
        >>> p = torch.tensor([[0.5, 0.3, 0.2]])
        >>> root = softmax_root(p)[0]
        >>> root.shape, bool((root.T @ root - (torch.diag(p[0]) - p.T @ p)).abs().max() < 1e-6)
        (torch.Size([2, 3]), True)
    """
    s = probabilities.sqrt()
    u = s.clone()
    u[:, -1] += 1
    reflection = torch.eye(s.shape[1], dtype=s.dtype, device=s.device) - u[:, :, None] * u[:, None, :] / u[:, -1:, None]
    return reflection[:, :-1] * s[:, None, :]


def logit_cotangents(
    logits: Tensor, labels: Tensor, fold: Tensor | None = None, against: Tensor | None = None
) -> Tensor:
    """Gradient of each example's cross-entropy at its logits, p − onehot(label), [examples, classes].

    Where classes are folded the loss is −log Σ p over the classes of the label, and the gradient p − p restricted to
    them and renormalised. Against another class its cross-entropy is taken off, in which p cancels.

    Args:
        logits: [examples, classes].
        labels: class of each example, a folded one where there is a `fold`, [examples], int64.
        fold: class → folded class, [classes] (`HeadInputs.fold`).
        against: class whose cross-entropy is taken off, [examples], int64; None: none is.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.cotangents import logit_cotangents
        >>> logit_cotangents(torch.zeros(1, 4), torch.tensor([1]))
        tensor([[ 0.2500, -0.7500,  0.2500,  0.2500]])
        >>> logit_cotangents(torch.zeros(1, 4), torch.tensor([1]), fold=torch.tensor([0, 1, 1, 1]))  # 3 classes as one
        tensor([[ 0.2500, -0.0833, -0.0833, -0.0833]])
        >>> logit_cotangents(torch.zeros(1, 4), torch.tensor([1]), against=torch.tensor([3]))
        tensor([[ 0., -1.,  0.,  1.]])
    """
    if against is not None:
        return one_hot(against, logits.shape[1]).to(logits) - one_hot(labels, logits.shape[1]).to(logits)
    cotangents = logits.softmax(-1)
    labels = labels.to(cotangents.device)
    if fold is None:
        cotangents[torch.arange(len(labels), device=labels.device), labels] -= 1
        return cotangents
    within = fold.to(labels.device)[None] == labels[:, None]
    return cotangents - logits.masked_fill(~within, -torch.inf).softmax(-1)


def train_cotangents(scores: Tensor, labels: Tensor | None) -> Tensor:
    """Gradient of each example's loss at what a forward gave, of the shape of `scores`.

    Args:
        scores: logits, [examples, classes], or the losses themselves, [examples].
        labels: class of each example, [examples]; None: `scores` are losses, as those of whole texts are.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.cotangents import train_cotangents
        >>> train_cotangents(torch.tensor([3.0, 2.0]), None)
        tensor([1., 1.], dtype=torch.float64)
    """
    if labels is None:
        return torch.ones_like(scores, dtype=torch.float64)
    return logit_cotangents(scores.detach().double(), labels)


def target_cotangents(scores: Tensor, targets: Targets) -> Tensor:
    """Gradient of what is explained, less its sign, at what a forward gave, of the shape of `scores`.

    Args:
        scores: logits, [examples, classes]; of completions what is explained less its sign, [examples].
        targets: what is explained.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.cotangents import target_cotangents
        >>> from twinlens.attribution.targets import Targets
        >>> target_cotangents(torch.zeros(1, 2), Targets(torch.tensor([0])))
        tensor([[-0.5000,  0.5000]], dtype=torch.float64)
    """
    if targets.completions is not None:
        return train_cotangents(scores, None)
    return logit_cotangents(scores.detach().double(), targets.target, targets.fold, targets.against)
