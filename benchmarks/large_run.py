"""A large run's folder, fabricated: 500 examples, 2768 train rows, six methods, lists as long as methods store them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from datasets import Dataset

from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.results_csv import write_results

N_TEST, N_TRAIN, LISTED = 500, 2768, 100
INSTANCE = ("gradsim", "influence", "bm25", "similarity")
NEURON = ("ig", "logprob_increase")
CLASSES = ("Supported", "Refuted", "Not Enough Evidence")
LAYERS, UNITS = 24, 4096
N_WORDS, WORDS_PER_TEXT = 20_000, 250
"""Words of the texts, which occur as words do: the k-th in proportion to 1/k. Texts are as long as AVeriTeC's."""


def write_large_run(folder: Path) -> Path:
    """Write the folder and return it; the same each time."""
    draw = np.random.default_rng(0)
    (folder / "model").mkdir(parents=True)
    config = {"model": {"name": "opt125m"}, "data": {"name": "averitec"}, "seed": 0}
    config["method"] = {name: {"top_k": LISTED} for name in (*NEURON, *INSTANCE)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "metrics.json").write_text("{}", encoding="utf-8")
    model = {"num_hidden_layers": LAYERS, "id2label": dict(enumerate(CLASSES))}
    (folder / "model" / "config.json").write_text(json.dumps(model), encoding="utf-8")
    write_results(folder / "results.csv", [_accuracy()])
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        _examples(draw, split, n).save_to_disk(str(folder / "examples" / split))
    for name in (*NEURON, *INSTANCE):
        scores = _instances(draw) if name in INSTANCE else _neurons(draw)
        scores.save_to_disk(str(folder / "scores" / name / "test"))
        said = yaml.safe_dump({"name": name, "sign": "positive: towards the target", "unit": "nats"})
        (folder / "scores" / name / "method.yaml").write_text(said, encoding="utf-8")
    return folder


def _accuracy() -> Row:
    common = {"model": "opt125m", "data": "averitec", "seed": 0, "split": "test", "method": "", "n": N_TEST}
    return {**common, "evaluation": "accuracy", "metric": "accuracy", "value": 0.7, "stderr": 0.02}


def _examples(draw: np.random.Generator, split: str, n: int) -> Dataset:
    letters = draw.integers(97, 123, size=(N_WORDS, 9)).astype(np.uint8)
    lengths = draw.integers(2, 10, size=N_WORDS)
    words = [bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)]
    odds = 1 / np.arange(1, N_WORDS + 1)
    drawn = draw.choice(N_WORDS, size=(n, WORDS_PER_TEXT), p=odds / odds.sum())
    texts = [" ".join(words[place] for place in row) for row in drawn]
    prob = draw.dirichlet(np.full(len(CLASSES), 0.7), size=n)
    columns = {
        "index": range(n),
        "source_index": range(n),
        "claim": [f"{split} {i}: {text[:80]}" for i, text in enumerate(texts)],
        "evidence": texts,
        "label": draw.integers(0, len(CLASSES), size=n),
        "prediction": prob.argmax(1),
        "prob": prob.tolist(),
    }
    return Dataset(pa.table({name: pa.array(list(values)) for name, values in columns.items()}))


def _instances(draw: np.random.Generator) -> Dataset:
    """Best and worst train rows of every example."""
    order = draw.random((N_TEST, N_TRAIN)).argsort(1)[:, : 2 * LISTED]
    score = -np.sort(-draw.normal(0, 3e-3, size=(N_TEST, 2 * LISTED)), axis=1)
    parts = {"top": slice(0, LISTED), "bottom": slice(2 * LISTED - 1, LISTED - 1, -1)}
    lists = {f"{end}_index": _lists(order[:, part]) for end, part in parts.items()}
    lists |= {f"{end}_score": _lists(score[:, part]) for end, part in parts.items()}
    return Dataset(pa.table({"index": pa.array(range(N_TEST)), **lists}))


def _neurons(draw: np.random.Generator) -> Dataset:
    """The best neurons of every example, some units in many lists."""
    layer = draw.integers(0, LAYERS, size=(N_TEST, LISTED))
    unit = np.minimum(draw.zipf(1.3, size=(N_TEST, LISTED)), UNITS - 1)
    score = -np.sort(-draw.gamma(1.0, 0.02, size=(N_TEST, LISTED)), axis=1)
    lists = {"layer": _lists(layer), "unit": _lists(unit), "score": _lists(score)}
    targets = pa.array(i % len(CLASSES) for i in range(N_TEST))
    return Dataset(pa.table({"index": pa.array(range(N_TEST)), "target": targets, **lists}))


def _lists(values: np.ndarray) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
