"""One try of the fuzzers of command lines and configurations, in a scratch folder and under an alarm."""

from __future__ import annotations

import copy
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 30
"""Whatever takes more of a process hangs."""
EVIL = "evil_module_of_a_stranger"
"""A module beside the scratch folder that leaves a mark where it is imported."""


COMPOSED: dict[tuple[str, ...], Any] = {}
"""Configurations of the project's own files, by name and overrides."""


class Hangs(BaseException):
    """The alarm has rung; no handler of ordinary errors takes it for one."""


@dataclass(frozen=True)
class Case:
    """One try.

    Attributes:
        arguments: of `python train.py`.
        files: name → content, below the working directory.
    """

    arguments: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """What became of the tries."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    def add(self, seed: int, case: Case, became: str, detail: str = "") -> None:
        self.counts[became] += 1
        if became not in ("served", "refused"):
            self.defects.append(f"seed {seed}: {became}: {case.arguments}\n{case.files}\n{detail}"[-6000:])


class Scratch:
    """A folder to work in, a module that must not be imported, and files that must stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "victim.txt").write_text("untouched")
        self.modules = folder / "modules"
        self.modules.mkdir()
        self.mark = folder / "imported"
        (self.modules / f"{EVIL}.py").write_text(
            f"open({str(self.mark)!r}, 'w').close()\nclass Thing: pass\ndef call(*args, **options): pass\n"
        )

    def lay(self, case: Case) -> None:
        """Write the case's files."""
        for name, content in case.files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("utf-8", errors="surrogatepass"))

    def clear(self, case: Case) -> None:
        for name in case.files:
            (self.work / name).unlink(missing_ok=True)

    def harm(self, case: Case) -> str:
        """What was written, changed or imported that should not be, empty for nothing."""
        if self.mark.exists():
            self.mark.unlink()
            return "foreign module imported"
        if [path.name for path in self.outside.iterdir()] != ["victim.txt"]:
            return "file outside"
        if (self.outside / "victim.txt").read_text() != "untouched":
            return "file outside"
        below = {path.relative_to(self.work).as_posix() for path in self.work.rglob("*") if path.is_file()}
        strange = {name for name in below - set(case.files) if not name.startswith("outputs/")}
        return f"file outside: {sorted(strange)[:3]}" if strange else ""


@contextmanager
def alarm(seconds: int = SECONDS) -> Iterator[None]:
    """Raise `Hangs` after so many seconds of this process, or ten times as many on the wall: machines are shared."""

    def ring(number: int, frame: Any) -> None:
        raise Hangs

    before = {number: signal.signal(number, ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def check(arguments: tuple[str, ...]) -> None:
    """What train.py does with a command line before Hydra starts the job."""
    from twinlens.conf.checking.checks import check_command_line
    from twinlens.conf.checking.config_sources import check_what_is_read, compose, parse_typed

    check_what_is_read(REPOSITORY / "conf")
    check_command_line(list(arguments), REPOSITORY / "conf", remembering(compose), parse_typed)


def remembering(compose: Callable[[Path, str, list[str]], Any]) -> Callable[[Path, str, list[str]], Any]:
    """`compose`, which keeps what it made of the project's own files alone: every configuration from elsewhere is
    compared with that, and it is most of the time of a try."""

    def composed(home: Path, primary: str, overrides: list[str]) -> Any:
        if home != REPOSITORY / "conf" or any("searchpath" in override for override in overrides):
            return compose(home, primary, overrides)
        key = (primary, *overrides)
        if key not in COMPOSED:
            COMPOSED[key] = compose(home, primary, overrides)
        return copy.deepcopy(COMPOSED[key])

    return composed


def in_this_process(cases: Iterator[tuple[int, Case]], scratch: Scratch, tell: Callable[[str], None] = print) -> Tally:
    """Try each case through the compose API; the working directory and sys.path are the caller's to set."""
    from twinlens.callbacks.run.run_outcome import sentence
    from twinlens.callbacks.store.failures import writing

    tally = Tally()
    for number, (seed, case) in enumerate(cases, start=1):
        scratch.lay(case)
        became, detail = "served", ""
        try:
            with alarm(), writing(scratch.work, "hydra.run.dir"):  # as a run is checked
                check(case.arguments)
        except UserError as error:
            detail = sentence(error)
            became = "refused" if 20 < len(detail) < 4000 and detail.isprintable() else "no sentence"
        except Hangs:
            became, detail = "hang", traceback.format_exc()
        except (Exception, SystemExit):
            became, detail = "traceback", traceback.format_exc()
        if harm := scratch.harm(case):
            became = harm
        scratch.clear(case)
        tally.add(seed, case, became, detail)
        if number % 250 == 0:
            tell(f"{number}: {dict(tally.counts)}")
    return tally
