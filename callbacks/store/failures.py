"""Failures of storage and a user's Ctrl-C, said in one sentence each."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from twinlens.attribution.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
KEPT = "finished stages and shards are kept, and the same command goes on."


@contextmanager
def writing(folder: Path, key: str) -> Iterator[None]:
    """Say in one sentence why a folder cannot be written.

    Args:
        folder: where the work in this context writes.
        key: the configuration key that says where it lies.

    Raises:
        UserError: the disk is full, the folder may not be written or has vanished, or a name is too long for one.
    """
    existed = os.path.isdir(folder)  # false also where the name is too long to ask
    try:
        yield
    except Exception as error:
        reason = _reason(error, folder, existed or os.path.isdir(folder.parent), key)
        if reason is None:
            raise
        raise UserError(reason) from error


def _reason(error: BaseException, folder: Path, existed: bool, key: str) -> str | None:
    number = next((found for found in map(_error_number, _chain(error)) if found is not None), None)
    named = next((found.filename for found in _chain(error) if isinstance(found, OSError) and found.filename), folder)
    if number == errno.ENAMETOOLONG:
        return (
            f"{str(named)[:60]}… is no path ({os.strerror(number)}); expected at most 255 bytes in each of its parts: "
            "give a shorter one."
        )
    if number == errno.EFBIG:
        return (
            f"{named} cannot be written ({os.strerror(number)}: this shell or disk limits the size of a file); "
            f"expected room for files as large as the model: raise the limit (ulimit -f unlimited), or set {key}=DIR "
            f"on another disk; {KEPT}"
        )
    if number in FULL:
        return (
            f"{named} cannot be written ({os.strerror(number)}); expected room for the results: free some, or set "
            f"{key}=DIR on another disk; {KEPT}"
        )
    if number in FORBIDDEN:
        return f"{named} cannot be written ({os.strerror(number)}); expected a writable folder: set {key}=DIR; {KEPT}"
    if number in GONE and not folder.is_dir() and existed:
        return (
            f"{folder} has vanished while the run was going on; expected it to stay until the run ends: check the disk "
            f"or what removes files there, or set {key}=DIR; {KEPT}"
        )
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, up to what has already been said to the user."""
    return takewhile(lambda cause: not isinstance(cause, UserError), chain_of(error))


def _error_number(error: BaseException) -> int | None:
    """The system's number of an error; safetensors and arrow give it in their text only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\b(?:os error|errno) (\d+)\b", str(error))
    if told is None and "PytorchStreamWriter failed writing" in str(error):
        return errno.EFBIG if _files_are_limited() else errno.ENOSPC  # which it does not tell
    return int(told[1]) if told else None


def _files_are_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return False
    return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY


@contextmanager
def telling_what_is_kept(partial: Path) -> Iterator[None]:
    """Let Ctrl-C inside a stage say what of that stage is kept.

    Args:
        partial: the folder of the unfinished entry, `<store>/<stage>/<fingerprint>.partial`.

    Raises:
        KeyboardInterrupt: with the sentence.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args:  # of a stage inside this one, which says what is kept of it
            raise
        stage, store = partial.parent.name, partial.parent.parent
        done = len(list(partial.glob("shards/**/shard_*.safetensors")))  # of some passes in a folder for each block
        kept = f"{done} finished shard(s)" if stage not in ("fit", "retrain") or done else _epochs(partial)
        raise KeyboardInterrupt(
            f"in stage {stage}, of which {kept} are kept, like all finished stages, in {store}; "
            "the same command goes on"
        ) from error


def _epochs(partial: Path) -> str:
    return "the finished epochs" if (partial / "checkpoints" / "last.ckpt").is_file() else "0 epochs"


def chain_of(error: BaseException, handled: bool = True) -> Iterator[BaseException]:
    """The error, then what it was raised from, then what that was raised from.

    Args:
        error: where the walk begins.
        handled: follow also what was being handled when an error was raised without naming a cause.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (current.__context__ if handled else None)


def user_error_in(error: BaseException) -> UserError | None:
    """The first error among an error's named causes that the user can mend."""
    return next((cause for cause in chain_of(error, handled=False) if isinstance(cause, UserError)), None)
