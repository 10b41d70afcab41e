"""State of somebody else's process: put back after a call, and set aside where it would change numbers."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from datasets.utils import logging as datasets_logging
from transformers.utils import logging as transformers_logging

LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.fabric.strategies.launchers.subprocess_script")


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put back what a run changes in its process: random numbers, the environment, warnings, loggers and bars."""
    numpy_state, python_state, environment = np.random.get_state(), random.getstate(), dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    factory, bars = logging.getLogRecordFactory(), transformers_logging.is_progress_bar_enabled()
    dataset_bars = datasets_logging.is_progress_bar_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        logging.setLogRecordFactory(factory)
        if bars:
            transformers_logging.enable_progress_bar()
        if dataset_bars:
            datasets_logging.enable_progress_bar()


@contextmanager
def with_gradients() -> Iterator[None]:
    """Set the modes aside that the call stands in: no inference mode, gradients, and no autocast."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def usual_tensors() -> Iterator[None]:
    """New tensors are in float32 and on the CPU, whatever the caller's defaults are."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
