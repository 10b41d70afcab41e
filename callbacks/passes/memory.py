"""Keeping a pass within its memory: batches cut to fit, and on an out-of-memory error half of it, going on."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.store.failures import KEPT

Result = TypeVar("Result")
SMALLEST_BUDGET = 2**20
"""Below this nothing that is not cut into single examples can be made smaller in earnest."""
MMAP_THRESHOLD = -3
RETURNED_FROM = 2**20
"""Freed blocks from this size on go back to the system: glibc keeps those up to 32 MiB. Smaller ones are faster so."""


class WithinMemory:
    """A computation over batches that keeps to a budget; results do not depend on how a batch is cut.

    Args:
        name: of the pass, for messages.
        compute: (batch, budget) → tensors with one row per example.
        budget: bytes, beside the weights; halved at each out-of-memory error for the rest of the pass.
        need: memory of one example.
    """

    def __init__(self, name: str, compute: Callable[[Batch, int], dict[str, Tensor]], budget: int, need: Need) -> None:
        self.name = name
        self.compute = compute
        self.budget = budget
        self.need = need

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """All rows of the batch, in its order.

        Raises:
            UserError: a single example does not fit, however it is cut.
        """
        n = len(batch["index"])
        columns = batch["input_ids"].shape[-1] if "input_ids" in batch else 0
        parts: list[dict[str, Tensor]] = []
        start = 0
        while start < n:
            count = self.need.examples(n - start, columns, self.budget)
            part = {name: tensor[start : start + count] for name, tensor in batch.items()}
            done = attempt(partial(self.compute, part, self.budget))
            if done is not None:
                parts.append(done)
                start += count
            elif count == 1 and self.budget <= self.need.least(columns):
                raise UserError(
                    f"{self.name}: one example of {columns} tokens (index {int(batch['index'][start])}) does not fit "
                    f"into the free memory; expected room for {bytes_in_words(self.need.least(columns))} beside the "
                    "model: lower data.max_length, use trainer.precision=bf16-mixed or a device with more memory."
                )
            else:
                used = min(self.budget, count * self.need.most(columns))
                self.budget = max(used // 2, self.need.least(columns))
                _announce(self.name, self.budget)
        return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def within_memory(name: str, work: Callable[[int], Result], budget: int) -> tuple[Result, int]:
    """The result of `work(budget)`, with half the budget after each out-of-memory error, and the budget it took.

    Raises:
        UserError: nothing smaller fits either.
    """
    while True:
        done = attempt(partial(work, budget))
        if done is not None:
            return done, budget
        if budget // 2 < SMALLEST_BUDGET:
            raise UserError(
                f"{name}: the work does not fit into the free memory in blocks of any size; expected more room beside "
                "model and data: lower data.limit.train or use a machine with more memory."
            )
        budget //= 2
        _announce(name, budget)


def attempt(work: Callable[[], Result]) -> Result | None:
    """The result, or None where the memory did not suffice; what the attempt held is free again then."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # outside the except block: the error's traceback has held every tensor of the attempt until here
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a device or on the host."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    said = (
        "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "alloc_failed",
        "std::bad_alloc", "can't start new thread", "failed to map segment",
    )  # fmt: skip
    # libraries that meet the limit of addresses while they load raise ImportError
    return isinstance(error, RuntimeError | OSError | ImportError) and any(phrase in text for phrase in said)


def return_freed_memory() -> None:
    """Make the C library give freed tensors back to the system, so that the peak is what is in use; glibc only.

    Left to itself it raises the limit to 32 MiB and keeps what lies in between: a third more at the peak of a pass.
    """
    try:
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, RETURNED_FROM)
    except (AttributeError, OSError, TypeError):
        return


def trim_freed_memory() -> None:
    """Give what has been freed so far back to the system; glibc only."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def _announce(name: str, budget: int) -> None:
    print(f"{name}: out of memory, going on with memory_budget={bytes_in_words(budget).replace(' ', '')}", flush=True)


@contextmanager
def saying_what_needs_memory(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error of the fit into a sentence: unlike a pass, a fit cannot cut its batches by itself,
    as the batch size is part of what is learned.

    Raises:
        UserError: naming what to lower.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"the fit ran out of memory with batches of {batch_size} examples; expected room for weights, gradients, "
            "AdamW's moments and one batch: lower model.batch_size (with trainer.accumulate_grad_batches raised as "
            "much, the learning stays nearly the same) or data.max_length, or use trainer.precision=bf16-mixed; "
            f"{KEPT}"
        ) from error
