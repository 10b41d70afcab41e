"""Inputs of instance methods: labels as the split counts them, texts as the template shows them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch

from tests.running import CommandLine
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.attribute.instance_inputs import HeadReads, TextReads
from twinlens.callbacks.passes.explain import Asked, resolve
from twinlens.callbacks.passes.session import Predictions
from twinlens.data.labels import Fold
from twinlens.data.templates import parse_template

TEMPLATE = parse_template("Q: {question} C: {choice}", ["concept", "question", "choice"], None)


def session(folds: dict[str, Fold], predictions: bool = True) -> Any:
    rows = datasets.Dataset.from_dict(
        {
            "concept": ["unshown", "unshown"],
            "question": ["who", "what"],
            "choices": [["a", "b"], ["c", "d"]],
            "label": [1, 0],
            "prediction": [2, 0],
        }
    )
    features = torch.arange(6.0).view(2, 3)
    data = SimpleNamespace(folds=folds, splits={"test": rows}, resolve_template=lambda: TEMPLATE)
    return SimpleNamespace(
        data=data,
        predictions={name: Predictions(rows, features, "of this model") for name in ("train", "test")}
        if predictions
        else {},
        readout=READOUTS["classification"],
        fold=lambda split: torch.tensor(folds[split].of_class) if split in folds else None,
        classifier=SimpleNamespace(head=torch.nn.Linear(3, 3)),
    )


@pytest.mark.parametrize(
    ("folds", "explain", "expected"),
    [
        ({}, "gold", [1, 0]),
        ({}, "predicted", [2, 0]),
        ({"test": Fold(("entailment", "non-entailment"), (0, 1, 1))}, "gold", [1, 0]),
        ({"test": Fold(("entailment", "non-entailment"), (0, 1, 1))}, "predicted", [2, 0]),
        ({"train": Fold(("entailment", "non-entailment"), (0, 1, 1))}, "predicted", [2, 0]),
    ],
)
def test_tests_have_the_runs_target_and_train_rows_the_methods_labels(
    folds: dict[str, Fold], explain: Any, expected: list[int]
) -> None:
    """A folded label is explained as the sum over its classes, a predicted class as itself."""
    run = session(folds)
    run.targets = lambda lens, split: resolve(
        Asked(explain), run.predictions[split].column, run.fold(split), run.readout
    )
    for labels, of_train in (("gold", [1, 0]), ("predicted", [2, 0])):
        reads = HeadReads(run, "gradsim", GradientSimilarity(labels=labels), {})
        inputs = reads.load("test", "test")
        assert inputs.labels.tolist() == expected
        folded = explain == "gold" and "test" in folds
        assert (None if inputs.fold is None else inputs.fold.tolist()) == ([0, 1, 1] if folded else None)
        assert reads.load("train", "train").labels.tolist() == of_train


def test_what_reads_texts_alone_is_shared_by_all_models(command: CommandLine) -> None:
    first = command("method=[bm25,similarity]", "evaluation=accuracy")
    assert first.code == 0, first.err
    other = command("method=[bm25,similarity]", "evaluation=accuracy", "seed=1")
    assert "fit: computed" in other.out
    assert "bm25: read from the store" in other.out
    assert "similarity: computed" in other.out


def test_texts_are_what_the_template_shows_and_know_no_model() -> None:
    without, with_model = (TextReads(session({}, predictions), "bm25", BM25(), {}) for predictions in (False, True))
    assert without.load("test", "test").texts == ["who\na\nb", "what\nc\nd"]
    assert without.identify("test", "test") == with_model.identify("test", "test")
    head = HeadReads(session({}), "gradsim", GradientSimilarity(), {})
    assert head.identify("test", "test") == {"examples": "of this model"}
