"""sweep.html: one self-contained page of a whole sweep, made from its files alone, with links to its jobs' reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.callbacks.figures.write import charts
from twinlens.callbacks.report import html_file, sections
from twinlens.callbacks.report.chart_data import chart_data
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.report.prompts import is_of_prompt
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.results.columns import DIRECTIONS, Cell, Row
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.sweep.jobs import Job, differing, rows_of_all
from twinlens.callbacks.sweep.settings import setting_of
from twinlens.callbacks.sweep.sweep_island import sweep_island
from twinlens.callbacks.sweep.sweep_verdicts import sweep_verdicts, sweep_warnings

TEMPLATES = Path(__file__).parent / "templates"
VIEWS = (("overview", "Overview"), ("jobs", "Jobs"), ("numbers", "Numbers"), ("pairs", "Pairs of jobs"))
"""Parts of the page, by their names in its address; a sweep has those that it has something for."""
SCRIPTS = (
    "elements.js", "packing.js", "table.js", "figures.js", "drawings.js", "numbers.js", "sweep_data.js",
    "number_view.js", "job_view.js", "sweep_views.js", "address.js", "router.js",
)  # fmt: skip
"""Parts of the page's one script, in their order."""
MOST_VALUES = 6
"""Values of a swept setting that the page's first sentence names."""


def write_sweep_page(
    folder: Path, outcomes: Sequence[Mapping[str, Any]], jobs: Sequence[Job], faults: Mapping[int, str],
    summary: Sequence[dict[str, Cell]], pairs: Sequence[Row],
) -> Path:  # fmt: skip
    """Write sweep.html to a partial path, renamed when whole; its tables/ and figures/ are there already.

    Args:
        folder: of the sweep.
        outcomes: rows of sweep.csv.
        jobs: those with results.
        faults: what is wrong with the files of others, by number.
        summary: rows of summary.csv.
        pairs: rows of comparison.csv.

    Raises:
        UserError: a file of a job is damaged (named).
    """
    rows = rows_of_all(jobs)
    drawn = charts(rows)
    absent = {"numbers": not jobs, "pairs": not pairs}
    over_seeds = [
        {**row, "model": f"{row['model']} ({row['swept']})" if row["swept"] else row["model"], "seed": None,
         "n": row["seeds"]}
        for row in summary
    ]  # fmt: skip
    files = RunFiles(folder)
    page = html_file.render(
        "sweep.html.j2",
        SCRIPTS,
        {"island": sweep_island(folder, outcomes, jobs, faults, summary, pairs, [*map(chart_data, drawn)])},
        (TEMPLATES,),
        name=folder.resolve().name,
        models=list(dict.fromkeys(job.model for job in jobs)),
        data=list(dict.fromkeys(job.data for job in jobs)),
        n_jobs=len(outcomes),
        statement=_statement(outcomes, jobs),
        verdicts=sweep_verdicts(summary),
        warnings=sweep_warnings(outcomes, jobs, faults),
        sections=[(anchor, name) for anchor, name in VIEWS if not absent.get(anchor)],
        evaluations=list(evaluation_tables([row for row in over_seeds if not is_of_prompt(row)], DIRECTIONS)),
        tables=list(table_views(files, rows)),
        charts=[chart_data(chart) for chart in drawn],
        figures=sections.figure_views(files.figures, {chart.name for chart in drawn}),
    )
    return html_file.write(folder / "sweep.html", page)


def _statement(outcomes: Sequence[Mapping[str, Any]], jobs: Sequence[Job]) -> str:
    """How many jobs ended how, what differs between them, and how many settings that makes."""
    counts = Counter(str(row["status"]) for row in outcomes)
    ended = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    apart = differing([str(row["overrides"]).split() for row in outcomes])
    values: dict[str, dict[str, None]] = {}
    for job in apart:
        for key, value in job.items():
            values.setdefault(key, {})[value] = None
    told = [f"{key} ({_listed(list(found))})" for key, found in values.items()]
    said = f"{len(outcomes)} {'job' if len(outcomes) == 1 else 'jobs'}: {ended}."
    said += f" What differs between them: {', '.join(told)}." if told else ""
    settings = len(set(map(setting_of, jobs)))
    return said + (f" That makes {settings} settings besides the seed." if settings > 1 else "")


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) if len(values) <= MOST_VALUES else f"{len(values)} values"
