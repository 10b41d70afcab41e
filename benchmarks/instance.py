"""Gradient similarity of all test × train pairs: factored and streamed, or with per-example gradients by autograd.

`python -m benchmarks.instance` streams gradient similarity and influence at full size, each in a process of its own,
and prints seconds and peak memory for several numbers of tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.memory import growth
from benchmarks.pairs import Timed, timed
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.instance.train_summary import TrainSummary
from twinlens.callbacks.passes.memory import return_freed_memory

MEMORY_BUDGET = 4 * 2**30
"""The default of conf/train.yaml."""


@dataclass(frozen=True)
class Splits:
    """Random features and labels of two splits under one linear head."""

    train: HeadInputs
    test: HeadInputs
    top_k: int


def build_splits(n_train: int, n_test: int, hidden: int, n_classes: int, top_k: int, seed: int = 0) -> Splits:
    """Features of unit variance and a head whose scores are of order one."""
    torch.manual_seed(seed)
    head = nn.Linear(hidden, n_classes)
    nn.init.normal_(head.weight, std=hidden**-0.5)

    def split(size: int) -> HeadInputs:
        return HeadInputs(torch.randn(size, hidden), torch.randint(0, n_classes, (size,)), head)

    return Splits(split(n_train), split(n_test), top_k)


def ours(splits: Splits) -> Timed[Tensor]:
    """Best scores of each test, [tests, top_k], best first."""

    def run() -> Tensor:
        scorer = GradientSimilarity(top_k=splits.top_k).prepare(splits.train, MEMORY_BUDGET)
        index = torch.arange(len(splits.test))
        return stream_scores(scorer, splits.test, index, splits.top_k, MEMORY_BUDGET)[0].top_score

    return timed(run)


def autograd_loop(splits: Splits) -> Timed[Tensor]:
    """The same with one backward per example, all gradients kept, and one matrix product in float64."""

    def run() -> Tensor:
        train, test = gradients(splits.train), gradients(splits.test)
        return (test @ train.T).topk(splits.top_k, dim=1).values

    return timed(run)


def gradients(inputs: HeadInputs) -> Tensor:
    """Loss gradient of every example, [examples, parameters], float64."""
    rows = []
    for feature, label in zip(inputs.features, inputs.labels, strict=True):
        loss = nn.functional.cross_entropy(inputs.head(feature), label)
        parts = torch.autograd.grad(loss, list(inputs.head.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows).double()


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference of the best scores relative to the best of their test, both [tests, top_k]."""
    return float(((scores - reference).abs().amax(1) / reference.abs().amax(1)).max())


METHODS: dict[str, Any] = {
    "gradsim": GradientSimilarity(),
    "gradsim_float32": GradientSimilarity(dtype="float32"),
    "influence": Influence(),
    "influence_cg": Influence(solver="cg"),
    "influence_lissa": Influence(solver="lissa", damping=0.04),
    "influence_ekfac": Influence("ekfac"),
}
SHARD = 512
"""Tests whose lists are held at a time, as in a run, which writes each shard before the next."""


def random_inputs(n: int, hidden: int, choices: int, head: nn.Linear) -> HeadInputs:
    """Features of unit variance; several sequences per example for multiple choice."""
    shape = (n, choices, hidden) if choices else (n, hidden)
    return HeadInputs(torch.randn(shape), torch.randint(0, choices or head.out_features, (n,)), head)


def stream_all(name: str, n_train: int, n_test: int, hidden: int, choices: int, budget: int) -> dict[str, float]:
    """Seconds and growth of resident memory, in bytes, of top-100 lists and the train summary of one method.

    The tests' features are drawn shard by shard outside the clock; self-influence belongs to the summary.
    """
    torch.manual_seed(0)
    seconds = {"prepare": 0.0, "stream": 0.0, "self": 0.0}

    def work(n_train: int, n_test: int, hidden: int) -> None:
        head = nn.Linear(hidden, 1 if choices else 4, bias=False)
        nn.init.normal_(head.weight, std=hidden**-0.5)
        train = random_inputs(n_train, hidden, choices, head)
        began = time.perf_counter()
        scorer = METHODS[name].prepare(train, budget)
        seconds["prepare"] = time.perf_counter() - began
        summary = TrainSummary.empty(n_train)
        seconds["stream"] = 0.0
        for start in range(0, n_test, SHARD):
            test = random_inputs(min(SHARD, n_test - start), hidden, choices, head)
            began = time.perf_counter()
            _, part = stream_scores(scorer, test, torch.arange(start, start + len(test)), 100, budget)
            summary = summary.merge(part)
            seconds["stream"] += time.perf_counter() - began
        began = time.perf_counter()
        summary.finalize(scorer.self_influence())
        seconds["self"] = time.perf_counter() - began

    work(20, 4, 8)
    peak = growth(lambda: work(n_train, n_test, hidden))
    return {"bytes": peak, **seconds}


def main(given: Sequence[str] | None = None) -> int:
    """One row per method and number of tests; 0 always: the figures are for a reader."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instance", description="Streamed scores at full size.")
    parser.add_argument("--methods", nargs="+", default=["gradsim", "influence"], choices=METHODS)
    parser.add_argument("--tests", nargs="+", type=int, default=[1000, 10_000])
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--choices", type=int, default=0, help="sequences per example; 0: classification, 4 classes")
    parser.add_argument("--budget", type=int, default=1024, help="in MiB")
    parser.add_argument("--single", action="store_true", help="the first method at the first size, here, as JSON")
    words = list(sys.argv[1:] if given is None else given)
    asked = parser.parse_args(words)
    if asked.single:
        return_freed_memory()
        sizes = asked.train, asked.tests[0], asked.hidden, asked.choices, asked.budget * 2**20
        print(json.dumps(stream_all(asked.methods[0], *sizes)))
        return 0
    print(
        "| method | train × tests | prepare, s | stream, s | self-influence, s | peak, MiB |\n|---|---|---|---|---|---|"
    )
    for name in asked.methods:
        for n_test in asked.tests:
            command = [sys.executable, "-m", "benchmarks.instance", *words, "--single"]
            command += ["--methods", name, "--tests", str(n_test)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            times = " | ".join(f"{found[key]:.1f}" for key in ("prepare", "stream", "self"))
            print(f"| {name} | {asked.train} × {n_test} | {times} | {found['bytes'] / 2**20:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
