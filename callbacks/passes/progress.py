"""Signs of life of every pass and fit: a moving bar on a terminal, a line now and then elsewhere.

When a stage has ended it says so itself, in a line with its time; a bar leaves nothing behind.
"""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from twinlens.callbacks.processes.terminal import on_terminal
from twinlens.callbacks.store.stage_line import time_in_words

SECONDS_BETWEEN = 30.0
"""Between two lines of a pass where no terminal shows a moving bar; shorter passes say nothing before their stage."""


class _Bars(TQDMProgressBar):
    """Bars that leave nothing behind, also where a pass is interrupted: what is said then begins a line."""

    def __init__(self) -> None:
        super().__init__(leave=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        for bar in (self._val_progress_bar, self._train_progress_bar, self._predict_progress_bar):
            if bar is not None:
                bar.leave = False
                bar.close()


class PassProgress(_Bars):
    """Progress of one predict pass under its own name.

    Args:
        name: what the pass computes, e.g. `ig on test`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def init_predict_tqdm(self) -> Tqdm:
        bar = super().init_predict_tqdm()
        bar.leave = False
        bar.set_description(self.name)
        bar.unit = "batch"
        return bar

    def on_predict_batch_start(self, *args: Any, **kwargs: Any) -> None:
        super().on_predict_batch_start(*args, **kwargs)
        self.predict_progress_bar.set_description(self.name)


class PassLog(Callback):
    """A line now and then with how much is done and what is left, where no terminal shows a moving bar.

    Args:
        name: what the pass computes.
        n_rows: examples of the pass, over all processes.
        seconds_between: two lines, at least.
    """

    def __init__(self, name: str, n_rows: int, seconds_between: float = SECONDS_BETWEEN) -> None:
        self.name = name
        self.n_rows = n_rows
        self.seconds_between = seconds_between

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = self._said = time.monotonic()
        self._batches = 0

    def on_predict_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        self._batches += 1
        now, n_batches = time.monotonic(), sum(map(int, trainer.num_predict_batches))
        if now - self._said < self.seconds_between or not trainer.is_global_zero or self._batches >= n_batches:
            return
        self._said, seconds = now, now - self._start
        left = seconds * (n_batches - self._batches) / self._batches
        print(
            f"{self.name}: {100 * self._batches / n_batches:.0f} % of {self.n_rows} examples after "
            f"{time_in_words(seconds)}, about {time_in_words(left)} left",
            flush=True,
        )


class FitProgress(_Bars):
    """Progress of a fit on a terminal: a moving bar, and a line that stays for every epoch."""

    def init_train_tqdm(self) -> Tqdm:
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        """What stands beside the bar, without the number that loggers give a run."""
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self.print(_epoch_line(trainer, self._start))


class FitLog(Callback):
    """One line per epoch, where no terminal shows a moving bar."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(_epoch_line(trainer, self._start), flush=True)


def fit_progress() -> Callback:
    """A moving bar on a terminal or in a notebook, one line per epoch elsewhere."""
    return FitProgress() if on_terminal() else FitLog()


def progress_callbacks(name: str, n_rows: int) -> list[Callback]:
    """A moving bar on a terminal or in a notebook, a line now and then elsewhere (logs, pipes)."""
    return [PassProgress(name)] if on_terminal() else [PassLog(name, n_rows)]


def _epoch_line(trainer: Trainer, start: float) -> str:
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(found.items()))
    seconds = time.monotonic() - start
    return f"fit: epoch {trainer.current_epoch + 1}/{trainer.max_epochs} after {seconds:.1f} s: {shown}"
