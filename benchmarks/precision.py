"""What bf16 changes: every method's ranking in bf16-mixed and bf16-true against float32, same weights, as a table.

    python -m benchmarks.precision [--model DIR] [--n-train N] [--n-test N] [--epochs N]

A classifier is fine-tuned in float32 on the demo data, from scratch or from a checkpoint, and explained three times.
Per test example: share of the float32 list's best 10 and 100 that are among the other's best, Spearman's correlation
over the units or rows that both lists hold, and the largest difference of a score over the largest score.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
PRECISIONS = ("bf16-mixed", "bf16-true")
NEURON, INSTANCE = ("ig", "logprob_increase"), ("gradsim", "influence")
LIST = 1000
"""Length of the compared lists: all training rows, and of neurons as many as the model has up to this."""

Ranking = dict[tuple[int, ...], float]
"""What was scored (layer and unit, or training row) → score, best first."""


def run(folder: Path, *arguments: str) -> Path:
    """Run train.py in a folder; the run's folder."""
    finished = subprocess.run(
        [sys.executable, str(TRAIN), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(finished.stderr)
    return folder / finished.stdout.strip().splitlines()[-1]


def rankings(run_folder: Path, method: str) -> list[Ranking]:
    """A method's list for every test example."""
    rows = datasets.load_from_disk(str(run_folder / "scores" / method / "test"))
    if method in INSTANCE:
        return [{(i,): s for i, s in zip(row["top_index"], row["top_score"], strict=True)} for row in rows]
    return [
        {(layer, unit): s for layer, unit, s in zip(row["layer"], row["unit"], row["score"], strict=True)}
        for row in rows
    ]


def agreement(reference: Ranking, other: Ranking) -> dict[str, float]:
    """How far two rankings of one test example agree, see the module."""
    ordered, others = list(reference), list(other)
    common = [key for key in reference if key in other]
    a, b = (np.array([ranking[key] for key in common]) for ranking in (reference, other))
    found = {f"top{k}": len({*ordered[:k]} & {*others[:k]}) / min(k, len(ordered)) for k in (10, 100)}
    found["spearman"] = float(np.corrcoef(ranks(a), ranks(b))[0, 1])
    found["difference"] = float(np.abs(a - b).max() / np.abs(a).max())
    return found


def ranks(values: np.ndarray) -> np.ndarray:
    """Position of each value in their order."""
    return np.argsort(np.argsort(values))


def measure(folder: Path, model: str | None, n_train: int, n_test: int, epochs: int) -> list[list[str]]:
    """One row of the table per method and precision."""
    sizes = [f"data.n_train={n_train}", "data.n_validation=20", f"data.n_test={n_test}", "data.n_twins=2"]
    common = [*sizes, "evaluation=accuracy", "logger=none"]
    start = ["model=local", f"model.path={Path(model).resolve()}", "model.learning_rate=1e-3"] if model else []
    fitted = run(folder, *common, *start, "method=gradsim", f"trainer.max_epochs={epochs}")
    methods = f"method=[{','.join((*NEURON, *INSTANCE))}]"
    lists = [f"method.{name}.top_k={n_train if name in INSTANCE else LIST}" for name in (*NEURON, *INSTANCE)]
    explain = [*common, "fit=false", "model=local", f"model.path={fitted.resolve() / 'model'}", methods, *lists]
    whole = run(folder, *explain, "trainer.precision=32-true")
    rows = []
    for precision in PRECISIONS:
        lower = run(folder, *explain, f"trainer.precision={precision}")
        for method in (*NEURON, *INSTANCE):
            pairs = zip(rankings(whole, method), rankings(lower, method), strict=True)
            found = [agreement(reference, other) for reference, other in pairs]
            means = {name: np.mean([one[name] for one in found]) for name in ("top10", "top100", "spearman")}
            worst = max(one["difference"] for one in found)
            of_hundred = "–" if method in INSTANCE and n_train <= 100 else f"{means['top100']:.1%}"  # all are in both
            shown = [f"{means['top10']:.1%}", of_hundred, f"{means['spearman']:.4f}", f"{worst:.1%}"]
            rows.append([method, precision, *shown])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a pretrained checkpoint to fine-tune; without it: model=tiny from scratch")
    parser.add_argument("--n-train", type=int, default=200)
    parser.add_argument("--n-test", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.model, options.n_train, options.n_test, options.epochs)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "transformers"))
    print(f"{Path(options.model).name if options.model else 'tiny'}, {options.n_train} training rows, "
          f"{options.n_test} tests, {options.epochs} epochs; {versions}; {datetime.now(UTC):%Y-%m-%d}\n")  # fmt: skip
    print("| method | precision | top 10 | top 100 | Spearman | largest difference |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
