"""Warnings about the rows of results.csv, said when all evaluations have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from twinlens.attribution.evaluation.comparisons import Measured, compare_methods
from twinlens.callbacks.results.columns import Row, is_chance, is_control
from twinlens.callbacks.results.formatting import format_number, metric_label
from twinlens.callbacks.results.model_warnings import NORMAL_95
from twinlens.callbacks.results.outcomes import FILE as OUTCOMES
from twinlens.callbacks.results.outcomes import read_outcomes, without_control
from twinlens.callbacks.results.run_warning import Directions, Facts, RunWarning, Values, measured

FEW_EXAMPLES = 20
"""Below, the standard error of a share of one half is above 0.11, of the size of most differences between methods."""
VIEWS = ("_auc", "", "_flips", "_drop")
"""Endings of metrics that say the same in other words, the one to compare first."""
WHOLE = ("", "most")
"""Groups that are no part of the examples: none, and the first rows of a ranking."""


class Gain(NamedTuple):
    """A method's row beside its control's.

    Attributes:
        row, control: of results.csv.
        gain: how much better the method is, in the unit of the metric.
        ends: of its 95 % interval; None where neither row has an error.
    """

    row: Row
    control: Row
    gain: float
    ends: tuple[float, float] | None

    @property
    def lowest(self) -> float:
        """Lower end of the interval, the gain itself where none is known."""
        return self.gain if self.ends is None else self.ends[0]


def gains(rows: Sequence[Row], directions: Directions, outcomes: Sequence[Measured] = ()) -> list[Gain]:
    """Every row of a method beside its random control: the one drawn for it where there is one, else the common one.

    Where both were measured example by example the interval is that of the paired comparison, as in
    tables/comparisons.csv; else the errors of both are taken as independent, which makes it wider.

    Args:
        rows: of results.csv; those of a part of the examples are left out.
        directions: see `Facts`; rows without are left out.
        outcomes: of the run's results, see `read_outcomes`.
    """
    known = {_place_of(one): one for one in outcomes}
    found = []
    controls: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if is_chance(row):
            controls.setdefault(_place(row), []).append(row)
    for row in rows:
        direction = directions.get(measured(row))
        if is_control(row) or not row["method"] or not direction or (row["group"] or "") not in WHOLE:
            continue
        beside = controls.get(_place(row), ())
        own = [control for control in beside if control["reference_group"] == row["method"]]
        common = [control for control in beside if control["reference_group"] == row["reference_group"]]
        for control in (own or common)[:1]:
            value, drawn = row["value"], control["value"]
            if isinstance(value, int | float) and isinstance(drawn, int | float):
                gain = float(value - drawn) if direction == "higher" else float(drawn - value)
                ends = _paired_ends(known, row, control, direction) or _independent_ends(gain, row, control)
                found.append(Gain(row, control, gain, ends))
    return found


def not_above(found: Sequence[Gain]) -> list[Gain]:
    """Per method, evaluation and metric the best gain, where its interval does not lie above zero.

    Of metrics that say the same in other words (see `VIEWS`) the area counts, else the metric itself. A metric at
    several k is judged by its best.
    """
    by_metric: dict[tuple[object, ...], dict[str, list[Gain]]] = {}
    for gain in found:
        base, view = _view(str(gain.row["metric"]))
        key = (gain.row["method"], gain.row["evaluation"], base, *_setting(gain.row))
        by_metric.setdefault(key, {}).setdefault(view, []).append(gain)
    best = []
    for views in by_metric.values():
        first = next(view for view in VIEWS if view in views)
        best.append(max(views[first], key=lambda gain: gain.lowest))
    return [gain for gain in best if gain.lowest <= 0]


def on_few(rows: Sequence[Row], directions: Directions) -> dict[str, int]:
    """Evaluation → fewest examples that a result rests on, where these are few.

    Args:
        rows: of results.csv; those of a part of the examples are left out.
        directions: see `Facts`; rows without are left out.
    """
    fewest: dict[str, int] = {}
    for row in rows:
        n = row["n"]
        if isinstance(n, int) and (row["group"] or "") in WHOLE and directions.get(measured(row)):
            name = str(row["evaluation"])
            fewest[name] = min(n, fewest.get(name, n))
    return {name: n for name, n in fewest.items() if n < FEW_EXAMPLES}


def _place(row: Row) -> tuple[object, ...]:
    """What a method's row and its control's have in common; `most` of a ranking is compared with random rows."""
    group = "random" if row["group"] == "most" else row["group"]
    return row["split"], row["evaluation"], row["metric"], row["k"], group, _variant(row)


def _setting(row: Row) -> tuple[object, ...]:
    return row["split"], row["group"], row["reference_group"], _variant(row)


def _variant(row: Row) -> str:
    """The evaluation's settings, but for how the control is drawn."""
    return without_control(str(row["variant"] or ""))


def _view(metric: str) -> tuple[str, str]:
    for view in filter(None, VIEWS):
        if metric.endswith(view):
            return metric.removesuffix(view), view
    return metric, ""


def _place_of(one: Measured) -> tuple[object, ...]:
    """Where a measured result stands in results.csv; a method's settings stand behind its name there."""
    names = (name.partition(" [")[0] for name in (one.method, one.matched))
    return one.split, one.evaluation, one.metric, one.k, one.group, one.variant, *names


def _paired_ends(
    known: Mapping[tuple[object, ...], Measured], row: Row, control: Row, direction: str
) -> tuple[float, float] | None:
    """Ends of the gain's interval by the paired comparison; None: the two were not measured on the same examples."""
    found = []
    for one in (row, control):
        names = one["method"], one["reference_group"] or ""
        place = (one["split"], one["evaluation"], one["metric"], one["k"], one["group"] or "", _variant(one), *names)
        found.append(known.get(place))
    first, second = found
    if first is None or second is None:
        return None
    compared = compare_methods([first, second])
    if not compared:
        return None
    low, high = compared[0].low, compared[0].high
    return (low, high) if direction == "higher" else (-high, -low)


def _independent_ends(gain: float, row: Row, control: Row) -> tuple[float, float] | None:
    errors = [float(cell) for one in (row, control) if isinstance(cell := one["stderr"], int | float)]
    margin = NORMAL_95 * sum(error**2 for error in errors) ** 0.5
    return (gain - margin, gain + margin) if errors else None


def _not_above_control(facts: Facts) -> Iterator[Values]:
    outcomes = read_outcomes(facts.files.path / OUTCOMES)
    for gain in not_above(gains(facts.files.results, facts.directions, outcomes)):
        interval = "no error is known"
        if gain.ends is not None:
            interval = "95 % interval {} to {}".format(*map(format_number, gain.ends))
        yield {
            "method": gain.row["method"],
            "evaluation": gain.row["evaluation"],
            "metric": metric_label(gain.row),
            "value": format_number(gain.row["value"]),
            "control": format_number(gain.control["value"]),
            "gain": format_number(gain.gain),
            "interval": interval,
        }


def _few_examples(facts: Facts) -> Iterator[Values]:
    beside = {"validation"} - {facts.files.split}  # small as it may be, nothing of it is explained
    fewest = on_few([row for row in facts.files.results if row["split"] not in beside], facts.directions)
    if fewest:
        yield {"evaluations": ", ".join(fewest), "n": min(fewest.values())}


RESULT_WARNINGS = (
    RunWarning(
        "not_above_control",
        "evaluate",
        "{method} is not reliably above its random control in {evaluation}, {metric}: {value} against {control}, "
        "better by {gain} ({interval})",
        "the 95 % interval of the gain does not lie above zero at any k; the line shows the best k, the area where "
        "there is one. The interval is that of the paired comparison (tables/comparisons.csv) where both were measured "
        f"on the same examples, else {NORMAL_95} standard errors of both, taken as independent. Without errors: the "
        "gain is not above zero",
        "this test does not tell the method from a random list",
        "explain more examples, or do not rely on lists that are as good as random ones",
        _not_above_control,
    ),
    RunWarning(
        "few_examples",
        "evaluate",
        "results of {evaluations} rest on few examples, at least one on {n}",
        f"fewer than {FEW_EXAMPLES}: the standard error of a share of one half is then above 0.11",
        "differences of the size that methods usually show cannot be told from chance",
        "explain more examples",
        _few_examples,
    ),
)
"""In the order in which they are said."""
