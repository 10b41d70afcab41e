"""Choice of the examples that the page keeps, and their order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.results.indexed_rows import Rows
from twinlens.callbacks.results.run_files import RunFiles


def choose_examples(run: RunFiles, count: int) -> list[int]:
    """Indices of the examples to show: half wrong predictions, half right ones, as far as there are.

    Wrong ones by falling probability (the most confident errors first); right ones spread evenly over their
    probabilities. Without labels all are spread so. Only examples that every method explained are taken; where no
    example is, those that any method explained. The choice depends on the run's files alone.
    """
    examples = run.examples(run.split)
    index, prob, verdict = _verdicts(examples)
    explained = [set(scores.rows.index.tolist()) for scores in run.scores]
    if explained:
        common = set.intersection(*explained) or set.union(*explained)
        kept = np.isin(index, np.fromiter(common, dtype=np.int64, count=len(common)))
        index, prob, verdict = index[kept], prob[kept], verdict[kept]
    order = np.lexsort((index, -prob))
    wrong = order[verdict[order] == -1]
    rest = order[verdict[order] != -1]
    n_wrong = min(len(wrong), max(count // 2, count - len(rest)))
    n_rest = min(len(rest), count - n_wrong)
    spread = rest[np.linspace(0, len(rest) - 1, n_rest).round().astype(int)] if n_rest else rest[:0]
    return [int(i) for i in index[np.concatenate([wrong[:n_wrong], spread])]]


def _verdicts(examples: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, probability of the prediction, and 1 right, −1 wrong, 0 unlabelled, each [examples]."""
    names = ("label", "prediction", FOLDED_PREDICTION, "prob", "target_prob")
    has = [name for name in names if name in examples.dataset.column_names]
    prob, verdict = [], []
    for batch in examples.batches(has):
        label = _whole(batch, "label")
        prediction = _whole(batch, "prediction") if "prediction" in has else np.full(len(label), -1)
        known = (label >= 0) & (prediction >= 0)
        counted = _whole(batch, FOLDED_PREDICTION) if FOLDED_PREDICTION in has else prediction
        verdict.append(np.where(known, np.where(label == counted, 1, -1), 0))
        prob.append(_prediction_prob(batch, prediction))
    if not prob:
        return examples.index, np.zeros(0), np.zeros(0, dtype=int)
    return examples.index, np.concatenate(prob), np.concatenate(verdict)


def _prediction_prob(batch: pa.Table, prediction: np.ndarray) -> np.ndarray:
    if "prob" in batch.column_names:
        lists = batch.column("prob").combine_chunks()
        length = pc.list_value_length(lists).fill_null(0).to_numpy()
        start = np.concatenate([[0], np.cumsum(length)[:-1]])
        flat = pc.list_flatten(lists).to_numpy()
        inside = (prediction >= 0) & (prediction < length)
        found = np.zeros(len(prediction))
        found[inside] = flat[(start + prediction)[inside].astype(np.int64)]
        return np.nan_to_num(found)
    if "target_prob" in batch.column_names:
        return np.nan_to_num(batch.column("target_prob").fill_null(0.0).to_numpy())
    return np.zeros(len(prediction))


def _whole(batch: pa.Table, name: str) -> np.ndarray:
    """A column of class numbers, −1 for none; a column without any value has no type of its own."""
    return np.asarray(batch.column(name).cast(pa.int64()).fill_null(-1).to_numpy())
