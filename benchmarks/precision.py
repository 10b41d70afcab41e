"""Change under bf16: every method's ranking in bf16-mixed and bf16-true against float32, as a table.

    python -m benchmarks.precision [--model DIR] [--n-train N] [--n-test N] [--epochs N]

A classifier is fine-tuned in float32 on the demo data, from scratch or from a checkpoint, and explained in each
precision. A run has one setting of each method, so that gradients of the head, whole gradients of all layers and stored
rows of them are three runs, which share their predictions.
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
NEURON, INSTANCE = ("ig", "logprob_increase"), ("gradsim", "influence", "similarity")
GRADIENTS = ("gradsim", "influence")
EKFAC = ("method.influence.curvature=ekfac",)
SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "": ((*NEURON, *INSTANCE), ()),
    ", all layers, whole": (GRADIENTS, (*(f"method.{name}.params=all" for name in GRADIENTS), *EKFAC)),
    ", all layers, stored": (
        GRADIENTS,
        (*(f"method.{name}.{key}" for name in GRADIENTS for key in ("params=all", "projection=random")), *EKFAC),
    ),
}
"""What is said behind a method's name → methods of a run, and their settings."""
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
    if "top_index" in rows.column_names:
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
    explain = [*common, "fit=false", "model=local", f"model.path={fitted.resolve() / 'model'}"]
    rows = []
    for said, (methods, settings) in SETTINGS.items():
        lists = [f"method.{name}.top_k={n_train if name in INSTANCE else LIST}" for name in methods]
        asked = [*explain, f"method=[{','.join(methods)}]", *settings, *lists]
        whole = run(folder, *asked, "trainer.precision=32-true")
        for precision in PRECISIONS:
            lower = run(folder, *asked, f"trainer.precision={precision}")
            for method in methods:
                pairs = zip(rankings(whole, method), rankings(lower, method), strict=True)
                shown = summary([agreement(*pair) for pair in pairs], method not in INSTANCE or n_train > 100)
                rows.append([method + said, precision, *shown])
    return rows


def summary(found: Sequence[dict[str, float]], has_hundred: bool) -> list[str]:
    """Means over the tests, and the worst difference; lists of a hundred or fewer are in both as a whole."""
    means = {name: np.mean([one[name] for one in found]) for name in ("top10", "top100", "spearman")}
    worst = max(one["difference"] for one in found)
    of_hundred = f"{means['top100']:.1%}" if has_hundred else "–"
    return [f"{means['top10']:.1%}", of_hundred, f"{means['spearman']:.4f}", f"{worst:.1%}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a pretrained checkpoint to fine-tune; without it: model=tiny from scratch")
    parser.add_argument("--n-train", type=int, default=200)
    parser.add_argument("--n-test", type=int, default=50)
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
