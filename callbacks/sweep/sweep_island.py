"""Data of a sweep's page: its jobs, every number of each with its mean over seeds, and what pairs of jobs share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from twinlens.callbacks.report.packing import Packing
from twinlens.callbacks.report.sections import HEADLINE
from twinlens.callbacks.results.columns import Cell, Row, real_of
from twinlens.callbacks.sweep import comparison
from twinlens.callbacks.sweep.jobs import Job, differing
from twinlens.callbacks.sweep.packed_numbers import OF_NUMBERS, packed_about, text_of
from twinlens.callbacks.sweep.settings import Setting, brief_keys, setting_of, setting_of_row

MOST_PAIRS = 20_000
"""Rows of comparison.csv that the page keeps."""
MOST_HEADLINES = 3
_REAL = ("value", "stderr")


def sweep_island(
    folder: Path, outcomes: Sequence[Mapping[str, Any]], jobs: Sequence[Job], faults: Mapping[int, str],
    summary: Sequence[dict[str, Cell]], pairs: Sequence[Row], charts: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    """The data of a page as text, see `Packing`.

    Args:
        folder: of the sweep.
        outcomes: rows of sweep.csv.
        jobs: those with results.
        faults: what is wrong with the files of others, by number.
        summary: rows of summary.csv.
        pairs: rows of comparison.csv.
        charts: what the page draws, see `chart_data`.
    """
    pack = Packing()
    settings = list(dict.fromkeys(map(setting_of, jobs)))
    numbers = {_key(row): row for job in jobs for row in job.rows}
    places = {key: place for place, key in enumerate(numbers)}
    rows = list(numbers.values())
    by_number = {job.number: job for job in jobs}
    apart = differing([str(row["overrides"]).split() for row in outcomes])
    return pack.text(
        {
            "format": 1,
            "swept": brief_keys(key for job in apart for key in job),
            "jobs": [
                _job(folder, row, values, by_number.get(int(str(row["job"]))), settings, faults)
                for row, values in zip(outcomes, apart, strict=True)
            ],
            "settings": [setting.told(settings) for setting in settings],
            "numbers": {
                **packed_about(pack, rows),
                "jobs": [job.number for job in jobs],
                **_grid(pack, "", places, [(j, row) for j, job in enumerate(jobs) for row in job.rows], len(jobs)),
                **_grid(pack, "mean_", places, _of_settings(summary, settings), len(settings), "seeds"),
            },
            "headline": [place for place, row in enumerate(rows) if _is_headline(row)][:MOST_HEADLINES],
            "pairs": {
                "total": len(pairs),
                "size": min(len(pairs), MOST_PAIRS),
                "columns": {
                    name: pack.real([real_of(row.get(name)) for row in pairs[:MOST_PAIRS]])
                    if name in _REAL
                    else pack.words(text_of(row.get(name)) for row in pairs[:MOST_PAIRS])
                    for name in comparison.COLUMNS
                },
            },
            "charts": list(charts),
        }
    )


def _job(
    folder: Path, row: Mapping[str, Any], values: Mapping[str, str], job: Job | None, settings: Sequence[Setting],
    faults: Mapping[int, str],
) -> dict[str, Any]:  # fmt: skip
    number, place = int(str(row["job"])), str(row["folder"])
    report = f"{place}/report.html"
    return {
        "job": number,
        "status": str(row["status"]) if job or row["status"] != "done" else "unread",
        "message": str(row["message"] or faults.get(number, "")),
        "overrides": str(row["overrides"]),
        "values": dict(values),
        "setting": settings.index(setting_of(job)) if job else -1,
        "seed": text_of(job.seed) if job else "",
        "report": quote(report) if (folder / report).is_file() else "",
    }


def _grid(
    pack: Packing, lead: str, places: Mapping[tuple[str, ...], int], cells: Iterable[tuple[int, Row]], width: int,
    more: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Columns `<lead>value` and `<lead>stderr`, [numbers · width] with NaN for none, and whole ones of `more`."""
    real = {name: np.full((len(places), width), np.nan) for name in _REAL}
    whole = np.zeros((len(places), width), dtype=np.int64)
    for column, row in cells:
        place = places[_key(row)]
        for name, grid in real.items():
            grid[place, column] = real_of(row.get(name))
        if more:
            whole[place, column] = int(str(row[more]))
    found = {f"{lead}{name}": pack.real(grid) for name, grid in real.items()}
    return found | ({f"{lead}{more}": pack.whole(whole)} if more else {})


def _of_settings(summary: Sequence[dict[str, Cell]], settings: Sequence[Setting]) -> list[tuple[int, Row]]:
    return [(settings.index(setting_of_row(row)), row) for row in summary]


def _is_headline(row: Row) -> bool:
    return row["metric"] in HEADLINE and not row["method"] and not row["group"]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(text_of(row.get(name)) for name in OF_NUMBERS)
