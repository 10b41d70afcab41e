"""Machines that a plan can be made for without being there: rates and memory of data sheets, in machines.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.callbacks.plan.table import Line

LISTED = Path(__file__).with_name("machines.csv")
SHARE = 0.4
"""Part of a data sheet's rate that counts: decoders commonly reach 30 to 50 % of it with whole batches."""
CONTEXT = 600_000_000
"""Bytes that CUDA and its libraries take of a device before anything is computed."""


@dataclass(frozen=True)
class Machine:
    """One device by its data sheet.

    Attributes:
        name: as in `plan_for`.
        memory: in bytes.
        float32, half: operations per second of dense matrix products, in float32 without TF32, and in 16 bits.
        source: where the figures stand.
    """

    name: str
    memory: int
    float32: float
    half: float
    source: str

    def rate(self, dtype: torch.dtype) -> float:
        """Operations per second that count in a type of numbers."""
        return SHARE * (self.float32 if dtype == torch.float32 else self.half)

    def told(self, dtype: torch.dtype) -> str:
        """What the plan's times rest on."""
        peak = self.float32 if dtype == torch.float32 else self.half
        return (
            f"times: estimated for one {self.name}, never measured here: {SHARE:.0%} of the {peak / 1e12:g} TFLOP/s of "
            f"{str(dtype).removeprefix('torch.')} products in its data sheet ({self.source}); what runs on its host, "
            "and what is written to disk, at this machine's rates"
        )

    def fitting(self, lines: Sequence[Line]) -> str:
        """Which passes do not fit the device."""
        room = self.memory - CONTEXT
        above = [line.name for line in lines if line.where == "cuda" and line.peak > room]
        said = f"{bytes_in_words(room)} of {self.name} are left beside CUDA itself"
        return f"memory: every pass fits: {said}" if not above else f"memory: too much for {', '.join(above)}: {said}"


def machines() -> dict[str, Machine]:
    """Name → machine, as listed."""
    with LISTED.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    return {
        row["machine"]: Machine(
            row["machine"],
            int(float(row["memory_gb"]) * 1e9),
            float(row["float32_tflops"]) * 1e12,
            float(row["half_tflops"]) * 1e12,
            row["source"],
        )
        for row in rows
    }


def machine_of(name: str) -> Machine:
    """The machine of that name, whatever its case.

    Raises:
        UserError: it is not listed.
    """
    listed = machines()
    found = next((machine for key, machine in listed.items() if key.lower() == name.lower()), None)
    if found is None:
        raise UserError(
            f"plan_for={name} is no machine whose rates and memory are listed; expected one of {', '.join(listed)}: "
            "name the nearest one, or add a row to callbacks/plan/machines.csv."
        )
    return found
