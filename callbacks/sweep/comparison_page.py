"""comparison.html: runs side by side on one self-contained page: numbers, settings, and what their lists share."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from twinlens.callbacks.figures.charts import PALETTE, Chart, Panel, Point, Series
from twinlens.callbacks.report import html_file
from twinlens.callbacks.report.chart_data import chart_data
from twinlens.callbacks.report.island import Kept, island
from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.report.sections import run_name
from twinlens.callbacks.results.columns import real_of
from twinlens.callbacks.sweep.compared_lists import Agreement, K, agreements, disagreement, same_predictions
from twinlens.callbacks.sweep.compared_numbers import KEYS, Number, compared_numbers, compared_settings
from twinlens.callbacks.sweep.compared_runs import ComparedRuns, compared_runs
from twinlens.callbacks.sweep.comparison_verdicts import comparison_verdicts, comparison_warnings, statement
from twinlens.callbacks.sweep.packed_numbers import packed_about
from twinlens.callbacks.sweep.sweep_page import TEMPLATES

FOLDER = "comparisons"
"""Below the folder of runs and sweeps; one folder for the same runs, whenever they are compared."""
VIEWS = (
    ("overview", "Overview"),
    ("numbers", "Numbers"),
    ("differing", "Settings"),
    ("examples", "Examples"),
)
"""Parts of the page, by their names in its address."""
SCRIPTS = (
    "elements.js", "packing.js", "tokens.js", "island.js", "words.js", "table.js", "figures.js", "drawings.js",
    "crossing.js", "method_lists.js", "numbers.js", "comparison_data.js", "compared_example.js", "comparison_views.js",
    "address.js", "router.js",
)  # fmt: skip
"""Parts of the page's one script, in their order."""
MOST_EXAMPLES = 1000
"""Examples of the page; of more, those on which the runs disagree most."""
MOST_LISTED = 20
"""Entries of each list on the page; shares are counted from the whole lists."""


def write_comparison(folders: Sequence[str | Path], output: Path) -> Path:
    """Write the page of two runs or more, to a partial path that is renamed when whole.

    Args:
        folders: of the runs.
        output: folder of runs and sweeps; the page lies below it, in a place that the runs decide.

    Raises:
        UserError: see `compared_runs`; or a file of a run is missing or damaged (named).
    """
    compared = compared_runs(folders)
    return html_file.write(path := _place(compared, output), render_comparison(compared, path.parent))


def render_comparison(compared: ComparedRuns, folder: Path) -> str:
    """The page as text.

    Args:
        compared: the runs.
        folder: where the page will lie, from which it links to the runs' reports.
    """
    found = agreements(compared)
    numbers = compared_numbers(compared)
    settings = compared_settings(compared.runs)
    same = same_predictions(compared)
    order = disagreement(same, found)[:MOST_EXAMPLES]
    charts = [chart_data(chart) for chart in _charts(compared, found)]
    blocks = {"island": _island(compared, same, found, numbers, settings, order, charts, folder)}
    for letter, run, index in zip(compared.letters, compared.runs, compared.tests.index, strict=True):
        chosen = [index[place] for place in order]
        blocks[f"run{letter}"] = island(run, chosen, run.results, [], Kept(listed=MOST_LISTED))
    return html_file.render(
        "comparison.html.j2",
        SCRIPTS,
        blocks,
        (TEMPLATES,),
        letters=compared.letters,
        data=run_name(compared.runs[0], "data"),
        runs=[
            {
                "letter": letter,
                "folder": _folder(run.path),
                "model": run_name(run, "model"),
                "seed": run.config.get("seed", ""),
                "report": _report(run.path, folder),
                "matched": len(compared.tests.index[0]),
                "alone": alone,
            }
            for letter, run, alone in zip(compared.letters, compared.runs, compared.tests.alone, strict=True)
        ],
        split=compared.split,
        verdicts=comparison_verdicts(compared, same, found, numbers, settings),
        warnings=comparison_warnings(compared),
        statement=statement(compared),
        sections=VIEWS,
        charts=charts,
        shown=len(order),
        matched=len(compared.tests.index[0]),
    )


def _island(
    compared: ComparedRuns, same: np.ndarray, found: Sequence[Agreement], numbers: Sequence[Number],
    settings: Sequence[tuple[str, list[str | None]]], order: np.ndarray, charts: Sequence[dict[str, Any]], folder: Path,
) -> str:  # fmt: skip
    """What the runs have in common: numbers, shares, settings, and where the same rows stand in each run."""
    pack = Packing()
    runs = range(len(compared.runs))
    train = compared.train.index if compared.train is not None else tuple([] for _ in runs)
    differences = [[number.differences[run - 1] for run in runs[1:]] for number in numbers]
    return pack.text(
        {
            "format": 1,
            "runs": [
                {"letter": letter, "name": _folder(run.path), "report": _report(run.path, folder)}
                for letter, run in zip(compared.letters, compared.runs, strict=True)
            ],
            "one_model": len({run_name(run, "model") for run in compared.runs}) == 1,
            "tests": [pack.whole([index[place] for place in order]) for index in compared.tests.index],
            "train": [pack.whole(index) for index in train],
            "same": pack.whole(same[order]),
            "shared": [_shared(pack, one, k, order) for one in found for k in one.shares],
            "numbers": {
                **packed_about(pack, [number.about for number in numbers], KEYS),
                "value": pack.real([[real_of(value) for value in number.values] for number in numbers]),
                "stderr": pack.real([[real_of(error) for error in number.errors] for number in numbers]),
                "difference": pack.real([[real_of(value) for value, _, _ in row] for row in differences]),
                "difference_error": pack.real([[real_of(error) for _, error, _ in row] for row in differences]),
                "paired": pack.whole([[paired for _, _, paired in row] for row in differences]),
            },
            "settings": settings,
            "charts": charts,
        }
    )


def _shared(pack: Packing, one: Agreement, k: int, order: np.ndarray) -> dict[str, Any]:
    """What two lists share among their first k entries: mean with its error, and of the shown examples each."""
    row = one.row(k)
    mean = [real_of(row.pop(name)) for name in ("value", "stderr")]
    each = pack.real(one.shares[k].numpy()[order]) if k == K else None
    return {**row, "value": pack.real(mean), "each": each}


def _charts(compared: ComparedRuns, found: Sequence[Agreement]) -> list[Chart]:
    """Shares over the length of the lists, a panel for each lens; none where lists have one length."""
    panels = []
    for kind, what in (("instance", "training instances"), ("neuron", "neurons")):
        mine = [one for one in found if one.kind == kind and len(one.shares) > 1]
        series = tuple(
            Series(
                f"{one.method}, {compared.letters[one.first]} and {compared.letters[one.second]}",
                tuple(Point(k, float(str(one.row(k)["value"])), one.row(k)["stderr"]) for k in one.shares),
                PALETTE[number % len(PALETTE)],
            )
            for number, one in enumerate(mine)
        )
        if series:
            panels.append(Panel(f"Shared {what}", "first entries of each list", "%", series, log_x=True))
    caption = (
        "Mean over examples with its standard error: of training instances in per cent of the first entries, of "
        "neurons in per cent of those that either list names."
    )
    return [Chart("shared", "What the lists share", caption, tuple(panels))] if panels else []


def _place(compared: ComparedRuns, output: Path) -> Path:
    """A folder of its own for these runs in this order."""
    whole = "\n".join(str(run.path.resolve()) for run in compared.runs)
    names = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", run.path.resolve().name)[:40] for run in compared.runs)
    mark = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return output / FOLDER / f"{names[:120]}-{mark}" / "comparison.html"


def _folder(run: Path) -> str:
    """What a run's folder is called: a job of a sweep, whose name is a number, with the sweep's."""
    path = run.resolve()
    return f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name


def _report(run: Path, folder: Path) -> str:
    """Relative address of a run's report from the page's folder, empty where it has none."""
    path = run / "report.html"
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()) if path.is_file() else ""
