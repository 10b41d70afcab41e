"""Batches and functions that a caller gives to a task: checked, and moved to where the module is."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from twinlens.attribution.errors import UserError
from twinlens.value_words import kind_in_words


def of_each(values: Any, name: str, batch: Any = None) -> Tensor:
    """What a function of the caller gives, a number of each example, [examples].

    Args:
        values: what it gave.
        name: of the function, for messages.
        batch: what it was given; where all tensors of it are of one length, that is how many examples there are.

    Raises:
        UserError: it gives something else.
    """
    if not isinstance(values, Tensor) or values.dim() != 1 or not values.is_floating_point():
        raise UserError(
            f"{name} gives {_what(values)}; expected a number of each example, [examples]: use reduction='none' and "
            "sum over all but the first axis."
        )
    _require_all(len(values), name, batch)
    return values


def outputs_of(values: Any, batch: Any, likelihood: str) -> Tensor:
    """What a caller's outputs are, [examples, outputs].

    Raises:
        UserError: another shape, no numbers of layers, or probabilities where scores are expected.
    """
    if not isinstance(values, Tensor) or values.dim() != 2:
        raise UserError(f"outputs gives {_what(values)}; expected [examples, outputs]: flatten the rest.")
    _require_all(len(values), "outputs", batch)
    if not values.requires_grad:
        raise UserError(
            "outputs depends on no layer that is differentiated; expected what the module gives: return module(batch)."
        )
    if likelihood == "categorical" and _are_shares(values.detach()):
        raise UserError(
            "outputs gives probabilities, which add up to 1; expected the scores before the softmax (logits), of which "
            "the loss is the cross-entropy: leave the softmax out of outputs."
        )
    return values


def refuse_infinite(parts: Sequence[Tensor], what: str, first: int, rank: int = 1) -> None:
    """Refuse NaN and infinite numbers of examples.

    Args:
        parts: [examples · rank, …] each.
        what: name of the quantity.
        first: number of the first example.
        rank: rows of an example.

    Raises:
        UserError: naming the first examples.
    """
    bad = sorted({first + row // rank for part in parts for row in _infinite(part.detach())})
    if bad:
        shown = ", ".join(map(str, bad[:10])) + (" …" if len(bad) > 10 else "")
        raise UserError(
            f"{what} is NaN or infinite for {len(bad)} example(s) ({shown}); expected finite numbers: look at these "
            "examples and at the module's weights; a root or a logarithm at 0 has no finite gradient."
        )


def require_batches(name: str, batches: Any) -> None:
    """Refuse what is not batches, or whose rows come in another order each time, or only once.

    Raises:
        UserError: naming what to pass.
    """
    if isinstance(batches, Iterator):
        raise UserError(
            f"{name} is an iterator, which is empty after one pass; expected batches that can be read again: pass a "
            "DataLoader or a list."
        )
    tensors = isinstance(batches, tuple) and all(isinstance(part, Tensor) for part in batches)
    if tensors or isinstance(batches, Tensor | Mapping | str | bytes | Dataset) or not isinstance(batches, Iterable):
        what = "a tuple of tensors, which reads as that many batches" if tensors else kind_in_words(batches)
        raise UserError(
            f"{name} is {what}; expected a DataLoader or a list of batches: pass [(inputs, labels)], of a Dataset "
            "DataLoader(dataset, batch_size=64)."
        )
    given: Any = batches
    sampler = given.batch_sampler if isinstance(given, DataLoader) else None
    if sampler is not None and (isinstance(given.sampler, RandomSampler) or list(sampler) != list(sampler)):
        raise UserError(
            f"{name} is a DataLoader that shuffles, so that no score would say whose it is; expected the same order "
            "each time: make it with shuffle=False, or a sampler that gives the same each time."
        )
    if hasattr(given, "__len__") and not len(given):
        raise UserError(f"{name} has no batch; expected at least one with an example: pass [(inputs, labels)].")


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters lie; the CPU, if it has none."""
    return next((weight.device for weight in module.parameters()), torch.device("cpu"))


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on a device: tensors, and tuples, lists and dicts of them, and whatever else can be moved."""
    if isinstance(batch, Tensor):
        plain = batch.detach().to(device)
        return plain.clone() if plain.is_inference() else plain  # autograd keeps none that inference mode made
    if hasattr(batch, "to"):
        return copy.copy(batch).to(device)  # some move themselves
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [moved(value, device) for value in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
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


def _what(values: Any) -> str:
    if not isinstance(values, Tensor):
        return kind_in_words(values)
    return f"the shape {tuple(values.shape)}" + ("" if values.is_floating_point() else f" of {values.dtype}")


def _require_all(n: int, name: str, batch: Any) -> None:
    """Refuse values of another number than the batch has examples."""
    lengths = _lengths(batch)
    if len(lengths) == 1 and lengths != {n}:
        raise UserError(
            f"{name} gives {n} numbers for a batch of {lengths.pop()} examples; expected one of each, in their order: "
            "keep all of them, and sum over all but the first axis."
        )


def _lengths(batch: Any) -> set[int]:
    """Lengths of the first axis of all tensors of a batch."""
    if isinstance(batch, Tensor):
        return {len(batch)} if batch.dim() else set()
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return {length for part in parts for length in _lengths(part)}


def _infinite(part: Tensor) -> list[int]:
    """Rows with NaN or infinity."""
    if bool(part.sum().isfinite()):  # one of them would be in the sum
        return []
    finite = part.isfinite().reshape(len(part), -1).all(1)
    return [row for row, good in enumerate(finite.tolist()) if not good]


def _are_shares(rows: Tensor) -> bool:
    """Whether every row is positive and adds up to 1, which scores do not by chance."""
    return rows.shape[1] > 1 and len(rows) > 0 and bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-3).all())
