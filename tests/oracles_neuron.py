"""Naive loops for the neuron lens: one full forward per layer and step, hooks only, no shared computation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.anatomy import answer_positions, backbone_arguments
from models.last_token import LastTokenEngine


def single(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    """One example without any padding."""
    kept = batch["attention_mask"][row].bool()
    return {
        "index": batch["index"][row : row + 1],
        "input_ids": batch["input_ids"][row : row + 1, kept],
        "attention_mask": batch["attention_mask"][row : row + 1, kept],
        "labels": batch["labels"][row : row + 1],
    }


def forward_scores(
    engine: LastTokenEngine,
    example: dict[str, Tensor],
    layer: int | None = None,
    edit: Callable[[Tensor], Tensor] | None = None,
    pre_activation: bool = False,
) -> Tensor:
    """Readout scores [classes] of one plain full forward, with one layer's [tokens, neurons] edited."""
    anatomy = engine.anatomy
    n_tokens = example["input_ids"].shape[1]
    handle = None
    if layer is not None and edit is not None:
        block = anatomy.blocks[layer]

        def apply(tensor: Tensor) -> Tensor:
            return edit(tensor.reshape(n_tokens, -1)).reshape(tensor.shape)

        if pre_activation:
            handle = anatomy.up_projection(block).register_forward_hook(lambda m, a, out: apply(out))
        else:
            handle = anatomy.down_projection(block).register_forward_pre_hook(lambda m, a: (apply(a[0]),))
    try:
        output = anatomy.backbone(**backbone_arguments(type(anatomy), example), use_cache=False)
    finally:
        if handle is not None:
            handle.remove()
    position = int(answer_positions(example["attention_mask"])[0])
    return engine.head(output.last_hidden_state[0, position])


def layer_values(
    engine: LastTokenEngine, example: dict[str, Tensor], layer: int, pre_activation: bool = False
) -> Tensor:
    """Activations (or up-projection outputs) of one layer, [tokens, neurons]."""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.detach().clone())
        return value

    with torch.no_grad():
        forward_scores(engine, example, layer, keep, pre_activation)
    return kept[0]


def integrated_gradients_loop(
    engine: LastTokenEngine,
    example: dict[str, Tensor],
    nodes: Tensor,
    weights: Tensor,
    target: int,
    positions: str = "last",
    pre_activation: bool = False,
) -> Tensor:
    """Eq. 6 of paper 1 as written: a full forward and backward per layer and step, [layers, neurons]."""
    scores = []
    for layer in range(engine.n_layers):
        clean = layer_values(engine, example, layer, pre_activation)
        total = torch.zeros(clean.shape[-1], dtype=clean.dtype)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            origin = clean[-1:] if positions != "all" else clean
            point = (node * origin).requires_grad_()

            def edit(value: Tensor, point: Tensor = point) -> Tensor:
                if positions == "last":
                    return torch.cat([value[:-1], point])
                return point.expand_as(value)

            with torch.enable_grad():
                probability = forward_scores(engine, example, layer, edit, pre_activation).softmax(-1)[target]
                (slope,) = torch.autograd.grad(probability, point)
            total += weight * (origin * slope).sum(0)
        scores.append(total)
    return torch.stack(scores)


def edited_prediction(
    engine: LastTokenEngine, example: dict[str, Tensor], listed: set[tuple[int, int]] | None, test: str
) -> int:
    """Predicted class of one plain full forward whose last token keeps (sufficiency) or loses the listed neurons."""
    anatomy = engine.anatomy
    handles = []
    for layer, block in enumerate(anatomy.blocks):
        if listed is None:
            break
        inside = torch.tensor([(layer, unit) in listed for unit in range(engine.n_neurons)])
        keep = (inside if test == "sufficiency" else ~inside).float()

        def edit(module: torch.nn.Module, args: tuple, keep: Tensor = keep) -> tuple:
            shape = args[0].shape
            tokens = args[0].reshape(-1, shape[-1]).clone()
            tokens[-1] *= keep
            return (tokens.reshape(shape),)

        handles.append(anatomy.down_projection(block).register_forward_pre_hook(edit))
    try:
        return int(forward_scores(engine, example).argmax())
    finally:
        for handle in handles:
            handle.remove()
