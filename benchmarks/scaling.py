"""Growth of time with the train split, as an exponent fitted over two orders of magnitude, and with processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.instance import MEMORY_BUDGET, Splits, build_splits
from benchmarks.pairs import Comparison, Timed, compare, timed
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.stream import stream_scores

IG_RUN = ("method=[ig]", "evaluation=[]", "method.ig.n_steps=100")
"""Long enough that starting the pass does not count."""
METHODS: dict[str, Any] = {
    "gradsim": GradientSimilarity(),
    "influence": Influence(solver="direct"),
}


def fitted_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time against log size by least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, seconds))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


def seconds_over_n_train(name: str, sizes: Sequence[int], n_tests: int, hidden: int, repeats: int) -> list[float]:
    """Best time of preparing a method and streaming its scores, for each number of train rows.

    The best of the repeats, in rounds over all sizes: noise of the machine only ever adds.
    """
    splits = [build_splits(size, n_tests, hidden, 4, 100) for size in sizes]
    runs = [timed(lambda part=part: _stream(METHODS[name], part)).seconds for part in splits]
    for _ in range(repeats):
        again = [timed(lambda part=part: _stream(METHODS[name], part)).seconds for part in splits]
        runs = [min(pair) for pair in zip(runs, again, strict=True)]
    return runs


def compare_processes(pairs: int) -> Comparison:
    """Two processes of one thread each against one: integrated gradients over the demo's test split."""
    note = "ig over 200 test examples of the demo, fit and start excluded; the peer is one process of one thread"
    one, two = (lambda n=n: Timed(seconds_of_processes(n, IG_RUN), None) for n in (1, 2))
    return compare("processes_2_vs_1", two, one, min(pairs, 3), None, None, note)


def seconds_of_processes(n_processes: int, arguments: Sequence[str]) -> float:
    """Attribution's time in a run with some processes of one thread each, from the run's own metrics."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(Path(__file__).parents[1] / "train.py"), *arguments,
            "trainer=ddp_cpu", f"trainer.devices={n_processes}", f"paths.output_dir={folder}", "logger=none",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        (metrics,) = Path(folder).rglob("metrics.json")
        return float(json.loads(metrics.read_text(encoding="utf-8"))["time/attribute"])


def _stream(method: Any, splits: Splits) -> None:
    scorer = method.prepare(splits.train, MEMORY_BUDGET)
    stream_scores(scorer, splits.test, torch.arange(len(splits.test)), splits.top_k, MEMORY_BUDGET)
