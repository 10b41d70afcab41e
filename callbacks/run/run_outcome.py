"""Outcome of a run: failures as values, so that a sweep goes on, and the exit code they add up to."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes.memory import is_out_of_memory
from twinlens.callbacks.processes import stopping
from twinlens.callbacks.processes.heartbeats import speaks_for_all, tell_the_others
from twinlens.callbacks.processes.parents import end_of_first, is_first
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.processes.watchdog import end_children, let_the_watch_speak
from twinlens.callbacks.run.folder_lock import release
from twinlens.callbacks.store.failures import chain_of, writing
from twinlens.conf.checking.secrets import HIDDEN, scrub

EXIT_CODES = {"error": 1, "terminated": 143, "interrupted": 130, "refused": 2, "done": 0}
"""Status → exit code; the first that occurs in this order decides."""

LACKING = (MissingMandatoryValue, ConfigKeyError, ConfigAttributeError, InterpolationResolutionError)
"""What OmegaConf says of a configuration that has not all that is read."""

OUTCOMES: list[dict[str, Any]] = []
"""What became of each job of this process."""

LET_THE_FIRST_SPEAK_SECONDS = 15.0
"""The first process may take seconds to end on a busy machine; one that ends at once is not waited for."""

OUT_OF_MEMORY = (
    "the run found no more memory, be it that of the machine or what this shell allows (ulimit -v); expected room for "
    "the model, its libraries and memory_budget: lower memory_budget, data.eval_batch_size, model.batch_size or "
    "data.max_length, or raise the limit; finished stages and shards are kept, and the same command goes on."
)
STOPPED = frozenset(stopping.WORDS.values())
"""Statuses of what a signal ended."""


def outcome_of(work: Callable[[], Any], folder: Path | None = None) -> dict[str, Any]:
    """Run `work`: its metrics, or the one sentence that says what the user can mend, or a defect.

    Args:
        work: the whole run, or the check of a command line.
        folder: the run's folder, removed again if the run left nothing in it.
    """
    outcome: dict[str, Any]
    try:
        with writing(folder or Path.cwd(), "hydra.run.dir"):
            outcome = {"status": "done", "metrics": work()}
    except KeyboardInterrupt as error:
        if folder is not None:
            raise  # one job of perhaps many: the whole command line ends
        outcome = _stopped(str(error))
    except BrokenPipeError:
        if folder is not None:
            raise  # a job's own pipe: the command line ends quietly where it is standard output's
        outcome = {"status": "done"}
    except Exception as error:
        if stopping.received() is None:
            outcome = _failed(error)
        elif folder is not None:
            raise KeyboardInterrupt from error  # which a library has caught and made something else of
        else:
            outcome = _stopped()
    finally:
        if folder is not None:
            release(folder)
    with suppress(OSError):
        if folder is not None and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return outcome


def _stopped(kept: str = "") -> dict[str, Any]:
    return {"status": stopping.WORDS[stopping.stopped_by()], "message": kept or stopping.KEPT}


def _failed(error: Exception) -> dict[str, Any]:
    """What the user can mend, or a defect: its traceback is shown, a sweep's other jobs still run."""
    if isinstance(error, UserError):
        return {"status": "refused", "message": sentence(error)}
    if isinstance(error, LACKING):
        return {"status": "refused", "message": scrub(_lacks(error))}
    if any(map(is_out_of_memory, chain_of(error))):
        return {"status": "refused", "message": OUT_OF_MEMORY}
    let_the_watch_speak(error)
    sys.stderr.write(scrub("".join(traceback.format_exception(error))))
    return {"status": "error", "message": scrub(f"{type(error).__name__}: {error}")}


def code_of(error: BaseException) -> int:
    """The exit code that a run will end with which ends with this."""
    if isinstance(error, KeyboardInterrupt | SystemExit) or stopping.received() is not None:
        return stopping.CODES[stopping.stopped_by()]
    mended = isinstance(error, (UserError, *LACKING)) or any(map(is_out_of_memory, chain_of(error)))
    return EXIT_CODES["refused" if mended else "error"]


def sentence(error: UserError) -> str:
    """What a refusal says, in one line, without secrets and without texts of hundreds of characters that it repeats."""
    line = "".join(sign if sign.isprintable() else " " for sign in str(error))
    return re.sub(r"\S{400,}", lambda match: match[0][:300] + HIDDEN, scrub(line))


def _lacks(error: OmegaConfBaseException) -> str:
    """A configuration of somebody's own that does not start from the project's lacks what a run reads."""
    what = f"has no {error.full_key or error.key}, which the run reads"
    if isinstance(error, InterpolationResolutionError):
        what = f"cannot be resolved ({str(error).splitlines()[0]})"
    return (
        f"the configuration {what}; expected all that conf/train.yaml chooses: let the defaults list of your file "
        "begin with `- train`, or add the key."
    )


def end_output() -> None:
    """Hand on what is still to be said; if whoever read it has gone (`| head`), say nothing more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells of it when it ends


def _first_process_goes_on(parent: int = os.getppid()) -> bool:
    """Whether the first process, which started this one, has not met the same failure and told of it."""
    until = time.monotonic() + LET_THE_FIRST_SPEAK_SECONDS
    while os.getppid() == parent and time.monotonic() < until:
        time.sleep(0.1)
    return os.getppid() == parent


def exit_code(outcomes: list[dict[str, Any]]) -> int:
    """Print what went wrong to stderr; 0 for success, 2 for what the user can mend, 130 interrupted, 143 terminated,
    1 a defect."""
    messages = [f"{outcome['status']}: {outcome['message']}" for outcome in outcomes if "message" in outcome]
    statuses = {outcome["status"] for outcome in outcomes}
    code = next((code for status, code in EXIT_CODES.items() if status in statuses), 0)
    tell_the_others(code)
    if statuses & STOPPED:
        end_children()
        if not is_first() and speaks_for_all() is None:  # the first process has got the signal, or has ended
            _say([line for line in [end_of_first()] if line])
            return code
    if messages and _speaks():
        _say(messages)
    end_output()
    return code


def _say(messages: list[str]) -> None:
    for message in messages:
        print(message, file=sys.stderr, flush=True)


def _speaks() -> bool:
    """Whether it is this process that says what all processes of the run may have met."""
    decided = speaks_for_all()
    return (is_first_process() or _first_process_goes_on()) if decided is None else decided
