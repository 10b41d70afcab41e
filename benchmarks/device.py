"""Measured limits of the device, and the share of them that integrated gradients reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import GPTNeoXConfig

from benchmarks import ig
from benchmarks.pairs import Timed, timed
from twinlens.attribution.neuron.ig import PRESETS
from twinlens.attribution.neuron.path_integral import integrated_gradients

REPEATS = 10
"""Of a product or a copy; the best counts, since other work on the device only ever adds."""
PYTHIA_410M = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MEMORY_BUDGET = 16 * 2**30


def best_seconds(work: Callable[[], object]) -> float:
    """Best of some runs, after one that does not count."""
    work()
    return min(timed(work).seconds for _ in range(REPEATS))


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Floating-point operations per second of a product of two square matrices."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / best_seconds(lambda: left @ right)


def copy_rate(device: torch.device, n_bytes: int) -> float:
    """Bytes per second that a copy within the device's memory reads and writes."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / best_seconds(lambda: target.copy_(source))


@dataclass(frozen=True)
class Task:
    """A model of pythia-410m's architecture on the device, and a batch of inputs of equal length.

    Attributes:
        subject: the model, and the first input for the plain loop.
        batch: all inputs, as a run's pass hands them over.
    """

    subject: ig.Subject
    batch: dict[str, Tensor]


def build_task(device: torch.device, dtype: torch.dtype, n: int, n_tokens: int, n_steps: int, smoke: bool) -> Task:
    """Random weights; the checks at load time run in float32 on the CPU, outside the clock."""
    config = GPTNeoXConfig(**(TINY if smoke else PYTHIA_410M), vocab_size=60 if smoke else 50304)
    subject = ig.build_subject(config, n_tokens, n_steps)
    subject.backbone.to(device, dtype)
    subject.head.to(device, dtype)
    ids = torch.randint(0, config.vocab_size, (n, n_tokens), device=device)
    batch = {
        "index": torch.arange(n, device=device),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.full((n,), -1, device=device),
    }
    return Task(replace(subject, input_ids=ids[:1]), batch)


def attribute(task: Task) -> Tensor:
    """Scores of all neurons of all layers, [examples, layers, neurons]."""
    path, steps = PRESETS["paper"], task.subject.n_steps
    return integrated_gradients(task.subject.engine, task.batch, path, steps, MEMORY_BUDGET).scores


def per_instance(task: Task) -> Timed[Tensor]:
    """The first example's scores, [layers, neurons], and the batch's time divided by its examples."""
    found = timed(lambda: attribute(task))
    return Timed(found.seconds / len(task.batch["index"]), found.result[0])


class Operations(TorchDispatchMode):
    """Counts floating-point operations of products and attentions, forward and backward, by PyTorch's own formulas.

    PyTorch's FlopCounterMode also follows modules by hooks on gradients, which gradients at leaves do not allow.

    Attributes:
        total: counted so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        found = function(*args, **given)
        if (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.total += formula(*args, **given, out_val=found)
        return found


def operations(task: Task) -> int:
    """Floating-point operations of `attribute`."""
    with Operations() as counter:
        attribute(task)
    return counter.total
