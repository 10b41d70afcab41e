"""Keep libraries from talking over the run's own words."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import datasets
from transformers.utils import logging as transformers_logging

from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.conf.checking.secrets import scrub


@contextmanager
def scrubbed_output(printing: bool) -> Iterator[None]:
    """Leave secrets out of what Hydra prints: its copies of a configuration hold whatever was typed.

    Args:
        printing: whether the command only prints (`--cfg job`, `--info`, `--help`); a run's output passes as it is.
    """
    if not printing:
        yield
        return
    held = io.StringIO()
    try:
        with redirect_stdout(held):
            yield
    finally:
        sys.stdout.write(scrub(held.getvalue()))


def scrub_log_records() -> None:
    """Leave secrets out of every line that any library logs, to the terminal or to a file of Hydra's."""
    make = logging.getLogRecordFactory()
    if getattr(make, "scrubs", False):
        return

    def scrubbed(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        with suppress(Exception):  # a message that does not fit its arguments is the logging library's to report
            text = record.getMessage()
            if (shown := scrub(text)) != text:
                record.msg, record.args = shown, ()
        return record

    scrubbed.scrubs = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(scrubbed)


def quiet_libraries() -> None:
    """Warnings that a run cannot act on, and bars of copying files, are switched off; errors are not."""
    scrub_log_records()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # its errors reach main(), which says what the user can mend
    if not is_first_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the first process speaks for all)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # what it says before it kills this process because another one has died
    logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    for text in (
        ".*does not have many workers.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*LeafSpec.*is deprecated.*",
        ".*weights_only.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
    ):
        warnings.filterwarnings("ignore", text)
