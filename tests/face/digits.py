"""Small convolution net for images, and what every method of a task comes to for it, written out with autograd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Images = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Two convolutions, the first with stride and padding, and a linear head; activations overwrite their inputs.

    Args:
        n_classes: outputs.
    """

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, kernel_size=3, stride=2, padding=1)
        self.active = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(2, 3, kernel_size=2, bias=False)
        self.head = nn.Linear(3 * 3 * 3, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[examples, classes] of images [examples, 1, 8, 8]."""
        return self.head(torch.tanh(self.second(self.active(self.first(images)))).flatten(1))


def loss(module: Any, batch: Images) -> Tensor:
    """Cross-entropy of each image."""
    return cross_entropy(module(batch[0]), batch[1], reduction="none")


def outputs(module: Any, batch: Images) -> Tensor:
    """Logits."""
    return module(batch[0])


def rows_of(batches: list[Images]) -> Iterator[Images]:
    """One image after the other, each as a batch."""
    for images, labels in batches:
        for row in range(len(images)):
            yield images[row : row + 1], labels[row : row + 1]


def gradient(module: nn.Module, value: Tensor) -> Tensor:
    """All parameters' gradients in one row, float64."""
    found = torch.autograd.grad(value, list(module.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found]).double()


def gradients(module: nn.Module, batches: list[Images]) -> Tensor:
    """Of every image's loss, [images, parameters]."""
    return torch.stack([gradient(module, loss(module, row).sum()) for row in rows_of(batches)])


def exact_influence(module: nn.Module, train: list[Images], queries: list[Images], damping: float) -> Tensor:
    """Influence by the dense GGN: Σ_c p_c g_c g_cᵀ of every image, g_c the gradient of its loss with label c."""
    n_parameters = sum(value.numel() for value in module.parameters())
    matrix, n = torch.zeros(n_parameters, n_parameters, dtype=torch.float64), 0
    for image, _ in rows_of(train):
        logits = module(image)
        for label, share in enumerate(logits.softmax(-1)[0].tolist()):
            own = gradient(module, cross_entropy(logits, torch.tensor([label])))
            matrix += share * own.outer(own)
        n += 1
    matrix /= n
    matrix += damping * matrix.trace() / n_parameters * torch.eye(n_parameters, dtype=torch.float64)
    return gradients(module, queries) @ torch.linalg.solve(matrix, gradients(module, train).T)


def patches(layer: Any, given: Tensor) -> Tensor:
    """What a layer reads of one image, place by place, with a 1 for the bias: [places, d_in + bias]."""
    if isinstance(layer, nn.Linear):
        rows = [given[0]]
    else:
        (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
        padded = nn.functional.pad(given[0], [padding] * 4)
        size = (padded.shape[1] - kernel) // stride + 1
        rows = [
            padded[:, y * stride : y * stride + kernel, x * stride : x * stride + kernel].flatten()
            for y in range(size)
            for x in range(size)
        ]
    found = torch.stack(rows).double()
    return found if layer.bias is None else torch.cat([found, torch.ones(len(found), 1, dtype=torch.float64)], 1)


def deltas(layer: Any, slope: Tensor) -> Tensor:
    """Gradient at what a layer gives for one image, place by place, [places, d_out]."""
    if isinstance(layer, nn.Linear):
        return slope.double()
    return torch.stack([slope[0, :, y, x] for y in range(slope.shape[2]) for x in range(slope.shape[3])]).double()


def seen(module: Any, image: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits of one image, and what each layer was given and gave."""
    given, gave = [], []

    def hook(layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        given.append(arguments[0].detach().clone())
        gave.append(output)
        return output.clone()  # the next module may overwrite it

    handles = [layer.register_forward_hook(hook) for layer in (module.first, module.second, module.head)]
    logits = module(image)
    for handle in handles:
        handle.remove()
    return logits, given, gave


def ekfac_influence(module: Any, train: list[Images], queries: list[Images], damping: float) -> Tensor:
    """Influence by EK-FAC, layer by layer, image by image and label by label."""
    layers = [module.first, module.second, module.head]
    by_layer: list[list[tuple[float, Tensor, Tensor]]] = [[] for _ in layers]
    n = 0
    for image, _ in rows_of(train):
        logits, given, gave = seen(module, image)
        n += 1
        for label, share in enumerate(logits.softmax(-1)[0].tolist()):
            value = cross_entropy(logits, torch.tensor([label]))
            slopes = torch.autograd.grad(value, gave, retain_graph=True)
            for number, layer in enumerate(layers):
                by_layer[number].append((share, patches(layer, given[number]), deltas(layer, slopes[number])))
    total = torch.zeros(sum(map(len, (labels for _, labels in queries))), n, dtype=torch.float64)
    for number, layer in enumerate(layers):
        every = by_layer[number]
        places = len(every[0][1])
        inputs = sum(share * a.T @ a for share, a, _ in every) / (n * places)
        slopes = sum(share * d.T @ d for share, _, d in every) / n
        right, left = torch.linalg.eigh(inputs)[1], torch.linalg.eigh(slopes)[1]
        values = sum(share * (left.T @ (d.T @ a) @ right) ** 2 for share, a, d in every) / n
        values = values + damping * values.mean()
        sides = []
        for batches in (queries, train):
            own = []
            for image, label in rows_of(batches):
                logits, given, gave = seen(module, image)
                slope = torch.autograd.grad(cross_entropy(logits, label), gave)[number]
                own.append((left.T @ (deltas(layer, slope).T @ patches(layer, given[number])) @ right).flatten())
            sides.append(torch.stack(own))
        total += (sides[0] / values.flatten()) @ sides[1].T
    return total
