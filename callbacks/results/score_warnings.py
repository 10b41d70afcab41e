"""Warnings about the scores of each method, said when all methods have scored; random controls are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from twinlens.callbacks.results.model_warnings import ENOUGH
from twinlens.callbacks.results.run_files import ScoreSet
from twinlens.callbacks.results.run_warning import Facts, RunWarning, Values

FIRST = 10
"""Entries of a list that are read as its answer."""
MANY_EQUAL = 0.1
NEARLY_ALL = 0.9
LARGE_RESIDUAL = 0.1
LARGEST_RESIDUAL = 0.5
FEW = 0.05
SOLVER_RESIDUAL = 0.01
MOST_DAMPING = 10.0
LEAST_DAMPING = 1e-5


class Lists(NamedTuple):
    """What the stored lists of a method say, one number per example.

    Attributes:
        row: of the example.
        high, low: highest and lowest stored score; NaN where nothing is stored.
        spread: highest minus lowest of the first ten; 0 where they are equal, ∞ where there is but one.
        first: train row on top; −1 of neurons.
    """

    row: np.ndarray
    high: np.ndarray
    low: np.ndarray
    spread: np.ndarray
    first: np.ndarray


def read_lists(scores: ScoreSet) -> Lists:
    """The lists of a method, block by block."""
    instance = scores.kind != "neuron"
    columns = ["top_score", "bottom_score", "top_index"] if instance else ["score"]
    blocks = []
    for table in scores.rows.batches(["index", *columns]):
        top = table.column(columns[0]).combine_chunks()
        high, low = extremes(top)
        if instance:
            low = np.fmin(low, extremes(table.column("bottom_score").combine_chunks())[1])
        best, least = extremes(pc.list_slice(top, 0, FIRST))
        # equal infinities are equal: their difference is no number
        spread = np.where(best == least, 0.0, np.subtract(best, least, where=best != least, out=np.zeros_like(best)))
        spread = np.where(pc.list_value_length(top).to_numpy(zero_copy_only=False) > 1, spread, np.inf)
        first = -np.ones(len(high), dtype=np.int64)
        if instance:
            first = extremes(pc.list_slice(table.column("top_index").combine_chunks(), 0, 1))[0]
            first = np.nan_to_num(first, nan=-1).astype(np.int64)
        blocks.append(Lists(table.column("index").to_numpy(), high, low, spread, first))
    empty = Lists(*(np.empty(0) for _ in Lists._fields))
    return Lists(*(np.concatenate(parts) for parts in zip(*blocks, strict=True))) if blocks else empty


def extremes(lists: Any) -> tuple[np.ndarray, np.ndarray]:
    """Highest and lowest entry of every list, NaN of an empty one, float64 [lists] each."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float64)
    high = np.full(len(lengths), np.nan)
    low = high.copy()
    filled = lengths > 0
    if filled.any():
        starts = (lengths.cumsum() - lengths)[filled]
        high[filled], low[filled] = np.maximum.reduceat(flat, starts), np.minimum.reduceat(flat, starts)
    return high, low


def all_zero(lists: Lists) -> np.ndarray:
    """Rows of the examples all of whose scores are zero."""
    return lists.row[(lists.high == 0) & (lists.low == 0)]


def without_order(lists: Lists) -> int:
    """Number of examples whose first ten scores are equal, and not zero throughout."""
    return int(((lists.spread == 0) & ~((lists.high == 0) & (lists.low == 0))).sum())


def always_on_top(lists: Lists) -> tuple[int, int, int] | None:
    """Train row, how often it is first, and of how many examples with an order, if that is nearly always; else None."""
    first = lists.first[(lists.spread > 0) & (lists.first >= 0)]
    if len(first) < ENOUGH:
        return None
    rows, counts = np.unique(first, return_counts=True)
    most = int(counts.argmax())
    return (int(rows[most]), int(counts[most]), len(first)) if counts[most] >= NEARLY_ALL * len(first) else None


def large_residuals(residual: np.ndarray, explained: np.ndarray) -> np.ndarray | None:
    """Each example's largest completeness residual as a share of what is explained, where they are large; else None.

    Args:
        residual: [examples, layers], in the unit of what is explained.
        explained: size of it, [examples]; where it is zero, the list is told of as a zero one.
    """
    share = np.divide(residual.max(1), explained, where=explained > 0, out=np.zeros(len(explained)))
    many = (share > LARGE_RESIDUAL).mean() > FEW
    return share if many or bool((share > LARGEST_RESIDUAL).any()) else None


def solver_residual(settings: Mapping[str, Any]) -> float | None:
    """The largest residual that method.yaml gives, where it is large; else None."""
    found = settings.get("residual")
    numbers = [value for value in (found if isinstance(found, list) else [found]) if isinstance(value, int | float)]
    largest = max(numbers, default=0.0)
    return largest if not largest <= SOLVER_RESIDUAL else None  # NaN is large


def far_damping(settings: Mapping[str, Any]) -> float | None:
    """A damping relative to the mean eigenvalue that lies far outside the usual, of method.yaml; else None.

    With solves by steps over whole layers nothing is usual: most of so many eigenvalues are 0, which EK-FAC's are not.
    """
    damping = settings.get("damping")
    relative = settings.get("curvature") not in (None, "identity") and settings.get("solver") != "lissa"
    relative = relative and "preconditioner" not in settings
    if not relative or not isinstance(damping, int | float) or LEAST_DAMPING <= damping <= MOST_DAMPING:
        return None
    return float(damping)


def _methods(facts: Facts) -> Iterator[ScoreSet]:
    yield from (scores for scores in facts.files.scores if not scores.control)


def _zero_scores(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        zero = all_zero(lists := read_lists(scores))
        if len(zero):
            yield {"method": scores.name, "k": len(zero), "n": len(lists.row), "split": facts.files.split,
                   "first": int(zero[0])}  # fmt: skip


def _zero_train_gradients(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        if scores.summary is not None and "self_influence" in scores.summary.dataset.column_names:
            zero = scores.summary.index[scores.summary.column("self_influence") == 0]
            if len(zero):
                yield {"method": scores.name, "k": len(zero), "n": len(scores.summary.index), "first": int(zero[0])}


def _equal_scores(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        lists = read_lists(scores)
        if (k := without_order(lists)) > MANY_EQUAL * len(lists.row):
            yield {"method": scores.name, "k": k, "n": len(lists.row), "split": facts.files.split}


def _one_instance_on_top(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        found = always_on_top(read_lists(scores)) if scores.kind == "instance" else None
        if found is not None:
            yield {"method": scores.name, "row": found[0], "k": found[1], "n": found[2], "split": facts.files.split}


def _completeness(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        if "completeness" not in scores.rows.dataset.column_names:
            continue
        found = _residuals(scores)
        share = None if found is None else large_residuals(*found[1:])
        if found is not None and share is not None:
            worst = int(share.argmax())
            yield {"method": scores.name, "k": int((share > LARGE_RESIDUAL).sum()), "n": len(share),
                   "split": facts.files.split, "share": f"{LARGE_RESIDUAL:.0%}", "largest": f"{share[worst]:.0%}",
                   "index": int(found[0][worst])}  # fmt: skip


def _residuals(scores: ScoreSet) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Index, residual by layer and size of what is explained, of the examples with a residual; None without any."""
    probability = scores.settings.get("unit") == "probability"
    index, residual, explained = [], [], []
    for table in scores.rows.batches(["index", "target_prob", "score", "completeness"]):
        lists = table.column("completeness").combine_chunks()
        kept = pc.greater(pc.fill_null(pc.list_value_length(lists), 0), 0)
        table, lists = table.filter(kept), lists.filter(kept)
        if len(table):
            index.append(table.column("index").to_numpy())
            residual.append(extremes(lists)[0][:, None])
            size = table.column("target_prob").to_numpy() if probability else _sizes(table.column("score"))
            explained.append(np.asarray(size, dtype=np.float64))
    return (np.concatenate(index), np.concatenate(residual), np.concatenate(explained)) if index else None


def _sizes(lists: Any) -> np.ndarray:
    """Sum of the listed scores' sizes, [examples]."""
    return np.array([np.abs(np.asarray(scores, dtype=np.float64)).sum() for scores in lists.to_pylist()])


def _large_solver_residual(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        residual = solver_residual(scores.settings)
        if residual is not None:
            yield {"method": scores.name, "residual": f"{residual:.2g}"}


def _far_damping(facts: Facts) -> Iterator[Values]:
    for scores in _methods(facts):
        damping = far_damping(scores.settings)
        if damping is not None:
            yield {"method": scores.name, "damping": f"{damping:g}"}


SCORE_WARNINGS = (
    RunWarning(
        "zero_scores",
        "attribute",
        "{method}: every listed score of {k} of {n} {split} examples is zero, the first of them {first}",
        "highest and lowest score that are stored of one example or more are exactly 0",
        "every gradient of such an example is zero (a probability that is 1 to the last digit, a dead layer), or it "
        "shares nothing with any other; its list is in an order that means nothing",
        "do not read these lists; a model that is trained for fewer epochs is less sure",
        _zero_scores,
    ),
    RunWarning(
        "zero_train_gradients",
        "attribute",
        "{method}: the gradient of {k} of {n} train examples is zero, the first of them {first}",
        "the self-influence of one train example or more is exactly 0",
        "such an example can have no influence by this method, whatever it taught the model",
        "use method=tracin, which reads earlier checkpoints, or train for fewer epochs",
        _zero_train_gradients,
    ),
    RunWarning(
        "equal_scores",
        "attribute",
        "{method}: the first ten scores of {k} of {n} {split} examples are equal",
        f"equal to the last digit, not all zero, for more than {MANY_EQUAL:.0%} of the examples: fewer may be copies "
        "of one text",
        "the order of such a list is that of the files, not of the scores",
        "use another measure or method, and do not read these lists",
        _equal_scores,
    ),
    RunWarning(
        "one_instance_on_top",
        "attribute",
        "{method}: train example {row} stands first for {k} of {n} {split} examples",
        f"one instance is first for {NEARLY_ALL:.0%} or more of the examples that have an order, {ENOUGH} or more",
        "a list that does not depend on the example explains the train set's outlier, not the prediction",
        "look at this instance for a wrong label, or compare with a measure of direction alone (method=gradsim_cosine)",
        _one_instance_on_top,
    ),
    RunWarning(
        "large_completeness_residual",
        "attribute",
        "{method}: the completeness residual of {k} of {n} {split} examples is above {share} of what is explained, at "
        "most {largest} (example {index})",
        f"a layer's residual is above {LARGE_RESIDUAL:.0%} of the target's probability for more than {FEW:.0%} of the "
        f"examples (single ones pass it with the paper's 20 steps), or above {LARGEST_RESIDUAL:.0%} for one",
        "the scores do not add up to what the layer does, so that their order may be the integration's error",
        "raise method.{method}.n_steps",
        _completeness,
    ),
    RunWarning(
        "large_solver_residual",
        "attribute",
        "{method}: the solver's relative residual is {residual}",
        f"it is above {SOLVER_RESIDUAL:g}: scores are then right to less than two digits",
        "the scores are not those of the stated curvature and damping",
        "set method.{method}.solver=auto, or more steps (lissa_depth, lissa_repeats)",
        _large_solver_residual,
    ),
    RunWarning(
        "far_damping",
        "attribute",
        "{method}: damping is {damping} of the mean eigenvalue",
        f"it is above {MOST_DAMPING:g}, where the curvature changes the mean direction by less than a tenth, or below "
        f"{LEAST_DAMPING:g}, where the error of float32 gradients decides",
        "above, the scores are those of gradsim but for a factor; below, directions without data rule the order",
        "set method.{method}.damping between 0.001 and 1",
        _far_damping,
    ),
)
"""In the order in which they are said."""
