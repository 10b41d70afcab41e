"""Keep libraries from talking over the run's own words."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import datasets
from transformers.utils import logging as transformers_logging

from twinlens.callbacks.processes.ranks import is_first_process


def quiet_libraries() -> None:
    """Warnings that a run cannot act on, and bars of copying files, are switched off; errors are not."""
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
