"""Rows of a large synthetic corpus stored and scored in bounded memory: `python -m benchmarks.million`.

Documents of up to 16 random tokens through a Llama of 260 000 parameters, gradients of all its linear layers. Anonymous
memory is what the process holds of its own beyond the corpus and the model; mapped rows are the system's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import Timed, progress, timed
from benchmarks.rows import anonymous_growth
from benchmarks.text_rows import batches_of, plan_of, random_documents, scored, small_llama, stored
from twinlens.attribution.gradients.row_forms import DENSE
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.storage import bytes_per_row, form_of
from twinlens.callbacks.passes.memory import return_freed_memory

LONGEST = 16
TOP_K = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Print bytes, times and how far anonymous memory grew, of the rows and of the scores."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="documents (1000000)")
    parser.add_argument("--queries", type=int, default=8, help="queries (8)")
    parser.add_argument("--storage", choices=["dense", "half", "factored"], default="factored", help="(factored)")
    parser.add_argument("--dim", type=int, default=16, help="projection_dim (16)")
    parser.add_argument("--params", default="all", help="layers (all)")
    parser.add_argument("--budget", type=int, default=256, help="memory_budget of the scores in MiB (256)")
    parser.add_argument("--folder", type=Path, help="where the rows go (the system's folder for temporary files)")
    parsed = parser.parse_args(arguments)
    return_freed_memory()  # as every pass of a run does
    lm, form = small_llama(), form_of(parsed.storage, 3)
    plan = plan_of(lm, parsed.params, parsed.dim)
    size = bytes_per_row(form, plan.layout)
    documents = random_documents(parsed.rows, 4, LONGEST, seed=1)
    queries = random_documents(parsed.queries, 4, LONGEST, seed=2)
    progress(f"{parsed.rows} documents in {len(batches_of(documents))} batches, {plan.layout.n_numbers} numbers a row")
    with tempfile.TemporaryDirectory(dir=parsed.folder) as name:
        folder = Path(name)
        test = stored(lm, plan, queries, DENSE, folder / "test")
        kept: list[Timed[GradientRows]] = []
        grown = anonymous_growth(
            lambda: kept.append(timed(lambda: stored(lm, plan, documents, form, folder / "train")))
        )
        print(
            f"rows: storage={form.name}, {size} bytes each, {size * parsed.rows / 2**20:.0f} MiB in all, "
            f"{kept[0].seconds:.0f} s ({parsed.rows / kept[0].seconds:.0f}/s), memory {grown / 2**20:.0f} MiB",
            flush=True,
        )
        seconds: list[float] = []
        grown = anonymous_growth(
            lambda: seconds.append(timed(lambda: scored(kept[0].result, test, TOP_K, parsed.budget * 2**20)).seconds)
        )
        print(
            f"scores: {parsed.queries} queries, {seconds[0]:.1f} s, memory {grown / 2**20:.0f} MiB under a budget of "
            f"{parsed.budget} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
