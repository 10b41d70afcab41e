"""Locks across containers and clocks: nobody alive is robbed, nobody dead is waited for without end."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.lock_files import foreign_lock
from twinlens.attribution.errors import UserError
from twinlens.callbacks.run import folder_lock
from twinlens.callbacks.store import lease
from twinlens.callbacks.store.admin import prune
from twinlens.callbacks.store.lock import Lock
from twinlens.callbacks.store.store import Store

HOUR = 3600.0
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_PRIVATE_BELOW = 0x44000
"""Mounts made here are seen here alone."""
NOT_ALLOWED = 77


def in_container(work: Callable[[], None]) -> int:
    """Do `work` as process 1 of a PID namespace with a /proc of its own, host name as here; the process to wait for."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.fork()
    if outside:
        return outside
    code = NOT_ALLOWED
    try:
        if libc.unshare(CLONE_NEWPID | CLONE_NEWNS) == 0:
            inside = os.fork()
            if inside == 0:
                code = 1
                libc.mount(b"none", b"/", None, MS_PRIVATE_BELOW, None)
                assert libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0
                assert os.getpid() == 1
                work()
                code = 0
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def test_of_two_containers_with_one_host_name_one_builds_and_the_other_reads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def get(name: str) -> None:
        def build(folder: Path) -> None:
            (tmp_path / "building").touch()
            while not (tmp_path / "go on").exists():
                time.sleep(0.05)
            (folder / "value").write_text(name)

        entry = Store(tmp_path / "store").get("fit", {"seed": 0}, build)
        print("read" if entry.reused else "built", (entry.path / "value").read_text(), flush=True)

    first = in_container(lambda: get("one"))
    while not (tmp_path / "building").exists():
        if os.waitpid(first, os.WNOHANG) != (0, 0):
            pytest.skip("needs the right to make a PID namespace")
        time.sleep(0.02)
    second = in_container(lambda: get("two"))
    told = ""
    while "waiting for another run" not in told:
        told += capfd.readouterr().out
        time.sleep(0.02)
    time.sleep(4 * 0.5)  # the second one has asked several times by then
    (tmp_path / "go on").touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in (first, second)] == [0, 0]
    told += capfd.readouterr().out
    assert [line for line in told.splitlines() if line.startswith(("built", "read"))] == ["built one", "read one"]
    assert "(process 1 on " in told


def hold(lock: Path, ready: Path) -> None:
    """Hold a lock for as long as this process lives."""
    with Lock(lock, until=lambda: False):
        ready.touch()
        time.sleep(600)


@pytest.mark.parametrize("step", [HOUR, pytest.param(-HOUR, marks=pytest.mark.long)])
def test_a_clock_that_is_set_while_a_lock_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """The clock of the machine is not touched: this process sees another time, and so do the times of the lock."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.2)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.2)
    # as of another machine, of which only signs of life tell whether it lives
    monkeypatch.setattr(lease, "owner_is_stale", lambda *owner: False)
    monkeypatch.setattr("filelock._lease.owner_is_stale", lambda *owner: False)
    path, ready = tmp_path / "entry.lock", tmp_path / "ready"
    owner = multiprocessing.get_context("fork").Process(target=hold, args=(path, ready))
    owner.start()
    while not ready.exists():
        time.sleep(0.01)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    lock, end = Lock(path, until=lambda: False), time.monotonic() + 4.0
    while time.monotonic() < end:
        assert not lock.take()
        os.utime(path, (real() + step, real() + step))
        time.sleep(0.1)
    os.kill(owner.pid or 0, signal.SIGKILL)
    owner.join()
    with lock as owned:  # and once its owner is gone, it is taken over
        assert owned
    assert time.monotonic() - end < 20.0


def test_an_owner_that_stood_still_does_not_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)

    def build(folder: Path) -> None:
        (folder / "value").write_text("late")
        lock = folder.with_suffix(".lock")
        lock.unlink()
        foreign_lock(lock)  # what another one leaves that has taken over
        time.sleep(1.0)

    with pytest.raises(UserError, match=r"taken over by another run.*same command again"):
        Store(tmp_path).get("fit", {}, build)
    assert [path.suffix for path in sorted((tmp_path / "fit").iterdir())] == [".lock", ".partial"]


def test_a_run_folder_of_a_dead_machine_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.8)
    foreign_lock(tmp_path / folder_lock.NAME)
    folder_lock.claim(tmp_path)
    folder_lock.release(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pruning_waits_for_a_sign_of_life_before_it_clears_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.8)
    partial = tmp_path / "fit" / ("a" * 24 + ".partial")
    partial.mkdir(parents=True)
    foreign_lock(partial.with_suffix(".lock"))
    prune(tmp_path, ["partial"], tmp_path, True)
    assert not partial.exists()
    assert "removed fit" in capsys.readouterr().out


def test_disks_that_cannot_exchange_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There filelock leaves the leases of the dead alone."""
    monkeypatch.setattr("filelock._soft.exchange_supported", lambda: False)
    monkeypatch.setattr("filelock._util.exchange_supported", lambda: False)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.8)
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.2)
    foreign_lock(tmp_path / "entry.lock")
    with Lock(tmp_path / "entry.lock", until=lambda: False) as owned:
        assert owned
