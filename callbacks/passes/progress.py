"""A named progress bar for every pass, with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

_IN_NOTEBOOK: ContextVar[bool] = ContextVar("bars are a notebook's", default=False)


class PassProgress(TQDMProgressBar):
    """Progress of one predict pass under its own name; a notebook's bar goes when the pass is over.

    Args:
        name: what the pass computes, e.g. `ig on test`.
    """

    def __init__(self, name: str) -> None:
        super().__init__(leave=True)
        self.name = name

    def init_predict_tqdm(self) -> Tqdm:
        bar = super().init_predict_tqdm()
        bar.set_description(self.name)
        bar.unit = "batch"
        bar.leave = not _IN_NOTEBOOK.get()
        return bar

    def on_predict_batch_start(self, *args: Any, **kwargs: Any) -> None:
        super().on_predict_batch_start(*args, **kwargs)
        self.predict_progress_bar.set_description(self.name)


class PassLog(Callback):
    """One line per pass with count, time and rate, where no terminal shows a moving bar.

    Args:
        name: what the pass computes.
        n_rows: examples of the pass, over all processes.
    """

    def __init__(self, name: str, n_rows: int) -> None:
        self.name = name
        self.n_rows = n_rows
        self._start = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            seconds = max(time.monotonic() - self._start, 1e-9)
            print(f"{self.name}: {self.n_rows} examples in {seconds:.1f} s ({self.n_rows / seconds:.1f}/s)", flush=True)


class FitLog(Callback):
    """One line per epoch, where no terminal shows a moving bar."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            found = {name: float(value) for name, value in trainer.callback_metrics.items()}
            shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(found.items()))
            seconds = time.monotonic() - self._start
            print(
                f"fit: epoch {trainer.current_epoch + 1}/{trainer.max_epochs} after {seconds:.1f} s: {shown}",
                flush=True,
            )


@contextmanager
def notebook_bars() -> Iterator[None]:
    """Show moving bars, which a notebook draws as widgets, although standard output is no terminal."""
    before = _IN_NOTEBOOK.set(True)
    try:
        yield
    finally:
        _IN_NOTEBOOK.reset(before)


def on_terminal() -> bool:
    """Whether a moving bar can be seen."""
    return _IN_NOTEBOOK.get() or sys.stdout.isatty()


def fit_progress() -> Callback:
    """A moving bar on a terminal, one line per epoch elsewhere."""
    return TQDMProgressBar(leave=True) if on_terminal() else FitLog()


def progress_callbacks(name: str, n_rows: int) -> list[Callback]:
    """A moving bar on a terminal, one line per pass elsewhere (logs, pipes)."""
    return [PassProgress(name)] if on_terminal() else [PassLog(name, n_rows)]
