"""Files of a sweep beside its jobs: sweep.csv, summary.csv, comparison.csv, tables/ and figures/.

sweep.csv (one row per job) and summary.csv (means over seeds) are written as each job ends, also when some failed; the
rest when the sweep has ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.callbacks.figures.write import write_results_figures
from twinlens.callbacks.processes.parents import end_with_starter_of_worker, start_others
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.results.unified_tables import unified_tables
from twinlens.callbacks.run.quiet_libraries import quiet_libraries
from twinlens.callbacks.store.files import write_text
from twinlens.callbacks.sweep import comparison as sweep_comparison
from twinlens.callbacks.sweep import summary as sweep_summary
from twinlens.callbacks.sweep.job_lines import job_began, job_ended, job_lines
from twinlens.callbacks.sweep.job_outcomes import add_row, alone, begin_sweep, rows_so_far
from twinlens.callbacks.sweep.jobs import Job, finished_jobs, rows_of_all, sizes_of_all
from twinlens.callbacks.sweep.seeds import methods_over_seeds
from twinlens.callbacks.sweep.summary import write_rows
from twinlens.conf.checking.secrets import scrub
from twinlens.conf.checking.written_config import redact_overrides

COLUMNS = ("job", "status", "overrides", "headline", "folder", "message")
HEADLINES = ("accuracy/accuracy",)
"""Metrics that stand in the table for a job as a whole."""


class SweepTable(Callback):
    """Collects the outcome of every job into sweep.csv; prints it as the job ends, and all when the sweep has ended.

    Files are written after each job: when one fails, Hydra never calls `on_multirun_end`. A launcher may run several
    jobs at once, each in a process of its own with a copy of this object, so that all it knows stands in files.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note where the sweep's outcomes will be found."""
        start_others()
        begin_sweep(Path(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remove Hydra's copy of the sweep's raw configuration: it holds whatever was typed, keys and paths included.

        Each job's own config.yaml and overrides.yaml say what ran. Hydra's copies of a job (`hydra.output_subdir`) stay
        without secrets.
        """
        copies = OmegaConf.select(config, "hydra.output_subdir")
        if copies is not None and is_first_process():
            for copy in (Path(config.hydra.runtime.output_dir) / copies).glob("*.yaml"):
                write_text(copy, scrub(copy.read_text(encoding="utf-8")))
        if not is_sweep(config) or not is_first_process():
            return
        end_with_starter_of_worker()
        quiet_libraries()  # in a launcher's process nothing else has
        folder = Path(config.hydra.sweep.dir)
        (folder / "multirun.yaml").unlink(missing_ok=True)
        # written before the job so that its loggers find the sweep it belongs to
        with alone(folder):
            write_sweep(folder / "sweep.csv", rows_so_far(folder))
        print(job_began(config.hydra.job.num, redact_overrides(config.hydra.overrides.task)), flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        hydra = config.hydra
        if not is_sweep(config) or not is_first_process():
            return
        outcome = job_return._return_value
        known = isinstance(outcome, dict)
        metrics = outcome.get("metrics", {}) if known else {}
        row = {
            "job": hydra.job.num,
            "status": outcome["status"] if known else "error",
            "overrides": " ".join(redact_overrides(hydra.overrides.task)),
            "headline": " ".join(f"{name}={metrics[name]:.4g}" for name in HEADLINES if name in metrics),
            "folder": str(hydra.sweep.subdir),
            "message": outcome.get("message", "") if known else str(outcome),
        }
        folder = Path(hydra.sweep.dir)
        add_row(folder, row)
        with alone(folder):
            rows = rows_so_far(folder)
            write_sweep(folder / "sweep.csv", rows)
            print(job_ended(row), flush=True)
            jobs = finished_jobs(folder, rows)
            if jobs:
                write_rows(folder / "summary.csv", sweep_summary.COLUMNS, sweep_summary.summarise(jobs))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary; write and print the comparison of the jobs; write their common tables and figures."""
        folder = Path(config.hydra.sweep.dir)
        rows = rows_so_far(folder)
        print("\n".join(["", f"sweep, {len(rows)} jobs:", *job_lines(rows)]), flush=True)
        jobs = finished_jobs(folder, rows)
        if not jobs:
            return
        print(sweep_summary.format_summary(sweep_summary.summarise(jobs)), flush=True)
        try:
            write_common(folder, jobs)
        except UserError as error:
            print(f"sweep: {error}", flush=True)
        print(folder, flush=True)


def is_sweep(config: DictConfig) -> bool:
    """Whether Hydra runs several jobs."""
    return str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"


def write_common(folder: Path, jobs: list[Job]) -> None:
    """Write tables/, figures/ and comparison.csv of all jobs; print the comparison.

    Raises:
        UserError: a job's file is damaged (named).
    """
    rows = rows_of_all(jobs)
    for table in [*unified_tables(rows, sizes_of_all(jobs)), *filter(None, [methods_over_seeds(jobs)])]:
        table.write(folder / "tables")
    write_results_figures(rows, folder / "figures")
    comparison = sweep_comparison.compare(jobs)
    if comparison:
        write_rows(folder / "comparison.csv", sweep_comparison.COLUMNS, comparison)
        print(sweep_comparison.format_comparison(comparison), flush=True)


def write_sweep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write sweep.csv, whole or not at all; cells that look like formulas are protected."""
    write_rows(path, COLUMNS, rows)
