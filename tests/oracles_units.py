"""A unit's contribution as its definition reads: one text, two plain forwards, a hook on the model's own module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def contribution(log_prob_of: Callable[[], Tensor], read_by: nn.Module, span: tuple[int, int]) -> Tensor:
    """log p of a target as the model is, less the same with some inputs of a linear map 0 at the last token.

    Args:
        log_prob_of: runs one text without padding and gives log p of its target.
        read_by: the map behind the unit.
        span: first input of the unit there, and the one behind its last.
    """

    def zero(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        given = arguments[0].clone()
        given[..., -1, span[0] : span[1]] = 0
        return (given,)

    whole = log_prob_of()
    handle = read_by.register_forward_pre_hook(zero)
    try:
        return whole - log_prob_of()
    finally:
        handle.remove()


def best_units(scores: list[float], units: list[int], k: int) -> list[tuple[int, float]]:
    """Places and scores of the k best pairs, of each unit the best one."""
    found: list[tuple[int, float]] = []
    for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
        if units[place] >= 0 and units[place] not in [units[known] for known, _ in found]:
            found.append((place, scores[place]))
    return found[:k]


def falls(
    n_train: int, lists: Tensor, contributions: Callable[[list[int], int], list[float]], seeds: list[int]
) -> list[list[float]]:
    """How far each pair's contribution falls without the rows of its own list, [seeds][pairs]."""
    found = []
    for seed in seeds:
        whole = contributions(list(range(n_train)), seed)
        found.append(
            [
                whole[pair] - contributions([row for row in range(n_train) if row not in rows], seed)[pair]
                for pair, rows in enumerate(lists.tolist())
            ]
        )
    return found


def gradients(value: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Of a value by parameters, zeros where it does not depend on one."""
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
