"""Gradients of linear layers by the plain way: one example, one loss, `torch.autograd.grad` on the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from twinlens.attribution.protocols import LinearLayer


def layer_gradients(
    layers: Sequence[LinearLayer], loss_of: Callable[[Mapping[str, Tensor]], Tensor], batch: Mapping[str, Tensor]
) -> list[Tensor]:
    """Each example's gradient in each layer, a list of [examples, d_out, d_in + bias].

    Args:
        layers: the layers; their parameters are made to require gradients.
        loss_of: a batch of one example → its loss.
        batch: all examples; every tensor has one row for each.
    """
    parameters = [p for layer in layers for p in parameters_of(layer.module)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows: list[list[Tensor]] = [[] for _ in layers]
    for example in range(len(batch["labels"])):
        loss = loss_of({name: values[example : example + 1] for name, values in batch.items()})
        gradients = iter(torch.autograd.grad(loss, parameters))
        for number, layer in enumerate(layers):
            weight = next(gradients)
            weight = weight.T if isinstance(layer.module, Conv1D) else weight
            parts = [weight, next(gradients)[:, None]] if layer.has_bias else [weight]
            rows[number].append(torch.cat(parts, 1))
    for parameter in parameters:
        parameter.requires_grad_(False)
    return [torch.stack(row) for row in rows]


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """Weight and, where there is one, bias."""
    bias = getattr(module, "bias", None)
    return [module.weight] if bias is None else [module.weight, bias]  # type: ignore[list-item]


def seen_by_layers(
    layers: Sequence[LinearLayer],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
    batch: Mapping[str, Tensor],
) -> list[list[tuple[Tensor, Tensor]]]:
    """Each layer's inputs (with a 1 for a bias) and output gradients on each example, run alone, without padding.

    Returns:
        layers → examples → ([tokens, d_in + bias], [tokens, d_out]).
    """
    seen: list[list[tuple[Tensor, Tensor]]] = [[] for _ in layers]
    for example in range(len(batch["labels"])):
        kept = batch["attention_mask"][example].bool()
        alone = {name: values[example : example + 1] for name, values in batch.items()}
        records: dict[int, tuple[Tensor, Tensor]] = {}

        def record(number: int, records: dict[int, tuple[Tensor, Tensor]] = records) -> Callable[..., Tensor]:
            def hook(_: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
                output = output if output.requires_grad else output.requires_grad_(True)
                records[number] = (arguments[0].detach(), output)
                return output

            return hook

        handles = [layer.module.register_forward_hook(record(number)) for number, layer in enumerate(layers)]
        with torch.enable_grad():
            loss = loss_of(alone)
            gradients = torch.autograd.grad(loss, [records[number][1] for number in range(len(layers))])
        for handle in handles:
            handle.remove()
        for number, layer in enumerate(layers):
            inputs, deltas = records[number][0].flatten(0, -2), gradients[number].flatten(0, -2)
            if len(inputs) == len(kept):
                inputs, deltas = inputs[kept], deltas[kept]
            seen[number].append((torch.cat([inputs, inputs.new_ones(len(inputs), layer.has_bias)], 1), deltas))
    return seen


def fisher_of_layers(
    layers: Sequence[LinearLayer],
    scores_of: Callable[[Mapping[str, Tensor]], Tensor],
    batch: Mapping[str, Tensor],
    expectation: bool,
    corrected: bool,
    projections: Sequence[tuple[Tensor | None, Tensor | None]] | None = None,
) -> list[Tensor]:
    """Each layer's (EK-)FAC matrix written out, [d_out·(d_in + bias), …], with labels weighted one by one.

    Args:
        projections: of each layer's inputs and of its output gradients, applied to both before anything else.
    """
    n = len(batch["labels"])
    with torch.no_grad():
        probabilities = scores_of(batch).softmax(-1)
    n_classes = probabilities.shape[1]
    if expectation:
        weighted = [(torch.full((n,), label), probabilities[:, label]) for label in range(n_classes)]
    else:
        weighted = [(batch["labels"], torch.ones(n, dtype=torch.float64))]
    covered = [[torch.zeros(()), torch.zeros(())] for _ in layers]
    gradients: list[list[tuple[float, Tensor]]] = [[] for _ in layers]
    n_tokens = [0 for _ in layers]
    for labels, weights in weighted:
        relabelled = {**batch, "labels": labels}
        seen = seen_by_layers(layers, lambda rows: loss_at(scores_of, rows), relabelled)
        for number, examples in enumerate(seen):
            for weight, sides in zip(weights.tolist(), examples, strict=True):
                a, d = projected(sides, None if projections is None else projections[number])
                covered[number][0] = covered[number][0] + a.T @ a
                covered[number][1] = covered[number][1] + weight * d.T @ d / n
                n_tokens[number] += len(a)
                gradients[number].append((weight, d.T @ a))
    matrices = []
    for (a_sum, s), tokens, blocks in zip(covered, n_tokens, gradients, strict=True):
        a = a_sum / tokens
        if not corrected:
            matrices.append(torch.kron(s, a))
            continue
        basis = torch.kron(torch.linalg.eigh(s).eigenvectors, torch.linalg.eigh(a).eigenvectors)
        values = sum(weight * (basis.T @ block.flatten()).square() / n for weight, block in blocks)
        assert isinstance(values, Tensor)
        matrices.append(basis @ values.diag() @ basis.T)
    return matrices


def projected(
    sides: tuple[Tensor, Tensor], projections: tuple[Tensor | None, Tensor | None] | None
) -> tuple[Tensor, Tensor]:
    """Both sides of a layer's tokens times their matrix; None: as they are."""
    if projections is None:
        return sides
    a, d = (side if matrix is None else side @ matrix for side, matrix in zip(sides, projections, strict=True))
    return a, d


def ggn_of_layers(
    layers: Sequence[LinearLayer],
    scores_of: Callable[[Mapping[str, Tensor]], Tensor],
    batch: Mapping[str, Tensor],
    flattened: Callable[[list[Tensor]], Tensor],
) -> Tensor:
    """1/n Σ Jᵀ(diag(p) − ppᵀ)J over examples, J the derivatives of an example's logits in all layers.

    Args:
        flattened: gradients of all layers, each [examples, d_out, d_in + bias] → [examples, numbers].

    Returns:
        [numbers, numbers].
    """
    with torch.no_grad():
        probabilities = scores_of(batch).softmax(-1)
    jacobians = torch.stack(
        [
            flattened(layer_gradients(layers, lambda rows, c=label: scores_of(rows)[0, c], batch))  # type: ignore[misc]
            for label in range(probabilities.shape[1])
        ],
        1,
    )
    inner = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    return torch.einsum("nci,ncd,ndj->ij", jacobians, inner, jacobians) / len(probabilities)


def loss_at(scores_of: Callable[[Mapping[str, Tensor]], Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Summed cross-entropy of a batch."""
    return cross_entropy(scores_of(batch), batch["labels"], reduction="sum")


def whole_scores(
    test: Sequence[Tensor], train: Sequence[Tensor], damped: Sequence[Tensor] | None = None, cosine: bool = False
) -> Tensor:
    """Σ_layers ⟨H⁻¹G_t, G_i⟩, [tests, examples], one pair after the other.

    Args:
        test, train: layers → [examples, d_out, d_in + bias].
        damped: each layer's matrix H with its damping; None: the identity.
    """
    scores = torch.zeros(len(test[0]), len(train[0]), dtype=torch.float64)
    for t in range(len(test[0])):
        for i in range(len(train[0])):
            for layer in range(len(test)):
                g, h = test[layer][t].flatten(), train[layer][i].flatten()
                scores[t, i] += (g if damped is None else torch.linalg.solve(damped[layer], g)) @ h
    if cosine:
        norms = [sum(layer.square().sum((1, 2)) for layer in split) for split in (test, train)]
        scores /= (norms[0][:, None] * norms[1]).sqrt()  # type: ignore[index]
    return scores
