"""Batches and functions that a caller gives to a task: checked, and moved to where the module is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from twinlens.attribution.errors import UserError


def of_each(values: Any, name: str) -> Tensor:
    """What a function of the caller gives, a number of each example, [examples].

    Raises:
        UserError: it gives something else.
    """
    if not isinstance(values, Tensor) or values.dim() != 1:
        what = f"the shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise UserError(
            f"{name} gives {what}; expected a number of each example, [examples]: use reduction='none' and sum over "
            "all but the first axis."
        )
    return values


def require_order(name: str, batches: Any) -> None:
    """Refuse batches whose rows come in another order each time, or only once.

    Raises:
        UserError: naming what to pass.
    """
    if isinstance(batches, DataLoader) and isinstance(batches.sampler, RandomSampler):
        raise UserError(
            f"{name} is a DataLoader that shuffles, so that no score would say whose it is; expected the same order "
            "each time: make it with shuffle=False."
        )
    if isinstance(batches, Iterator):
        raise UserError(
            f"{name} is an iterator, which is empty after one pass; expected batches that can be read again: pass a "
            "DataLoader or a list."
        )


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie."""
    return next(module.parameters()).device


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device: tensors, and tuples, lists and dicts of them."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(moved(value, device) for value in batch)
    return batch


@contextmanager
def without_overwriting() -> Iterator[None]:
    """Say in a sentence that a module overwrites what is recorded.

    Raises:
        UserError: naming what to write.
    """
    try:
        yield
    except RuntimeError as error:
        if "in-place" not in str(error) and "inplace" not in str(error):
            raise
        raise UserError(_overwrites("a layer", f" ({str(error).splitlines()[0][:200]})")) from error


def refuse_overwritten(layers: Sequence[str]) -> None:
    """Refuse layers whose inputs or outputs did not stay as they were recorded.

    Raises:
        UserError: naming the first.
    """
    if layers:
        raise UserError(_overwrites(layers[0], ""))


def _overwrites(layer: str, reason: str) -> str:
    return (
        f"the module overwrites the input or output of {layer}{reason}; expected operations that give new tensors: "
        "write e.g. x = x.relu() for x.relu_()."
    )
