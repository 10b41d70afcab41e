"""The benchmarks' lines about stored gradients of texts."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import rows, scaling, text_rows
from benchmarks.measured import TOLERANCE, Outcome
from benchmarks.pairs import Comparison, Timed, compare, progress, timed, used_clock
from twinlens.attribution.gradients.row_forms import DENSE
from twinlens.attribution.gradients.row_pass import RowPass

BERGSON_TOLERANCE = 1e-4
"""Relative difference of inner products of whole gradients, both in float32."""
BERGSON_PYTHON = "BERGSON_PYTHON"
"""Environment variable: the Python of an environment with bergson; else that of `.venv-bergson` in the checkout."""
ROOT = Path(__file__).parents[1]


def benchmark_text_rows(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Rows of 2048 numbers of documents through a small Llama, once, and any query then beside one pass over them."""
    sizes, tokens = ((20, 60), 16) if arguments.smoke else ((1000, 3000, 10_000), 128)
    lm = text_rows.small_llama()
    plan = text_rows.plan_of(lm, text_rows.OF_2048, 16)
    documents = text_rows.random_documents(sizes[-1], tokens, tokens, seed=1)
    query = text_rows.random_documents(1, tokens, tokens, seed=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        progress(f"text rows: {', '.join(map(str, sizes))} documents of {tokens} tokens")
        runs = [
            timed(partial(text_rows.stored, lm, plan, documents[:size], DENSE, folder / str(size))) for size in sizes
        ]
        seconds = [run.seconds for run in runs]
        outcome.add_value("text_rows_exponent_of_documents", scaling.fitted_exponent(sizes, seconds))
        outcome.add_value("text_rows_documents_per_second", sizes[-1] / seconds[-1])
        test = text_rows.stored(lm, plan, query, DENSE, folder / "query")
        subject = rows.Subject(runs[-1].result, test, top_k=10 if arguments.smoke else 100)
        measured = partial(rows.ours, subject), partial(rows.plain_product, subject)
        for side in measured:
            side()
        note = (
            f"one query, {sizes[-1]} documents of {tokens} tokens, {plan.layout.n_numbers} numbers a row; the peer is "
            "the product with the row file alone, one pass over it, twinlens adds lists and summary: 0.67 is 1.5 passes"
        )
        pairs = 1 if arguments.smoke else max(5, arguments.pairs)
        outcome.add(compare("query_vs_row_pass", *measured, pairs, rows.relative_difference, TOLERANCE, note))


def benchmark_bergson(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Rows of documents and scores of queries beside bergson: equal of whole gradients, timed of projected ones."""
    name = "text_rows_vs_bergson"
    python = Path(os.environ.get(BERGSON_PYTHON, ROOT / ".venv-bergson" / "bin" / "python"))
    if not python.is_file():
        outcome.skip(
            name,
            f"skipped: not installed; needs bergson in an environment of its own, whose Python {BERGSON_PYTHON} names",
        )
        return
    n_train, n_test, tokens = (12, 2, 16) if arguments.smoke else (256, 8, 128)
    lm = text_rows.small_llama()
    train, test = (text_rows.random_documents(n, tokens, tokens, seed) for n, seed in ((n_train, 1), (n_test, 2)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        lm.save_pretrained(folder / "model")
        torch.save(torch.stack(train), folder / "train.pt")
        torch.save(torch.stack(test), folder / "test.pt")
        ours = {dim: text_rows.plan_of(lm, "all", dim) for dim in (0, 16)}
        whole, peer = _twinlens(lm, ours[0], train, test, folder), _bergson(python, folder, 0)
        difference = rows.relative_difference(whole.result, peer.result)
        seconds: tuple[list[float], list[float]] = ([], [])
        for pair in range(1 if arguments.smoke else min(arguments.pairs, 3)):
            seconds[0].append(_twinlens(lm, ours[16], train, test, folder).seconds)
            seconds[1].append(_bergson(python, folder, 16).seconds)
            progress(f"{name}: pair {pair + 1}, {seconds[0][-1]:.3f} s against {seconds[1][-1]:.3f} s")
    note = (
        f"{n_train} documents and {n_test} queries of {tokens} tokens, {ours[16].layout.n_numbers} numbers a row, rows "
        f"on disk, all scores; batches of {text_rows.TOKENS_AT_ONCE} tokens; difference: of whole gradients"
    )
    outcome.add(Comparison(name, *seconds, difference, BERGSON_TOLERANCE, note))


def _twinlens(lm: object, plan: RowPass, train: list[Tensor], test: list[Tensor], folder: Path) -> Timed[Tensor]:
    for name in ("ours_train", "ours_test"):
        shutil.rmtree(folder / name, ignore_errors=True)

    def work() -> Tensor:
        found, asked = (
            text_rows.stored(lm, plan, documents, DENSE, folder / f"ours_{name}")
            for name, documents in (("train", train), ("test", test))
        )
        return text_rows.all_scores(found, asked)

    return timed(work)


def _bergson(python: Path, folder: Path, dim: int) -> Timed[Tensor]:
    for index in folder.glob("index_*"):
        shutil.rmtree(index)
    command = [str(python), str(Path(__file__).with_name("bergson_peer.py")), str(folder), str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    found = torch.load(folder / "bergson.pt")
    return Timed(found["seconds"][used_clock()][0], found["scores"])
