"""Trackers of one run: told of its configuration when it begins, of what was found, and of how it ended.

Only the first process of a run speaks to them. A tracker that fails when the results are there is told of in a line and
ends nothing: the run's files hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import CSVLogger, Logger

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.tracking.findings import Findings
from twinlens.conf.checking.secrets import hide

Send = Callable[[Callable[[], Findings]], None]
"""Hands findings to every tracker; they are gathered only where there is one."""


@runtime_checkable
class Tracker(Protocol):
    """A logger of Lightning that takes more than numbers."""

    def begin_run(self, config: Mapping[str, Any]) -> None:
        """Start the run with its configuration, plain values without secrets."""

    def send(self, findings: Findings) -> None:
        """Show what was found."""

    def end_run(self, code: int) -> None:
        """End the run: 0 for success, else the exit code of the command."""


@contextmanager
def tracked(
    loggers: Sequence[Logger], config: Callable[[], Mapping[str, Any]], code_of: Callable[[BaseException], int]
) -> Iterator[Send]:
    """Begin a run in all its trackers and end it there however it ends here.

    Args:
        loggers: of the run; those that are no `Tracker` get configuration and numbers.
        config: gives the run's configuration, read in the first process only.
        code_of: the exit code that what was raised will become.

    Raises:
        UserError: a tracker's server cannot be reached when the run begins.
    """
    if not is_first_process() or not loggers:
        yield lambda gather: None
        return
    begun: list[Logger] = []
    code = 1
    try:
        values = {key: value for key, value in config().items() if key != "defaults"}  # of Hydra
        for logger in loggers:
            _begin(logger, values)
            begun.append(logger)
        yield lambda gather: _send(loggers, gather())
        code = 0
    except BaseException as error:
        code = code_of(error)
        raise
    finally:
        for logger in begun:
            if isinstance(logger, Tracker):
                _guarded(logger, lambda logger=logger: logger.end_run(code))  # type: ignore[misc]
            elif code == 0:
                logger.finalize("success")


def _begin(logger: Logger, config: Mapping[str, Any]) -> None:
    if isinstance(logger, Tracker):
        logger.begin_run(config)
    elif not isinstance(logger, CSVLogger):  # which would write a second config.yaml
        logger.log_hyperparams(dict(config))


def _send(loggers: Sequence[Logger], findings: Findings) -> None:
    for logger in loggers:
        if isinstance(logger, Tracker):
            _guarded(logger, lambda logger=logger: logger.send(findings), findings.folder)  # type: ignore[misc]
        else:
            logger.log_metrics(dict(findings.numbers))
            logger.save()
    if any(isinstance(logger, Tracker) for logger in loggers):
        for sentence in findings.said:
            print(f"tracking: {sentence}", flush=True)


def _guarded(logger: object, work: Callable[[], None], folder: Path | None = None) -> None:
    """Do what a finished run does not depend on: a failure of the tracker's library is a line."""
    try:
        work()
    except UserError:
        raise
    except Exception as error:  # each library, and the network below it, has failures of its own
        reason = hide(str(error) or type(error).__name__).splitlines()[0]
        where = f"; the results stand in {folder} all the same" if folder else ""
        print(f"{type(logger).__name__}: {reason}{where}", flush=True)
