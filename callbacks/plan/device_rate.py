"""Basis of a plan: the device's rate, and what it is made of."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import xxhash

from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.checksums import READ_AT_ONCE
from twinlens.models.structure import structure_of

MEASURED_SECONDS = 0.2
"""How long the device's rate is measured."""
CHECKPOINT_SAMPLE = 2**28
"""Bytes of a checkpoint at most that are written to see how long one takes."""


def computed_in(precision: str, weights_in: torch.dtype = torch.float32) -> torch.dtype:
    """The type of matrix products under Lightning's name of a precision, over weights of a type."""
    if "bf16" in precision or weights_in == torch.bfloat16:
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else torch.float32


def operations_per_second(device: torch.device, width: int, dtype: torch.dtype) -> float:
    """Rate of products [256, width] · [width, 4·width] over about a fifth of a second."""
    left = torch.ones(256, width, device=device, dtype=dtype)
    right = torch.ones(width, 4 * width, device=device, dtype=dtype)

    return 2.0 * 256 * width * 4 * width / mean_seconds(lambda: left @ right, device)


def seconds_per_byte(size: int) -> float:
    """Time of writing a checkpoint and its checksum, on a file without a name that is gone afterwards.

    Args:
        size: of the checkpoint in bytes; large files take longer for each, and only of larger ones a part is written.
    """
    numbers = max(1, min(size, CHECKPOINT_SAMPLE) // 4)

    def write(state: torch.Tensor) -> None:
        with tempfile.TemporaryFile() as opened:
            torch.save(state, opened)
            opened.seek(0)
            digest = xxhash.xxh3_128()
            while block := opened.read(READ_AT_ONCE):
                digest.update(block)

    write(torch.zeros(1))  # loads libraries
    state = torch.zeros(numbers)
    # once: a second file would lie in the memory of the first
    start = time.perf_counter()
    write(state)
    return (time.perf_counter() - start) / (4 * numbers)


def mean_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Mean time of a call over about a fifth of a second, behind a first one that loads libraries and takes memory."""

    def finished() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    finished()
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < MEASURED_SECONDS or not count:
        finished()
        count += 1
    return elapsed / count


def rates_told(device: torch.device, rate: float, probed: bool) -> str:
    """What a plan's times on this machine rest on."""
    how = "every kind of pass timed just now on a few blocks;" if probed else "counted operations at the rate of"
    return f"times: on {device}, one process; {how} a matrix product of the model's width {rate / 1e9:.0f} GFLOP/s"


def heading(shape: costs.Shape, session: Session) -> str:
    """What the plan is about."""
    footprint = shape.footprint
    rows: Sequence[str] = [f"{split} {len(data)}" for split, data in session.data.splits.items()]
    return (
        f"plan: {footprint.family}, {shape.parameters / 1e6:.1f} M parameters, {footprint.n_layers} layers of "
        f"{footprint.hidden_size} with {footprint.n_neurons} neurons; {session.data.name}: {', '.join(rows)} examples"
    )


def parts_told(backbone: Any) -> str:
    """What the model is made of, found in a small twin of it."""
    try:
        found = structure_of(backbone)
    except UserError:
        return "parts: found in the model itself, once its weights are read"
    return f"parts: {'no chain of blocks' if found is None else found.told()}"
