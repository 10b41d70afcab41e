"""The store: every heavy stage under the fingerprint of all it depends on, written once, read by every run.

An entry is a folder `<store>/<stage>/<fingerprint>`. It is built as `<fingerprint>.partial`, beside a lock file that
names its owner, and renamed when complete: a half-written result is never read as one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.launch import begin_launch
from twinlens.callbacks.processes.ranks import is_first_process, meet
from twinlens.callbacks.store.failures import KEPT, telling_what_is_kept, writing
from twinlens.callbacks.store.files import remove, remove_partial_files
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.lease import LEASE_SECONDS
from twinlens.callbacks.store.leftovers import NOTE, begin, is_begun
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.manifest import damage_of, note_use, read_manifest, write_manifest, written_by
from twinlens.callbacks.store.stage_line import stage_line
from twinlens.callbacks.store.took import measured

Finish = Callable[[], object]
"""What the first of several processes does alone when all have computed."""
Build = Callable[[Path], Finish | None]
ASK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class Entry:
    """A finished stage.

    Attributes:
        stage: fit, anatomy, examples, projections, gradients, attribute, retrain or evaluate.
        fingerprint: sha256 of everything the stage depends on.
        path: its folder.
        reused: whether an earlier run had computed it.
    """

    stage: str
    fingerprint: str
    path: Path
    reused: bool


class Store:
    """Finished stages in a folder.

    Args:
        root: the folder (`paths.store`).
        overwrite: recompute what this run asks for even where it is there.
    """

    def __init__(self, root: Path, overwrite: bool = False) -> None:
        self.root = root
        self.overwrite = overwrite
        self.launch = begin_launch(is_first_process())
        self._written: set[Path] = set()

    def get(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        build: Build,
        labels: Mapping[str, Any] | None = None,
        title: str = "",
    ) -> Entry:
        """The finished entry for `inputs`, built with `build(folder)` where it is not there yet or was damaged.

        `build` gets a folder that outlives a killed process, so that it can go on from what it finds there. What it
        returns, if anything, is what the first process alone writes once all have computed. `labels`
        are what a person knows the entry by; they are shown by `store.list=true` and do not identify it. With a
        `title`, one line says whether the stage was computed or read, and how long it took or when it was made.

        Of several processes the first one decides whether to read, to wait or to build; the others follow it.

        Raises:
            UserError: the store cannot be written, or another run took over while this one stood still.
        """
        inputs = as_in_json(inputs)
        fingerprint = fingerprint_of(inputs)
        final = self.root / stage / fingerprint
        if not is_first_process():
            return self._follow(stage, fingerprint, final, build)
        seconds = self._computed(stage, inputs, build, labels)
        if title:
            manifest = read_manifest(final) if seconds is None else None
            print(stage_line(title, seconds, manifest.created if manifest else None), flush=True)
        return Entry(stage, fingerprint, final, reused=seconds is None)

    def _computed(
        self, stage: str, inputs: Mapping[str, Any], build: Build, labels: Mapping[str, Any] | None
    ) -> float | None:
        """Seconds that computing the entry took, None where it is read; arguments as of `get`."""
        fingerprint = fingerprint_of(inputs)
        final = self.root / stage / fingerprint
        if self._usable(final):
            self._tidy(final)
            note_use(final)
            if final.is_dir():  # else it has been cleared away since
                return None
        _tell_damage(final)
        lock = self._lock(final)
        with lock as owner:
            if not owner or self._usable(final):
                note_use(final)
                return None
            partial = final.with_suffix(".partial")
            with writing(partial, "paths.store"), telling_what_is_kept(partial):
                whole = not partial.exists()  # of one that goes on, only the rest would be measured
                begin(partial, fingerprint, self.launch.token)
                with measured() as took:
                    finish = build(partial)
                    meet()  # others may still read what the folder holds, which is renamed below
                    if callable(finish):
                        finish()
                if lock.lost:
                    raise UserError(_taken_over(final))
                remove_partial_files(partial, ".*", but=NOTE)  # libraries leave hidden files of names of their own
                told = labels or {}, self.launch.token, took if whole else None
                write_manifest(partial, stage, fingerprint, inputs, *told)
                replaced = final.with_suffix(".replaced")
                remove(replaced)
                if final.exists() or final.is_symlink():
                    final.rename(replaced)  # removed in one step: an entry is never seen half-removed
                partial.rename(final)
                (final / NOTE).unlink()
                remove(replaced)
        self._written.add(final)
        return took.seconds

    def peek(self, stage: str, inputs: Mapping[str, Any]) -> Path | None:
        """Folder of the finished entry for `inputs`, None where it would be computed; waits and writes nothing."""
        final = self.root / stage / fingerprint_of(as_in_json(inputs))
        return final if self._usable(final) else None

    def is_held(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether another run is at the entry for `inputs`, which is not finished; waits and writes nothing."""
        final = self.root / stage / fingerprint_of(as_in_json(inputs))
        return not self._usable(final) and self._lock(final).holder() is not None

    def _follow(self, stage: str, fingerprint: str, final: Path, build: Build) -> Entry:
        """What the first process does: build with it where it holds the lock, read where it has read or finished."""
        lock, joined = self._lock(final), False
        while not self._finished(final):
            ours = (lock.holder() or {}).get("launch") == self.launch.token
            if not joined and ours and is_begun(final.with_suffix(".partial"), fingerprint, self.launch.token):
                build(final.with_suffix(".partial"))
                meet()
                joined = True
            else:
                time.sleep(ASK_AGAIN_SECONDS)
        return Entry(stage, fingerprint, final, reused=not joined)

    def _lock(self, final: Path) -> Lock:
        return Lock(final.with_suffix(".lock"), until=lambda: self._usable(final), launch=self.launch.token)

    def _tidy(self, final: Path) -> None:
        """Remove what a process left beside its entry when it was killed after that was complete."""
        lock, replaced = self._lock(final), final.with_suffix(".replaced")
        if (lock.path.is_file() or replaced.exists() or replaced.is_symlink()) and lock.holder() is None:
            with suppress(OSError, UserError):  # the store may be one that can only be read
                if lock.take():
                    try:
                        remove(replaced)
                    finally:
                        lock.__exit__()

    def _usable(self, final: Path) -> bool:
        """Whether this run reads an entry as it stands."""
        return (not self.overwrite or final in self._written) and damage_of(final) == ""

    def _finished(self, final: Path) -> bool:
        """The same in a process that does not write itself."""
        if self.overwrite and not written_by(final, self.launch):
            return False
        return damage_of(final) == ""


def as_in_json(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as a manifest will say them, so that both have one fingerprint."""
    return json.loads(json.dumps(inputs, sort_keys=True, default=str))


def _taken_over(final: Path) -> str:
    return (
        f"{final} was taken over by another run, as this process had stood still for {LEASE_SECONDS:.0f} s or more; "
        f"expected it to go on without such a break: start the same command again, which reads what is finished; {KEPT}"
    )


def _tell_damage(final: Path) -> None:
    if damage := damage_of(final):
        print(f"the stored result {final} is damaged ({damage}): it is computed again", flush=True)
