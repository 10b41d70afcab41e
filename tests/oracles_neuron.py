"""Naive loops for the neuron lens: one full forward per layer and step, hooks only, no shared computation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from twinlens.models.forwards import answer_positions, backbone_arguments
from twinlens.models.last_token import LastTokenEngine


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
    place: str = "activation",
) -> Tensor:
    """Readout scores [classes] of one plain full forward, with what stands at a place of one layer, [tokens, units],
    edited: `activation` (input of the down-projection), `pre_activation` (output of the up-projection) or `attention`
    (input of the attention's output projection)."""
    anatomy = engine.anatomy
    n_tokens = example["input_ids"].shape[1]
    handle = None
    if layer is not None and edit is not None:
        block = anatomy.blocks[layer]

        def apply(tensor: Tensor) -> Tensor:
            return edit(tensor.reshape(n_tokens, -1)).reshape(tensor.shape)

        if place == "pre_activation":
            handle = anatomy.up_projection(block).register_forward_hook(lambda m, a, out: apply(out))
        else:
            module = anatomy.attention_output(block) if place == "attention" else anatomy.down_projection(block)
            handle = module.register_forward_pre_hook(lambda m, a: (apply(a[0]),))
    try:
        output = anatomy.backbone(**backbone_arguments(anatomy.backbone, example), use_cache=False)
    finally:
        if handle is not None:
            handle.remove()
    position = int(answer_positions(example["attention_mask"])[0])
    return engine.head(output.last_hidden_state[0, position])


def layer_values(engine: LastTokenEngine, example: dict[str, Tensor], layer: int, place: str = "activation") -> Tensor:
    """What stands at a place of one layer, [tokens, units], see `forward_scores`."""
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.detach().clone())
        return value

    with torch.no_grad():
        forward_scores(engine, example, layer, keep, place)
    return kept[0]


def sequences_of(batch: dict[str, Tensor], row: int) -> list[dict[str, Tensor]]:
    """The sequences of one example without any padding: itself, or in multiple choice one per choice."""
    if batch["input_ids"].dim() == 2:
        return [single(batch, row)]
    n_choices = batch["input_ids"].shape[1]
    question = {
        "index": batch["index"][row].repeat(n_choices),
        "input_ids": batch["input_ids"][row],
        "attention_mask": batch["attention_mask"][row],
        "labels": batch["labels"][row].repeat(n_choices),
    }
    return [single(question, choice) for choice in range(n_choices)]


def integrated_gradients_loop(
    engine: LastTokenEngine,
    sequences: list[dict[str, Tensor]],
    nodes: Tensor,
    weights: Tensor,
    target: int,
    positions: str = "last",
    place: str = "activation",
    edited: list[int] | None = None,
    raw: bool = False,
) -> Tensor:
    """Eq. 6 of the first paper as written: full forwards and a backward per layer and step, [layers, neurons].

    Args:
        sequences: of one example, each with its own scores; several are the choices of a question.
        place: of the neurons that are scaled, see `forward_scores`.
        edited: sequences whose neurons go along the path together; None: all.
        raw: attribute the target's score instead of its probability.
    """
    edited = list(range(len(sequences))) if edited is None else edited
    scores = []
    for layer in range(engine.n_layers):
        clean = [layer_values(engine, sequence, layer, place) for sequence in sequences]
        origins = {s: clean[s] if positions == "all" else clean[s][-1:] for s in edited}
        total = torch.zeros(clean[0].shape[-1], dtype=clean[0].dtype)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            points = {s: (node * origin).requires_grad_() for s, origin in origins.items()}
            with torch.enable_grad():
                parts = []
                for s, sequence in enumerate(sequences):
                    edit = _writing(points[s], positions) if s in points else None
                    parts.append(forward_scores(engine, sequence, layer, edit, place))
                both = torch.cat(parts)
                value = (both if raw else both.softmax(-1))[target]
                slopes = torch.autograd.grad(value, list(points.values()))
            total += weight * sum((origins[s] * slope).sum(0) for s, slope in zip(points, slopes, strict=True))
        scores.append(total)
    return torch.stack(scores)


def _writing(point: Tensor, positions: str) -> Callable[[Tensor], Tensor]:
    """An edit that puts a point of the path in the place of a layer's [tokens, neurons]."""

    def edit(value: Tensor) -> Tensor:
        return torch.cat([value[:-1], point]) if positions == "last" else point.expand_as(value)

    return edit


def edited_probabilities(
    engine: LastTokenEngine,
    sequences: list[dict[str, Tensor]],
    listed: set[tuple[int, int]],
    test: str,
    edited: list[int],
    replacement: list[Tensor],
    positions: str = "last",
) -> Tensor:
    """Class probabilities of one example by plain full forwards that keep (sufficiency) or lose the listed neurons.

    Args:
        sequences: of the example; several are the choices of a question.
        edited: sequences that are edited.
        replacement: for each edited sequence what a lost neuron becomes, [layers, neurons].
    """
    anatomy = engine.anatomy
    parts = []
    for s, sequence in enumerate(sequences):
        handles = []
        for layer, block in enumerate(anatomy.blocks):
            if s not in edited:
                break
            inside = torch.tensor([(layer, unit) in listed for unit in range(engine.n_neurons)])
            keep = inside if test == "sufficiency" else ~inside
            other = replacement[edited.index(s)][layer]

            def edit(module: torch.nn.Module, args: tuple, keep: Tensor = keep, other: Tensor = other) -> tuple:
                shape = args[0].shape
                tokens = args[0].reshape(-1, shape[-1]).clone()
                first = len(tokens) - 1 if positions == "last" else 0
                tokens[first:] = torch.where(keep, tokens[first:], other)
                return (tokens.reshape(shape),)

            handles.append(anatomy.down_projection(block).register_forward_pre_hook(edit))
        try:
            parts.append(forward_scores(engine, sequence))
        finally:
            for handle in handles:
                handle.remove()
    return torch.cat(parts).softmax(-1)


def answer_activations(engine: LastTokenEngine, sequence: dict[str, Tensor]) -> Tensor:
    """Activations of all layers at the answer position of one sequence, [layers, neurons]."""
    return torch.stack([layer_values(engine, sequence, layer)[-1] for layer in range(engine.n_layers)])
