"""Measurements of a CUDA device, as functions that also run on a CPU at tiny sizes: see `benchmarks.on_gpu`.

Every step gives figures as plain numbers, and refuses what should be equal and is not.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import GPT2Config

from benchmarks import device as gpu
from benchmarks import ig, layers, memory
from benchmarks.layers import relative_difference
from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.callbacks.passes.memory import WithinMemory

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "data.n_train=60", "data.n_validation=10", "data.n_test=20", "data.n_twins=2", "trainer.max_epochs=1",
    "logger=none",
)  # fmt: skip
"""A run of the demo that takes seconds."""
CLOSE = 5e-3
"""Relative difference of float32 sums taken in another order, or on another device, behind a fit."""


@dataclass(frozen=True)
class Step:
    """One measurement.

    Attributes:
        what: is measured, for a reader.
        limit: seconds that it may take.
        run: (device, whether at a tiny size) → figures.
    """

    what: str
    limit: int
    run: Callable[[torch.device, bool], dict[str, Any]]


def ig_bf16(device: torch.device, smoke: bool) -> dict[str, Any]:
    """Integrated gradients at pythia-410m's shape in bf16, beside a plain loop over some layers in bf16 as well."""
    n, tokens, steps, looped = (2, 16, 4, 2) if smoke else (8, 512, 20, 2)
    task = gpu.build_task(device, torch.bfloat16, n, tokens, steps, smoke)
    seconds = min(gpu.timed(lambda: gpu.attribute(task)).seconds for _ in range(3))
    rate = gpu.matrix_rate(device, torch.bfloat16, 64 if smoke else 8192)
    chosen = ig.chosen_layers(task.subject.n_layers, looped)
    loop = ig.plain_loop(task.subject, chosen)
    own = gpu.per_instance(task)
    found, expected = own.result[chosen].float(), loop.result.float()
    return {
        "instances_per_s": n / seconds,
        "share_of_matrix_rate": gpu.operations(task) / seconds / rate,
        "times_faster_than_loop": loop.seconds / own.seconds,
        "correlation_with_loop": float(torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1]),
    }


def ekfac_rows(device: torch.device, smoke: bool) -> dict[str, Any]:
    """EK-FAC influence over all layers on the device: rows per second, and how far a few lie from the CPU's."""
    shape = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50) if smoke else GPT2Config(n_layer=12, n_embd=768)
    n_train, n_test, tokens = (8, 2, 6) if smoke else (256, 16, 128)
    task = moved(layers.build_task(shape, tokens, n_train, n_test, min(32, n_train)), device)
    done = layers.ours(task)
    few = GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=100)
    here, there = (
        layers.ours(moved(layers.build_task(few, 8, 16, 4, 8), place)).result.double().cpu()
        for place in (torch.device("cpu"), device)
    )
    difference = relative_difference(there, here)
    require(difference < CLOSE, f"scores on {device} differ from the CPU's by {difference:.1e}")
    return {
        "rows_per_s": n_train / done.seconds,
        "seconds": done.seconds,
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "difference_from_cpu": difference,
    }


def moved(task: layers.Task, device: torch.device) -> layers.Task:
    """A task with its model and rows on a device."""
    splits = ({name: rows.to(device) for name, rows in split.items()} for split in (task.train, task.test))
    return replace(task, model=task.model.to(device), **dict(zip(("train", "test"), splits, strict=True)))


def ddp_of_one(device: torch.device, smoke: bool) -> dict[str, Any]:
    """A run by DDP with one process beside the same run without: seconds, and that they give the same scores."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        asked = ("method=gradsim", "evaluation=accuracy", f"trainer.accelerator={accelerator}", "trainer.devices=1")
        plain = run_of(place / "plain", *asked)
        ddp = run_of(place / "ddp", "trainer=ddp", *asked)
        first, second = (scores_of(done.folder, "gradsim") for done in (plain, ddp))
    difference = relative_difference(second, first)
    require(difference < CLOSE, f"scores of DDP differ by {difference:.1e}")
    return {"plain_seconds": plain.seconds, "ddp_seconds": ddp.seconds, "difference": difference}


def out_of_memory(device: torch.device, smoke: bool) -> dict[str, Any]:
    """A pass whose budget is more than the device has: how often it halves its batches, and that it ends the same."""
    hidden, n, tokens = (64, 4, 12) if smoke else (512, 64, 128)
    engine = memory.engine_of(2 if smoke else 4, hidden, device=device)
    method = IntegratedGradients(n_steps=4)
    need = method.need(EngineSizes(engine.footprint))
    batch = memory.random_batch(n, tokens, device)
    budgets: list[int] = []

    def compute(part: Any, budget: int) -> dict[str, Tensor]:
        budgets.append(budget)
        if device.type == "cpu" and len(part["index"]) > n // 4:
            raise torch.OutOfMemoryError("CUDA out of memory: as a small device would say")
        return {"index": part["index"], "score": method.attribute(engine, part, budget).score}

    small = WithinMemory("small", compute, need.least(tokens), need)(batch)["score"]
    wanted = need.peak(n, tokens, 2**40)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(device).total_memory
        room = torch.cuda.memory_reserved(device) + wanted // 3
        torch.cuda.set_per_process_memory_fraction(room / whole, device)
    budgets.clear()
    large = WithinMemory("large", compute, 2 * wanted, need)(batch)["score"]
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    halved = len(set(budgets)) - 1
    require(halved > 0, "nothing ran out of memory, so that nothing was seen of what follows")
    difference = relative_difference(large.flatten(1).double(), small.flatten(1).double())
    require(difference < CLOSE, f"scores of halved batches differ by {difference:.1e}")
    return {"halved": halved, "budget_asked": 2 * wanted, "budget_left": min(budgets), "difference": difference}


def auto_batch_size(device: torch.device, smoke: bool) -> dict[str, Any]:
    """`data.eval_batch_size=auto` of a run: what is found, and that the run ends with it."""
    with tempfile.TemporaryDirectory() as folder:
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        asked = ("method=ig", "evaluation=accuracy", f"trainer.accelerator={accelerator}")
        done = run_of(Path(folder), *asked, "data.eval_batch_size=auto")
    said = re.search(r"eval_batch_size=(\d+): found on (.+)", done.out)
    require(said is not None, "the run said no eval_batch_size")
    assert said is not None
    return {"found": int(said[1]), "on": said[2], "seconds": done.seconds}


def plan_against_measured(device: torch.device, smoke: bool) -> dict[str, Any]:
    """Planned and measured memory of prediction, integrated gradients and faithfulness, in float32 and bfloat16."""
    words = ["--layers", "1", "--hidden", "64", "--tokens", "16", "--batch", "2", "--lists", "2"] if smoke else []
    found = {}
    for dtype in ("float32", "bfloat16"):
        arguments: argparse.Namespace = memory.parse([*words, "--dtype", dtype])
        for name in ("predict", "ig", "faithfulness"):
            measured, planned = memory.model_pass(name, arguments, 2**28, device)
            found[f"{name}, {dtype}"] = {"planned": planned, "measured": measured, "share": measured / planned}
    return found


STEPS = {
    "ig_bf16": Step("integrated gradients at pythia-410m's shape in bf16, beside a plain loop", 120, ig_bf16),
    "ekfac_rows": Step("EK-FAC influence of 12 layers of 768: rows per second, and as the CPU says", 90, ekfac_rows),
    "ddp_of_one": Step("a run by DDP with one process beside one without", 110, ddp_of_one),
    "out_of_memory": Step("a pass that runs out of memory, halves its batches and ends the same", 40, out_of_memory),
    "auto_batch_size": Step("data.eval_batch_size=auto on the device", 60, auto_batch_size),
    "plan_against_measured": Step("planned and measured memory, float32 and bfloat16", 60, plan_against_measured),
}
"""Name → step, in their order; their limits add up to 8 minutes."""


@dataclass(frozen=True)
class Run:
    """A finished run of train.py: its folder, what it printed and its seconds, libraries included."""

    folder: Path
    out: str
    seconds: float


def run_of(folder: Path, *arguments: str) -> Run:
    """`train.py` on the small demo in a folder and store of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *arguments, "hydra.run.dir=run"]
    done = gpu.timed(lambda: subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False))
    if done.result.returncode:
        raise RuntimeError(done.result.stderr.strip()[-1500:])
    return Run(folder / "run", done.result.stdout, done.seconds)


def scores_of(run: Path, method: str) -> Tensor:
    """Scores of every train row for every test, [tests, train rows], 0 where a list does not name one."""
    rows = datasets.load_from_disk(str(run / "scores" / method / "test")).with_format("torch")
    index, score = torch.stack([*rows["top_index"][:]]), torch.stack([*rows["top_score"][:]])
    return torch.zeros(len(index), int(index.max()) + 1).scatter_(1, index.long(), score).double()


def require(holds: bool, otherwise: str) -> None:
    """End a step whose figures would say nothing."""
    if not holds:
        raise RuntimeError(otherwise)
