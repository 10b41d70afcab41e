"""The naive loops that everything is compared with: slow, plain, one example at a time."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian

# ---------------------------------------------------------------------------------------------------------------------
# Instance attribution
# ---------------------------------------------------------------------------------------------------------------------


def head_gradient(
    head: nn.Module, features: Tensor, label: int, weights_only: bool = False, fold: Tensor | None = None
) -> Tensor:
    """Gradient of one example's cross-entropy in the head's parameters, flat, float64, by autograd.

    `features` [hidden], or [choices, hidden] with one logit or more per choice; with a fold the loss is
    −log Σ p over the classes folded to the label.
    """
    head = copy.deepcopy(head).double()
    probabilities = head(features.double()).flatten().softmax(0)
    classes = torch.arange(len(probabilities)) if fold is None else fold
    loss = -probabilities[classes == label].sum().log()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(_parameters(head, weights_only).values()))])


def head_gradients(
    head: nn.Module, features: Tensor, labels: Tensor, weights_only: bool = False, fold: Tensor | None = None
) -> Tensor:
    """One gradient per example, [examples, P]."""
    pairs = zip(features, labels, strict=True)
    return torch.stack([head_gradient(head, x, int(y), weights_only, fold) for x, y in pairs])


def mean_loss_hessian(head: nn.Module, features: Tensor, labels: Tensor, weights_only: bool = False) -> Tensor:
    """Hessian of the mean cross-entropy in the head's parameters, [P, P], float64."""
    head = copy.deepcopy(head).double()
    parameters = _parameters(head, weights_only)

    def loss(flat: Tensor) -> Tensor:
        logits = functional_call(head, _unflatten(flat, parameters), (features.double(),))
        return nn.functional.cross_entropy(logits.flatten(1), labels)

    return hessian(loss)(_flatten(parameters)).detach()


def mean_loss_ggn(head: nn.Module, features: Tensor, weights_only: bool = False) -> Tensor:
    """Generalised Gauss-Newton matrix 1/n Σ Jᵀ(diag p − p pᵀ)J, [P, P], float64, from per-example Jacobians."""
    head = copy.deepcopy(head).double()
    parameters = _parameters(head, weights_only)
    flat = _flatten(parameters)
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for x in features.double():

        def logits(flat: Tensor, x: Tensor = x) -> Tensor:
            return functional_call(head, _unflatten(flat, parameters), (x,)).flatten()

        jacobian = torch.autograd.functional.jacobian(logits, flat)
        p = logits(flat).softmax(-1).detach()
        total += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return total / len(features)


def fisher_blocks(
    head: nn.Module, features: Tensor, labels: Tensor | None, corrected: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """K-FAC or EK-FAC blocks of a head without biases, written out, [d_out·d_in, d_out·d_in] per layer.

    Labels: those of the train split, or None for the exact expectation over the model's distribution.

    Returns:
        The blocks, and each block's eigenvalues [d_out, d_in].
    """
    head = copy.deepcopy(head).double()
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    seen: list[list[tuple[float, Tensor, Tensor]]] = [[] for _ in layers]  # weight, inputs, deltas of each example
    for number, x in enumerate(features.double()):
        kept: list[tuple[Tensor, Tensor]] = []
        hooks = [m.register_forward_hook(lambda _, args, out, kept=kept: kept.append((args[0], out))) for m in layers]
        log_p = head(x if x.dim() == 2 else x[None]).flatten().log_softmax(0)
        for hook in hooks:
            hook.remove()
        chosen = range(len(log_p)) if labels is None else [int(labels[number])]
        for label in chosen:
            weight = float(log_p[label].detach().exp()) if labels is None else 1.0
            deltas = torch.autograd.grad(-log_p[label], [out for _, out in kept], retain_graph=True)
            for store, (a, _), delta in zip(seen, kept, deltas, strict=True):
                store.append((weight, a.detach(), delta))
    blocks, values = [], []
    for store in seen:
        n = len(features)
        sequences = len(store[0][1])
        # with expected labels every example stands there once per label, with weights that sum to one
        covariance = sum(w * a.T @ a for w, a, _ in store) / (n * sequences)
        outputs = sum(w * d.T @ d for w, _, d in store) / n
        in_values, in_vectors = torch.linalg.eigh(covariance)
        out_values, out_vectors = torch.linalg.eigh(outputs)
        eigenvalues = out_values[:, None] * in_values
        if corrected:
            eigenvalues = sum(w * (out_vectors.T @ d.T @ a @ in_vectors).square() for w, a, d in store) / n
        basis = torch.kron(out_vectors, in_vectors)
        blocks.append(basis @ torch.diag(eigenvalues.flatten()) @ basis.T)
        values.append(eigenvalues)
    return blocks, values


def lissa(matrices: list[Tensor], gradient: Tensor, damping: float, scale: float) -> Tensor:
    """The recursion over a given list of batch curvatures, divided by the scale at the end."""
    v = gradient.clone()
    for matrix in matrices:
        v = gradient + (1 - damping) * v - matrix @ v / scale
    return v / scale


def bm25(documents: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """Lucene's BM25 of each document, from the formula."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query:
            containing = sum(word in other for other in documents)
            inverse = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            count = document.count(word)
            score += inverse * count / (count + k1 * (1 - b + b * len(document) / mean)) if count else 0.0
        scores.append(score)
    return scores


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
