"""Bounds on what a configuration may grow to and how long composing one may take."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.plain_values import join

MOST_CHARACTERS = 2_000_000
"""Characters and values of a whole configuration, references written out; one of a run has some four thousand."""
LONGEST_CHAIN = 30
"""References that lead to references."""
SECONDS_TO_COMPOSE = 20.0
"""Of the processor's time; composing takes about a twentieth of a second."""

_REFERENCE = re.compile(r"\$\{(\.*)([^${}:,\s]+)\}")
_ONLY_REFERENCE = re.compile(r"\$\{(\.*)([^${}:,\s]+)\}\Z")
_PARTS = re.compile(r"[^.\[\]]+")
Path = tuple[Any, ...]


def check_growth(config: DictConfig) -> None:
    """Refuse references that lead in a circle or multiply: `a: ${b}${b}`, `b: ${c}${c}` …; nothing is resolved.

    Raises:
        UserError: naming the key.
    """
    _Growth(OmegaConf.to_container(config, resolve=False)).of((), 0)


class _Growth:
    """How many characters and values each key stands for; a reference counts for what it leads to."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.known: dict[Path, int] = {}
        self.open: set[Path] = set()

    def of(self, path: Path, chain: int) -> int:
        if path in self.known:
            return self.known[path]
        value = self.at(path)
        where = _dotted(path)
        if path in self.open:
            raise UserError(f"{where} refers to itself in a circle; expected a value: write the value itself.")
        if chain > LONGEST_CHAIN:
            raise UserError(
                f"{where} stands at the end of more than {LONGEST_CHAIN} references to references; expected fewer: "
                "write the value itself."
            )
        self.open.add(path)
        size = self._size(value, path, chain)
        self.open.remove(path)
        if size > MOST_CHARACTERS:
            raise UserError(
                f"{where or 'the configuration'} grows to {size} characters with its references written out; expected "
                f"at most {MOST_CHARACTERS}: refer to each value once, or keep data in a data file."
            )
        self.known[path] = size
        return size

    def _size(self, value: Any, path: Path, chain: int) -> int:
        if isinstance(value, dict):
            return 1 + sum(self.of((*path, key), chain) for key in value)
        if isinstance(value, list):
            return 1 + sum(self.of((*path, index), chain) for index in range(len(value)))
        if not isinstance(value, str):
            return 1
        targets = (self.target(match, path) for match in _REFERENCE.finditer(value))
        return 1 + len(value) + sum(self.of(target, chain + 1) for target in targets if target is not None)

    def target(self, match: re.Match[str], path: Path) -> Path | None:
        """Where a reference leads, None where to nothing or to what holds it."""
        dots, rest = match.groups()
        base: Path = path[: -len(dots)] if dots and len(dots) <= len(path) else ()
        return self.follow((*base, *_PARTS.findall(rest)), 0)

    def follow(self, path: Path, jumps: int) -> Path | None:
        """The place of a path some of whose parts may themselves be references."""
        reached: Path = ()
        for position, part in enumerate(path):
            value = self.at(reached)
            jump = _ONLY_REFERENCE.match(value) if isinstance(value, str) else None
            if jump is not None and jumps < LONGEST_CHAIN:
                dots, rest = jump.groups()
                base = reached[: -len(dots)] if dots else ()
                return self.follow((*base, *_PARTS.findall(rest), *path[position:]), jumps + 1)
            key = _key(value, part)
            if key is None:
                return None
            reached = (*reached, key)
        return reached

    def at(self, path: Path) -> Any:
        value = self.raw
        for part in path:
            value = value[part]
        return value


def _key(value: Any, part: Any) -> Any:
    """The key of a mapping, or position of a list, that a part of a reference names; None for none."""
    if isinstance(value, dict):
        return next((key for key in value if str(key) == str(part)), None)
    if isinstance(value, list) and str(part).isdigit() and int(part) < len(value):
        return int(part)
    return None


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text = join(text, part)
    return text


@contextmanager
def in_time(what: str, seconds: float = SECONDS_TO_COMPOSE) -> Iterator[None]:
    """Refuse what takes more than so many seconds of this process's own time; elsewhere than in the main thread, and
    where somebody else uses the same clock, no bound.

    Raises:
        UserError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_VIRTUAL)[0]:
        yield
        return

    def too_long(number: int, frame: Any) -> None:
        raise UserError(
            f"{what} takes more than {seconds:.0f} seconds to compose; expected a twentieth of one: look for files "
            "that include each other many times, or for values that multiply."
        )

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
