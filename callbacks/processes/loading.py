"""The first moments of a command, while libraries load: a first line, answers that need none of them, no traceback."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from types import TracebackType

from twinlens.callbacks.processes.parents import end_with_parent, is_first
from twinlens.callbacks.processes.stopping import end_at_once_on_signals

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"
TOO_FEW = 1_200_000_000
"""Bytes of addresses with which the libraries do not load and the smallest model does not run."""
NO_ROOM = ("cannot allocate memory", "failed to map segment", "can't start new thread", "not enough memory")
"""What system and libraries say where addresses or memory run out."""
NO_MEMORY_TO_LOAD = (
    "the libraries do not find the memory to load; expected about 4 GiB of addresses, of which they use a part: raise "
    "the limit of this shell (ulimit -v unlimited), or use a machine with more memory."
)


def begin(name: str) -> None:
    """End with one line on signals, with the process that started this one, and where libraries find no memory; answer
    what needs none of them, and say that the rest takes a while.

    Args:
        name: of the module that loads them; nothing is done where it is not the one that was started.
    """
    if name != "__main__":
        return
    end_at_once_on_signals()
    end_with_parent()
    sys.excepthook = _say_what_is_missing
    if _addresses() < TOO_FEW:
        _refuse()  # where libraries find that out, some of them abort without a word
    if is_first():
        _answer(sys.argv[1:])


def _answer(arguments: list[str]) -> None:
    """Answer a command line that needs no library, and end; else say that they are being loaded."""
    from twinlens.conf.checking.first_answer import first_answer, only_prints  # reads YAML, once signals are caught

    answer = first_answer(arguments, CONFIG_DIR)
    if answer is None:
        if not only_prints(arguments):
            print("twinlens: loading …", flush=True)
        return
    code, text = answer
    print(text, file=sys.stderr if code else sys.stdout, flush=True)
    sys.exit(code)


def _say_what_is_missing(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, MemoryError) or any(said in str(error).lower() for said in NO_ROOM):
        _refuse()
    sys.__excepthook__(kind, error, traceback)


def _refuse() -> None:
    os.write(2, f"refused: {NO_MEMORY_TO_LOAD}\n".encode())
    os._exit(2)


def _addresses() -> float:
    """Bytes of addresses that this shell allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return math.inf
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if allowed == resource.RLIM_INFINITY else allowed
