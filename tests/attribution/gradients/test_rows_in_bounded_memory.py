"""Scores over a file of small rows take the memory of a block, whatever the number of rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.rows import anonymous_growth
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.small_forms import Factored
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.stream import stream_scores
from twinlens.callbacks.passes.memory import return_freed_memory

LAYERS, ROWS, BUDGET = 8, 60_000, 2**25


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("n_tests", [2, 12])  # the factors themselves, and rows that are formed
def test_memory_of_scores_does_not_grow_with_the_rows(tmp_path: Path, n_tests: int) -> None:
    layout, form = row_layout([f"layer{number}" for number in range(LAYERS)], [(16, 16)] * LAYERS), Factored(3)
    draw = np.random.default_rng(0)
    arrays = []
    for number, (width, dtype) in enumerate(form.arrays(layout)):
        name = str(dtype).removeprefix("torch.")
        values = draw.integers(-127, 128, (ROWS, width)) if name == "int8" else draw.random((ROWS, width))
        values.astype(name).tofile(tmp_path / str(number))
        arrays.append(torch.from_numpy(np.memmap(tmp_path / str(number), name, "c", shape=(ROWS, width))))
    train = GradientRows(layout, tuple(arrays), form=form)  # type: ignore[arg-type]
    test = GradientRows(layout, tuple(torch.randn(n_tests, width) for width in layout.widths))
    formed = 4 * layout.n_numbers * ROWS
    return_freed_memory()  # as every pass of a run does

    def work(rows: int) -> None:
        scorer = GradientSimilarity(params="all", projection="random").prepare(train.rows(0, rows), BUDGET)
        stream_scores(scorer, test, torch.arange(n_tests), 10, BUDGET)

    work(2000)
    assert anonymous_growth(lambda: work(ROWS)) < 1.25 * BUDGET < formed / 8
