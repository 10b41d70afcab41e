"""A run's own files: configuration, metrics and results, written as the contract says."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.evaluation.comparisons import Measured
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.results.columns import DIRECTIONS, NOT_WRITTEN, SETTING, SETTINGS
from twinlens.callbacks.results.outcomes import FILE, measured_of, write_outcomes
from twinlens.callbacks.results.results_csv import write_results
from twinlens.callbacks.run.folder_lock import claim
from twinlens.callbacks.run.method_settings import setting_of
from twinlens.callbacks.store.files import remove_partial_files, write_json, write_yaml
from twinlens.callbacks.store.formats import FORMAT, RUN_FORMAT

DATA_NOTES = "data.yaml"
"""What was done to the data, one sentence each; absent where nothing was."""


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; made by `start`.

    Attributes:
        metrics: name → number, for metrics.json.
        of_results: those of them that stand in rows as well.
        rows: of results.csv.
        measured: values of single examples behind the rows of methods.
        directions: metric → which direction is better.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: dict[str, float] = {}
        self.of_results: set[str] = set()
        self.rows: list[dict[str, Any]] = []
        self.measured: list[Measured] = []
        self.directions: dict[str, str] = dict(DIRECTIONS)

    def start(
        self,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        report: Mapping[str, Mapping[str, Any]],
        notes: Sequence[str] = (),
    ) -> None:
        """Write config.yaml (which runs the same again) and overrides.yaml, and say what was odd in the data.

        Raises:
            UserError: another run is going on in the folder.
        """
        if is_first_process():
            self._claim(config, overrides)
        self.add_data_report(report, notes)

    def _claim(self, config: Mapping[str, Any], overrides: Sequence[str]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        claim(self.path)
        remove_partial_files(self.path)
        write_yaml(self.path / "config.yaml", dict(config))
        write_yaml(self.path / "overrides.yaml", list(overrides))

    def add_data_report(self, report: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> None:
        """Print what was done to the data and what was odd in them; keep counts and first indices as metrics.

        Counts are `data/<what>`; the first rows of each split are `data_index/<what>/<split>/<number>`. The sentences
        on what was done go to data.yaml.
        """
        for line in notes:
            print(f"data: {line}", flush=True)
        if is_first_process():
            (self.path / DATA_NOTES).unlink(missing_ok=True)  # of an earlier run in the same folder
            if notes:
                write_yaml(self.path / DATA_NOTES, list(notes))
        for name, found in report.items():
            self.metrics[f"data/{name}"] = found["count"]
            for split, rows in found["indices"].items():
                self.metrics.update({f"data_index/{name}/{split}/{n}": row for n, row in enumerate(rows)})
            if found["count"]:
                where = "; ".join(f"{split} {_shown(rows)}" for split, rows in found["indices"].items() if rows)
                rows = "left out, rows of the file" if name == "no_gold_label" else "index"
                print(f"data: {name} in {found['count']} example(s), {rows} {where}", flush=True)

    def add_results(
        self,
        evaluation: str,
        results: Iterable[Result],
        common: Mapping[str, Any],
        controls: Collection[str] = (),
        explained: Mapping[str, str] = {},
        settings: Mapping[str, str] = {},
    ) -> None:
        """Keep results as rows of results.csv and as metrics.

        Args:
            common: cells that all rows have.
            controls: names of the methods that are controls.
            explained: what methods explain, by name, where it is not the predicted class.
            settings: of each method, see `method_settings`.
        """
        for result in results:
            fields = {name: cell for name, cell in vars(result).items() if name not in NOT_WRITTEN}
            row = {**common, "evaluation": evaluation, **fields}
            row["explain"] = explained.get(str(result.method))
            row["control"] = "true" if result.control or result.method in controls else None
            row[SETTING] = setting_of(settings, result.method, result.reference_group) or None
            outcomes = measured_of(evaluation, result, settings, list(controls))
            if outcomes is not None:
                self.measured.append(outcomes)
            if result.better:
                self.directions[result.metric] = result.better
            self.rows.append(row)
            k = "" if result.k is None else f"@{result.k:g}"
            of_evaluation = [cell for name in SETTINGS if isinstance(cell := fields.get(name), str)]
            where = (result.method, result.reference_group, result.group, *of_evaluation)
            name = "/".join(part for part in (evaluation, *where, f"{result.metric}{k}") if part)
            name = name if result.split == "test" else f"{result.split}/{name}"
            self.metrics[name] = result.value
            self.of_results.add(name)

    @property
    def facts(self) -> dict[str, float]:
        """Numbers of the run that are no results: times, counts of the data; without rows that were odd in them."""
        left_out = ("data_index/",)
        return {
            name: value
            for name, value in self.metrics.items()
            if name not in self.of_results and not name.startswith(left_out)
        }

    def write(self) -> None:
        """Write metrics.json, null for what is not finite (JSON has no such numbers), results.csv and outcomes."""
        finite = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        write_json(self.path / "metrics.json", {FORMAT: RUN_FORMAT, **finite})
        write_results(self.path / "results.csv", self.rows)
        write_outcomes(self.path / FILE, self.measured)


def _shown(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:5])) + (" …" if len(rows) > 5 else "")
