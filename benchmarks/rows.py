"""Scores over stored rows beside a plain matrix product of the same size: `python -m benchmarks.rows`.

Everything beside the product is counted in: reading the memory map, ranking, train summary. Anonymous memory is what
the process holds of its own; pages of the mapped file belong to the system's cache and are not counted. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.memory import resident
from benchmarks.pairs import Timed, progress, timed
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.stream import stream_scores
from twinlens.callbacks.passes.memory import return_freed_memory
from twinlens.callbacks.store.row_files import RowFiles

BUDGET = 2**29
ROWS_WRITTEN_AT_ONCE = 1000
SECONDS_BETWEEN_LOOKS = 0.01


@dataclass(frozen=True)
class Subject:
    """Stored rows of a train split, and tests."""

    train: GradientRows
    test: GradientRows
    top_k: int


def build_subject(folder: Path, n_train: int, n_test: int, side: int, layers: int, top_k: int) -> Subject:
    """Random rows of some layers with side × side numbers each, written to a folder as the stage writes them."""
    layout = row_layout([f"layer{number}" for number in range(layers)], [(side, side)] * layers)
    files = RowFiles.create(folder, n_train, layout.widths, {})
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(rows, width, generator=generator) for width in layout.widths)

    for start in range(0, n_train, ROWS_WRITTEN_AT_ONCE):
        rows = range(start, min(start + ROWS_WRITTEN_AT_ONCE, n_train))
        files.write(rows, drawn(len(rows)))
    return Subject(GradientRows(layout, files.map()), GradientRows(layout, drawn(n_test)), top_k)


def ours(subject: Subject) -> Timed[Tensor]:
    """Lists of all tests and the train summary; the tests' best scores."""
    method = GradientSimilarity(params="all", projection="random", top_k=subject.top_k)

    def work() -> Tensor:
        scorer = method.prepare(subject.train, BUDGET)
        index = torch.arange(len(subject.test))
        return stream_scores(scorer, subject.test, index, subject.top_k, BUDGET)[0].top_score

    return timed(work)


def plain_product(subject: Subject) -> Timed[Tensor]:
    """The product of the tests with all train rows, read from the same file, and nothing else."""

    def work() -> Tensor:
        total = subject.test.groups[0] @ subject.train.groups[0].T
        for left, right in zip(subject.test.groups[1:], subject.train.groups[1:], strict=True):
            total.addmm_(left, right.T)
        return total

    found = timed(work)
    return Timed(found.seconds, found.result.topk(subject.top_k, dim=1).values)


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference relative to the largest score."""
    return float((scores - reference).abs().max() / reference.abs().max())


def anonymous_growth(work: Callable[[], object]) -> int:
    """How far the process's anonymous memory rises during `work`, in bytes, looked at every 10 ms."""
    before = highest = resident("RssAnon")
    done = threading.Event()

    def look() -> None:
        nonlocal highest
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            highest = max(highest, resident("RssAnon"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the share of a plain product's rate, pair by pair, and the growth of anonymous memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rows", description=__doc__)
    parser.add_argument("--train", type=int, default=100_000, help="stored rows (100000)")
    parser.add_argument("--tests", type=int, default=1000, help="tests (1000)")
    parser.add_argument("--pairs", type=int, default=3, help="interleaved pairs (3)")
    parsed = parser.parse_args(arguments)
    return_freed_memory()  # as every pass of a run does
    with tempfile.TemporaryDirectory() as folder:
        subject = build_subject(Path(folder), parsed.train, parsed.tests, 16, 16, 100)
        progress("written")
        # the first run: later ones find memory that the allocator has kept
        print(f"anonymous memory {anonymous_growth(lambda: ours(subject)) / 2**20:.0f} MiB", flush=True)
        for _ in range(parsed.pairs):
            found, plain = ours(subject), plain_product(subject)
            difference = relative_difference(found.result, plain.result)
            print(
                f"rows {found.seconds:.2f} s, plain product {plain.seconds:.2f} s, "
                f"share {plain.seconds / found.seconds:.2f}, difference {difference:.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
