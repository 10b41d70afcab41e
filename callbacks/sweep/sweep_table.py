"""Files of a sweep beside its jobs: sweep.csv, summary.csv, comparison.csv, tables/, figures/ and sweep.html.

sweep.csv (one row per job) and summary.csv (means over seeds) are written as each job ends, also when some failed; the
rest when the sweep has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.parents import end_with_starter_of_worker, start_others
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.run.quiet_libraries import quiet_libraries
from twinlens.callbacks.store.files import write_text
from twinlens.callbacks.sweep import comparison as sweep_comparison
from twinlens.callbacks.sweep import summary as sweep_summary
from twinlens.callbacks.sweep.job_lines import job_began, job_ended, job_lines
from twinlens.callbacks.sweep.job_outcomes import add_row, alone, begin_sweep, rows_so_far
from twinlens.callbacks.sweep.jobs import finished_jobs
from twinlens.callbacks.sweep.summary import write_rows
from twinlens.callbacks.sweep.sweep_files import read_sweep, write_files, write_sweep
from twinlens.callbacks.sweep.sweep_verdicts import warning_lines
from twinlens.callbacks.sweep.track import track_sweep
from twinlens.callbacks.tracking.optimised import KEY, optimised
from twinlens.callbacks.tracking.places import SWEEP_FILE
from twinlens.callbacks.tracking.trackers import Tracker
from twinlens.conf.checking.secrets import scrub
from twinlens.conf.checking.written_config import redact_overrides

HEADLINES = ("accuracy/accuracy", KEY)
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
            write_sweep(folder / SWEEP_FILE, rows_so_far(folder))
        print(job_began(config.hydra.job.num, redact_overrides(config.hydra.overrides.task)), flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        hydra = config.hydra
        if not is_sweep(config) or not is_first_process():
            return
        outcome = job_return._return_value
        if config.get(KEY) is not None:
            job_return.return_value = optimised(outcome)  # what a sweeper that optimises reads; None: the job failed
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
            write_sweep(folder / SWEEP_FILE, rows)
            print(job_ended(row), flush=True)
            jobs = finished_jobs(folder, rows)
            if jobs:
                write_rows(folder / "summary.csv", sweep_summary.COLUMNS, sweep_summary.summarise(jobs))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary and each warning with its jobs; write and print the comparison of the jobs; write what they
        share, and the page."""
        folder = Path(config.hydra.sweep.dir)
        rows = rows_so_far(folder)
        print("\n".join(["", f"sweep, {len(rows)} jobs:", *job_lines(rows)]), flush=True)
        sweep = read_sweep(folder, rows)
        for number, fault in sweep.faults.items():
            print(f"job {number}: {fault}", flush=True)
        if sweep.jobs:
            print(sweep_summary.format_summary(sweep.summary), flush=True)
        for line in warning_lines(folder, rows):
            print(line, flush=True)
        try:
            comparison = write_files(sweep)
            if comparison:
                print(sweep_comparison.format_comparison(comparison), flush=True)
        except UserError as error:
            print(f"sweep: {error}", flush=True)
        if sweep.jobs:
            track_sweep([*_loggers(config, folder)], sweep)
            print(folder, flush=True)


def _loggers(config: DictConfig, folder: Path) -> Iterator[Logger]:
    """The loggers of a sweep's own run: those of its jobs that show more than numbers."""
    for node in (config.get("logger") or {}).values():
        if issubclass(get_class(node["_target_"]), Tracker):
            yield instantiate(node, save_dir=str(folder), _convert_="all")


def is_sweep(config: DictConfig) -> bool:
    """Whether Hydra runs several jobs."""
    return str(config.hydra.mode).rpartition(".")[2] == "MULTIRUN"
