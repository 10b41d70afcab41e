"""The table of a sweep: one row per job, written as each job ends, also when some failed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from callbacks.files import write_text
from callbacks.results_table import protect
from conf.dump import redact_overrides

COLUMNS = ("job", "status", "overrides", "headline", "folder", "message")
HEADLINES = ("accuracy/accuracy",)
"""Metrics that stand in the table for a job as a whole."""


class SweepTable(Callback):
    """Collects the outcome of every job into sweep.csv and prints the table.

    Written after each job: when one fails, Hydra never calls `on_multirun_end`.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove Hydra's copy of the sweep's raw configuration: it holds whatever was typed, keys and paths included.

        Each job's own config.yaml and overrides.yaml say what ran.
        """
        if str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN":
            (Path(config.hydra.sweep.dir) / "multirun.yaml").unlink(missing_ok=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        hydra = config.hydra
        if str(hydra.mode).rpartition(".")[2] != "MULTIRUN":
            return
        outcome = job_return._return_value
        known = isinstance(outcome, dict)
        metrics = outcome.get("metrics", {}) if known else {}
        self.rows.append(
            {
                "job": hydra.job.num,
                "status": outcome["status"] if known else "error",
                "overrides": " ".join(redact_overrides(hydra.overrides.task)),
                "headline": " ".join(f"{name}={metrics[name]:.4g}" for name in HEADLINES if name in metrics),
                "folder": str(hydra.sweep.subdir),
                "message": outcome.get("message", "") if known else str(outcome),
            }
        )
        write_sweep(Path(hydra.sweep.dir) / "sweep.csv", self.rows)
        print(format_sweep(self.rows), flush=True)


def write_sweep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write sweep.csv, whole or not at all; cells that look like formulas are protected."""
    import io

    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows({key: protect(value) for key, value in row.items()} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, stream.getvalue())


def format_sweep(rows: list[dict[str, Any]]) -> str:
    """The jobs so far as aligned text."""
    shown = [["job", "status", "headline", "overrides"]]
    shown += [[str(row["job"]), row["status"], row["headline"], row["overrides"]] for row in rows]
    widths = [max(len(line[column]) for line in shown) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in shown]
    failed = [f"job {row['job']}: {row['message']}" for row in rows if row["message"]]
    return "\n".join(["", "sweep so far:", *lines, *failed])
