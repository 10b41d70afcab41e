"""Runs of `train.main()` in forked processes, ended by signals: everything is imported once, so a run costs no imports.

The parent must never compute with torch: a forked process inherits no threads, and torch's pools would hang in it.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinlens import train
from twinlens.callbacks.passes import predict_pass, progress
from twinlens.callbacks.run import pipeline

STAGES = {
    "fit_stage": "fit",
    "examples_stage": "predict",
    "attribute_stage": "attribute",
    "evaluate_stage": "evaluate",
    "write_report": "report",
}
"""Functions of pipeline, and the stage that begins where one is called."""


AT_MOST = 10.0
"""Seconds within which SIGTERM has to end a run."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        code: its exit code; negative: the signal that killed it.
        seconds: how long it lived.
        after: seconds from the signal that it was sent to its end, None where it ended before.
    """

    code: int
    seconds: float
    after: float | None = None


def forked(
    work: Callable[[], int], log: Path, kill_after: float | None = None, by: signal.Signals = signal.SIGKILL
) -> Ended:
    """Run `work` in a process of its own, its output in `log`; a signal after so many seconds unless it ended before.

    One that SIGTERM has not ended in twice the time that it may take is killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _redirect(log)
            code = work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sent: float | None = None
    while True:
        ended, status = os.waitpid(child, 0 if kill_after is None and sent is None else os.WNOHANG)
        seconds = time.monotonic() - start
        if ended:
            return Ended(os.waitstatus_to_exitcode(status), seconds, None if sent is None else seconds - sent)
        if kill_after is not None and seconds >= kill_after:
            os.kill(child, by)
            sent, kill_after = seconds, None
            continue
        if sent is not None and seconds - sent > 2 * AT_MOST:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


def run_command(
    folder: Path, arguments: Sequence[str], kill_after: float | None = None, by: signal.Signals = signal.SIGKILL
) -> Ended:
    """`python train.py …` in `folder`; what it begins is noted in `<folder>/trace`, its output in `<folder>/log`."""

    def work() -> int:
        os.chdir(folder)
        sys.argv = [train.__file__, *arguments]
        note_beginnings(folder / "trace")
        return train.main()

    return forked(work, folder / "log", kill_after, by)


def import_what_runs_import(folder: Path, arguments: Sequence[str]) -> None:
    """Import here what a first run in `folder` imports on its way, so that later runs find it imported."""

    def work() -> int:
        os.chdir(folder)
        sys.argv = [train.__file__, *arguments]
        known = set(sys.modules)
        code = train.main()
        (folder / "imported").write_text("\n".join(name for name in sys.modules if name not in known))
        return code

    forked(work, folder / "log")
    for name in (folder / "imported").read_text().splitlines():
        with suppress(Exception):  # some names stand for modules made on the way
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else each run searches all that was imported for garbage, and copies it by that


def note_beginnings(trace: Path) -> None:
    """Note every stage, epoch and shard as it begins, one line each, written at once."""
    descriptor = os.open(trace, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(*words: object) -> None:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

    def noted(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            note("stage", stage)
            return function(*arguments)

        return call

    def shard_begins(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int, *rest: Any) -> None:
        number = next(shard for shard in self.last_batch[batch_idx:] if shard is not None)
        note("shard", self.folder.parent.with_suffix("").name, number)

    def epoch_begins(self: Any, trainer: Any, module: Any) -> None:
        note("epoch", trainer.current_epoch)

    note("start")
    for name, stage in STAGES.items():
        setattr(pipeline, name, noted(getattr(pipeline, name), stage))
    predict_pass.ShardWriter.on_predict_batch_start = shard_begins  # type: ignore[method-assign]
    progress.FitLog.on_train_epoch_start = epoch_begins  # type: ignore[method-assign]


def _redirect(log: Path) -> None:
    descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  (lives as long as the process)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
