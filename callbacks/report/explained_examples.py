"""Examples of a split as the page keeps them: texts, labels, predictions and probabilities, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.report.example_text import cut_length, cut_text, label_name, marks, twin_of, whole_text
from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.token_names import Named

MAX_CLASSES = 6
"""Class probabilities kept of an example; with more classes the most probable ones are."""
VERDICTS = ("unlabelled", "right", "wrong")


def packed_examples(
    run: RunFiles, split: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], pack: Packing
) -> dict[str, Any]:
    """The rows of a split for the page's header.

    Args:
        rows: of `examples/<split>`, in the order of the page.
        columns: names of the columns of text.
        pack: takes the columns of numbers.
    """
    gold, names = run.gold_names(split) if rows else {}, run.label_names
    texts = {column: [whole_text(row.get(column)) for row in rows] for column in columns}
    length = cut_length([text for column in texts.values() for text in column])
    probs = [_classes(row) for row in rows]
    width = max((len(found) for found in probs), default=0)
    padded = [found + [(-1, 0.0)] * (width - len(found)) for found in probs]
    return {
        "split": split,
        "columns": list(columns),
        "texts": [[cut_text(text, length) for text in texts[column]] for column in columns],
        "cut": length if any(len(text) > length for column in texts.values() for text in column) else None,
        "index": pack.whole([row["index"] for row in rows]),
        "source": pack.whole([_number(row.get("source_index")) for row in rows]),
        "twin": pack.whole([twin_of(row) for row in rows]),
        "label": pack.words(_output(run, row, "label", gold) for row in rows),
        "prediction": pack.words(_output(run, row, "prediction", names) for row in rows),
        "completion": _completions(run, rows),
        "answered": any(not row.get("prob") and row.get("target_prob") is not None for row in rows),
        "counted": pack.words(label_name(gold, row.get(FOLDED_PREDICTION)) for row in rows),
        "verdict": pack.whole([VERDICTS.index(verdict(row)) for row in rows]),
        "prob": pack.real([_own_prob(row) for row in rows]),
        "marks": pack.words(", ".join(marks(row)) for row in rows),
        "classes": {
            "width": width,
            "name": pack.words(label_name(names, number) for found in padded for number, _ in found),
            "prob": pack.real([prob for found in padded for _, prob in found]),
        },
    }


def _output(run: RunFiles, row: Mapping[str, Any], name: str, names: Mapping[int, str]) -> str:
    """A label or prediction by its name, a token with its number beside it; empty for none."""
    number = row.get(name)
    if run.of_vocabulary and number is not None and number >= 0:
        return run.tokens.said(number, row.get(f"{name}_token"))
    return row.get(f"{name}_token") or label_name(names, number)


def _completions(run: RunFiles, rows: Sequence[Mapping[str, Any]]) -> list[list[Named]] | None:
    """Tokens of each example's completion; None where no example has two."""
    ids = [list(row.get("answer_ids") or []) for row in rows]
    return [run.tokens.named(one) for one in ids] if any(len(one) > 1 for one in ids) else None


def verdict(row: Mapping[str, Any]) -> str:
    """right, wrong or unlabelled; a folded prediction is what counts."""
    label, prediction = row.get("label"), row.get("prediction")
    if label is None or label < 0 or prediction is None:
        return "unlabelled"
    folded = row.get(FOLDED_PREDICTION)
    return "right" if label == (prediction if folded is None else folded) else "wrong"


def _own_prob(row: Mapping[str, Any]) -> float:
    """Probability of the prediction, else of the target; NaN for none."""
    prob, prediction = row.get("prob"), row.get("prediction")
    if prob:
        inside = prediction is not None and 0 <= prediction < len(prob)
        return float(prob[prediction]) if inside else float("nan")
    own = row.get("target_prob")
    return float("nan") if own is None else float(own)


def _classes(row: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The classes with their probabilities, in their own order where all are kept."""
    prob = row.get("prob") or []
    order = sorted(range(len(prob)), key=lambda i: -prob[i])[:MAX_CLASSES]
    return [(i, float(prob[i])) for i in (sorted(order) if len(prob) <= MAX_CLASSES else order)]


def _number(value: Any) -> int:
    return -1 if value is None else int(value)
