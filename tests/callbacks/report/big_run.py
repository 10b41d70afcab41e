"""A large run folder, fabricated: 500 examples, 2768 train rows, six methods, lists as long as methods store them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, disable_progress_bars

from tests.callbacks.fake_run import FakeRun

N_TEST, N_TRAIN, LISTED = 500, 2768, 100
INSTANCE = ("gradsim", "influence", "bm25", "similarity")
NEURON = ("ig", "logprob_increase")
N_WORDS = 20_000
"""Words of the texts, which occur as words do: the k-th in proportion to 1/k."""


class BigRun(FakeRun):
    """The folder with texts of some 250 words, as long as AVeriTeC's, and full lists."""

    def __init__(self) -> None:
        super().__init__(
            neuron=NEURON, instance=INSTANCE, data="averitec", n_train=N_TRAIN, n_test=N_TEST, n_layers=24,
            list_length=LISTED, evidence_words=0,
        )  # fmt: skip

    def examples(self, split: str, n: int) -> Dataset:
        """As the small run's, with long texts in `evidence`."""
        plain = super().examples(split, n)
        letters = self.generator.integers(97, 123, size=(N_WORDS, 9)).astype(np.uint8)
        lengths = self.generator.integers(2, 10, size=N_WORDS)
        words = [bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)]
        odds = 1 / np.arange(1, N_WORDS + 1)
        drawn = self.generator.choice(N_WORDS, size=(n, 250), p=odds / odds.sum())
        texts = [" ".join(words[place] for place in row) for row in drawn]
        return plain.remove_columns("evidence").add_column("evidence", texts)

    def instance_scores(self, name: str, random: bool) -> Dataset:
        """Best and worst train rows of every example."""
        order = self.generator.random((N_TEST, N_TRAIN)).argsort(1)[:, : 2 * LISTED]
        score = -np.sort(-self.generator.normal(0, 3e-3, size=(N_TEST, 2 * LISTED)), axis=1)
        parts = {"top": slice(0, LISTED), "bottom": slice(2 * LISTED - 1, LISTED - 1, -1)}
        columns = {f"{end}_index": _lists(order[:, part]) for end, part in parts.items()}
        columns |= {f"{end}_score": _lists(score[:, part]) for end, part in parts.items()}
        return _dataset({"index": pa.array(range(N_TEST)), **columns})

    def neuron_scores(self, name: str, random: bool) -> Dataset:
        """The best neurons of every example, of 24 layers of 4096."""
        layer = self.generator.integers(0, self.n_layers, size=(N_TEST, LISTED))
        unit = np.minimum(self.generator.zipf(1.3, size=(N_TEST, LISTED)), 4095)
        score = -np.sort(-self.generator.gamma(1.0, 0.02, size=(N_TEST, LISTED)), axis=1)
        targets = pa.array([i % 3 for i in range(N_TEST)])
        lists = {"layer": _lists(layer), "unit": _lists(unit), "score": _lists(score)}
        return _dataset({"index": pa.array(range(N_TEST)), "target": targets, **lists})


def write_big_run(folder: Path) -> Path:
    """Write the folder and return it."""
    disable_progress_bars()
    return BigRun().write(folder)


def _lists(values: np.ndarray) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _dataset(columns: dict[str, pa.Array]) -> Dataset:
    return Dataset(pa.table(columns))
