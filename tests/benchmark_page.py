"""docs/benchmark.md, made of a run's results: `python -m tests.benchmark_page RUN`; without RUN of the kept numbers.

RUN is the folder of a finished `experiment=benchmark`, or several of parts of it; docs/benchmark.csv keeps their rows
of ground truth and cost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from twinlens.callbacks.results.columns import Row, is_control
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.truth_tables import COST, OF_INSTANCES, OF_NEURONS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, KEPT = DOCS / "benchmark.md", DOCS / "benchmark.csv"
OTHER_SEED = "other_seed"
INTRODUCTION = """# The benchmark

One run of `experiment=benchmark` on the demo: every method against every [ground truth](ground_truth.md), the tiny
model, seed 0, 200 tests, 1200 train rows, `explain=predicted`. This page is written from its numbers
(`docs/benchmark.csv`) by `python -m tests.benchmark_page RUN`. [Which method, when](which_method.md) begins with your
question instead. For example, write both anew after a run of your own:

<!-- not run: minutes -->
```bash
python train.py experiment=benchmark
python -m tests.benchmark_page outputs/runs/YOUR_RUN
python -m tests.which_method
```

In brackets stand 95 % intervals. Two methods whose intervals overlap widely are not told apart. The numbers are those
of one small model on generated data; on yours, run it again.
"""
WORDS = {
    "lds": "What would a model say that was trained on other rows?",
    "loo_pearson": "What would the head alone say without a row?",
    "removal": "Whose first rows, taken away, change the answer most?",
    "tail_patch": "Whose first rows, learnt once more, support the answer most?",
    "mislabel_auc": "Which labels are wrong?",
    "shortcut_auc": "Which rows taught an artefact?",
    "mrr": "Which row is nearly this text?",
    "neuron_pearson": "Which neurons change the answer when they are switched off?",
}
"""Metric → the question that it answers."""
GROUPS = {"removal": "together", "mislabel_auc": "mean"}
"""Metric → the group that speaks for it."""


def kept_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that the page is made of: ground truth and cost of the whole split, no single layers."""
    metrics = {*OF_INSTANCES, *OF_NEURONS, *COST}
    return [row for row in rows if row["metric"] in metrics and not str(row.get("group") or "").startswith("layer=")]


def page_of(rows: Sequence[Row]) -> str:
    """The page's text."""
    parts = [
        INTRODUCTION,
        "## In words\n",
        *[line for metric in WORDS if (line := in_words(rows, metric))],
        "",
        ceiling(rows),
        "## Training instances\n",
        table(rows, "instance", [*OF_INSTANCES]),
        "`removal` and `tail patch` are in nats of φ; behind the slash stand as many random rows of the same labels.\n",
        "## Neurons\n",
        table(rows, "neuron", [*OF_NEURONS]),
        "## What they took\n",
        "As measured when each method's scores were computed: by the clock (longer on a busy machine), of the\n"
        "processor (all threads), and memory above what the process held before. What methods share (predictions,\n"
        "the fit) counts for none.\n",
        costs(rows),
        counts(rows),
    ]
    return "\n".join(parts).rstrip("\n") + "\n"


def in_words(rows: Sequence[Row], metric: str) -> str:
    """One line: the best method of a question, those not told apart from it, and the cheapest among them."""
    group = GROUPS.get(metric, "")
    own = [row for row in rows if row["metric"] == metric and (row.get("group") or "") == group and not is_control(row)]
    if not own:
        return ""
    best = max(own, key=number)
    near = [row for row in own if row is not best and end(row, "high") >= number(best)]
    took = {row["method"]: number(row) for row in rows if row["metric"] == "processor_seconds"}
    known = [row for row in (best, *near) if row["method"] in took]
    line = f"- **{WORDS[metric]}** `{best['method']}` ({cell(best)})"
    if near:
        line += "; not told apart from it: " + ", ".join(f"`{row['method']}` ({short(number(row))})" for row in near)
    if len(known) > 1:
        cheapest = min(known, key=lambda row: took[row["method"]])
        line += f"; the cheapest of these is `{cheapest['method']}` ({took[cheapest['method']]:.1f} s of the processor)"
    return line + "."


def ceiling(rows: Sequence[Row]) -> str:
    """What training again with another seed reaches by random halves."""
    found = [row for row in rows if row["method"] == OTHER_SEED]
    if not found:
        return ""
    return (
        f"Models of the same halves under another seed agree with each other by {cell(found[0])} (LDS). A method\n"
        "without error would reach about the square root of that under a seed that is not the explained model's.\n"
    )


def table(rows: Sequence[Row], kind: str, metrics: Sequence[str]) -> str:
    """Every method by every truth, values with their intervals; controls of the same labels behind a slash."""
    chosen = [row for row in rows if row["metric"] in metrics and row["method"] != OTHER_SEED]
    columns = list(dict.fromkeys((row["metric"], row.get("group") or "", size(row)) for row in chosen))
    columns.sort(key=lambda column: list(metrics).index(str(column[0])))
    own = [row for row in chosen if not row.get("reference_group")]
    names = {**OF_INSTANCES, **OF_NEURONS}
    titles = [
        f"{names[str(metric)]}{at}" + (f", {group.replace('_', ' ')}" if group else "") for metric, group, at in columns
    ]
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for method in dict.fromkeys(row["method"] for row in own):
        cells = []
        for column in columns:
            key = [row for row in chosen if (row["metric"], row.get("group") or "", size(row)) == column]
            value = next((cell(row) for row in key if row["method"] == method and not row.get("reference_group")), "")
            beside = next((short(number(row)) for row in key if row.get("reference_group") == method), None)
            cells.append(value if beside is None else f"{value} / {beside}")
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def costs(rows: Sequence[Row]) -> str:
    """Time and memory of every method."""
    lines = [f"| | {' | '.join(COST.values())} |", f"|---|{'---|' * len(COST)}"]
    for method in dict.fromkeys(row["method"] for row in rows if row["metric"] in COST):
        of_method = {row["metric"]: number(row) for row in rows if row["method"] == method and row["metric"] in COST}
        lines.append(f"| `{method}` | {' | '.join(f'{of_method[metric]:.1f}' for metric in COST)} |")
    known = {row["method"] for row in rows if row["metric"] in COST}
    unknown = [name for name in dict.fromkeys(str(row["method"]) for row in rows) if name not in {*known, OTHER_SEED}]
    left_out = [f"Not measured: {', '.join(f'`{name}`' for name in unknown)}.\n"] if unknown else []
    return "\n".join([*lines, "", *left_out])


def counts(rows: Sequence[Row]) -> str:
    """How much was measured, from the rows themselves."""
    halves = {number(row, "k") for row in rows if row["metric"] == "lds"}
    seeds = "two seeds" if any(row["method"] == OTHER_SEED for row in rows) else "one seed"
    removals = sorted({str(row["group"]) for row in rows if row["metric"] == "removal"})
    return (
        f"Measured with {', '.join(f'{k:g}' for k in sorted(halves))} halves under {seeds}; removal: "
        f"{' and '.join(removals) or 'not measured'}.\n"
    )


def size(row: Row) -> str:
    """` @k` where the metric is one of lists."""
    return f" @{number(row, 'k'):g}" if row["metric"] in ("removal", "tail_patch", "neuron_recall") else ""


def cell(row: Row) -> str:
    """A value with its interval."""
    low, high = end(row, "low"), end(row, "high")
    return short(number(row)) + (f" [{short(low)}, {short(high)}]" if low < high else "")


def end(row: Row, side: str) -> float:
    """An end of the interval; the value where there is none."""
    return number(row, side) if row.get(side) is not None else number(row)


def number(row: Row, column: str = "value") -> float:
    """A cell that holds a number."""
    return float(str(row[column]))


def short(value: float) -> str:
    """Two decimals, of small numbers four, without the zero before them, as statistics are printed."""
    text = f"{value:.2f}" if abs(value) >= 0.05 else f"{value:.4f}".rstrip("0")
    if float(text) == 0:
        return "0"
    return text.replace("-", "−").replace("0.", ".", 1) if abs(float(text)) < 1 else text.replace("-", "−")


def main(arguments: Sequence[str]) -> int:
    """Keep a run's numbers, where one is named, and write the page of those that are kept."""
    if arguments:
        rows: list[Row] = []
        for run in arguments:  # the last run that has a metric of a method counts
            new = read_results(Path(run) / "results.csv")
            known = {(row["metric"], row["method"]) for row in new}
            rows = [*(row for row in rows if (row["metric"], row["method"]) not in known), *new]
        write_results(KEPT, kept_rows(rows))
    PAGE.write_text(page_of(read_results(KEPT)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
