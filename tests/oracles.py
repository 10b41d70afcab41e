"""The naive loops that everything is compared with: slow, plain, one example at a time."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian

# ---------------------------------------------------------------------------------------------------------------------
# Instance attribution
# ---------------------------------------------------------------------------------------------------------------------


def head_gradient(head: nn.Module, features: Tensor, label: int, weights_only: bool = False) -> Tensor:
    """Gradient of one example's cross-entropy in the head's parameters, flat, float64, by autograd."""
    head = copy.deepcopy(head).double()
    loss = nn.functional.cross_entropy(head(features.double()[None]), torch.tensor([label]))
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(_parameters(head, weights_only).values()))])


def head_gradients(head: nn.Module, features: Tensor, labels: Tensor, weights_only: bool = False) -> Tensor:
    """One gradient per example, [examples, P]."""
    return torch.stack([head_gradient(head, x, int(y), weights_only) for x, y in zip(features, labels, strict=True)])


def mean_loss_hessian(head: nn.Module, features: Tensor, labels: Tensor, weights_only: bool = False) -> Tensor:
    """Hessian of the mean cross-entropy in the head's parameters, [P, P], float64."""
    head = copy.deepcopy(head).double()
    parameters = _parameters(head, weights_only)

    def loss(flat: Tensor) -> Tensor:
        logits = functional_call(head, _unflatten(flat, parameters), (features.double(),))
        return nn.functional.cross_entropy(logits, labels)

    return hessian(loss)(_flatten(parameters)).detach()


def mean_loss_ggn(head: nn.Module, features: Tensor, weights_only: bool = False) -> Tensor:
    """Generalised Gauss-Newton matrix 1/n Σ Jᵀ(diag p − p pᵀ)J, [P, P], float64, from per-example Jacobians."""
    head = copy.deepcopy(head).double()
    parameters = _parameters(head, weights_only)
    flat = _flatten(parameters)
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for x in features.double():

        def logits(flat: Tensor, x: Tensor = x) -> Tensor:
            return functional_call(head, _unflatten(flat, parameters), (x[None],))[0]

        jacobian = torch.autograd.functional.jacobian(logits, flat)
        p = logits(flat).softmax(-1).detach()
        total += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total / len(features)


def top_k(scores: Tensor, k: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """Best entries of each row by a plain sort on (score, lower index first): indices and scores."""
    sign = -1.0 if largest else 1.0
    index = [sorted(range(len(row)), key=lambda i, row=row: (sign * row[i], i))[:k] for row in scores.tolist()]
    index_tensor = torch.tensor(index, dtype=torch.int64).reshape(len(scores), -1)
    return index_tensor, scores.gather(1, index_tensor)


def _parameters(head: nn.Module, weights_only: bool) -> dict[str, nn.Parameter]:
    return {name: p for name, p in head.named_parameters() if not (weights_only and name.endswith("bias"))}


def _flatten(parameters: dict[str, nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters.values()])


def _unflatten(flat: Tensor, like: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    sizes = [p.numel() for p in like.values()]
    return {name: part.view_as(p) for (name, p), part in zip(like.items(), flat.split(sizes), strict=True)}
