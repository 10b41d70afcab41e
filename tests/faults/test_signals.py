"""SIGTERM and Ctrl-C while libraries load, in every stage, in calls that do not end, in the background of a shell."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.faults.lock_files import living_lock
from tests.faults.process import forked
from tests.faults.test_interrupts import ARGUMENTS, on_call
from tests.running import CommandLine
from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes import predict_pass
from twinlens.callbacks.processes import parents, stopping
from twinlens.callbacks.run import pipeline
from twinlens.callbacks.run.run_outcome import exit_code, outcome_of
from twinlens.callbacks.store.lock import Lock
from twinlens.models.module import TextClassifier

NAMES = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
PLACES = {
    "the fit": (TextClassifier, "training_step", 2),
    "a pass": (predict_pass, "write_shard", 6),
    "evaluations": (pipeline, "evaluate_stage", 1),
    "the report": (pipeline, "write_report", 1),
}


def test_sigterm_in(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one place after the other, on one store."""
    before = signal.getsignal(signal.SIGTERM)
    for place, (owner, name, number) in PLACES.items():
        with monkeypatch.context() as patched:
            sends = on_call(number, getattr(owner, name), lambda: signal.raise_signal(signal.SIGTERM))
            patched.setattr(owner, name, sends)
            ended = command(*ARGUMENTS, "trainer.max_epochs=2")
        assert ended.code == 143, (place, ended.err)
        assert "Traceback" not in ended.out + ended.err
        (line,) = (line for line in ended.err.splitlines() if line.startswith(("terminated: ", "interrupted: ")))
        assert line.startswith("terminated: ")
        assert "the same command goes on" in line
        assert signal.getsignal(signal.SIGTERM) is before
    assert command(*ARGUMENTS, "trainer.max_epochs=2").code == 0


def loads_libraries(process: int) -> bool:
    return any("libtorch" in file.path for file in psutil.Process(process).memory_maps())


@pytest.mark.parametrize("number", NAMES)
def test_while_libraries_load_also_in_the_background(tmp_path: Path, number: signal.Signals) -> None:
    word, code = NAMES[number]
    script = 'trap "" INT; exec "$0" "$@"'  # as shells do for what ends in &
    command = ["sh", "-c", script, sys.executable, str(REPOSITORY / "train.py")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not loads_libraries(process.pid):
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "twinlens: loading …\n")
    assert err == f"{word}: {stopping.KEPT}\n"


def ended(folder: Path, work: Callable[[], object], number: signal.Signals, after: float) -> tuple[int, float, str]:
    """Code, seconds after the signal and words of a command that does `work`."""
    done = forked(
        lambda: stopping.run_stoppably(lambda: exit_code([outcome_of(work)])),
        folder / "log",
        kill_after=after,
        by=number,
    )
    assert done.after is not None
    return done.code, done.after, (folder / "log").read_text()


@pytest.mark.parametrize("number", NAMES)
def test_a_call_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """The main thread comes back from it to no handler."""
    monkeypatch.setattr(stopping, "SECONDS", 0.5)
    word, code = NAMES[number]
    found = ended(tmp_path, lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1), number, 0.5)
    assert found[0] == code
    assert 0.4 < found[1] < 8.0
    assert found[2] == f"{word}: {stopping.KEPT}\n"


@pytest.mark.parametrize("number", NAMES)
def test_while_waiting_for_a_lock(tmp_path: Path, number: signal.Signals) -> None:
    lock = living_lock(tmp_path / "entry.lock")
    code, seconds, told = ended(tmp_path, lambda: Lock(lock, until=lambda: False).__enter__(), number, 0.5)
    assert code == NAMES[number][1]
    assert seconds < 8.0
    assert told.splitlines()[-1] == f"{NAMES[number][0]}: {stopping.KEPT}"
    assert lock.is_file()


def test_a_second_signal_does_not_disturb_the_end_of_the_first(tmp_path: Path) -> None:
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            print("tidied", flush=True)

    done = forked(lambda: stopping.run_stoppably(lambda: exit_code([outcome_of(work)])), tmp_path / "log")
    assert done.code == 143
    assert (tmp_path / "log").read_text() == f"tidied\nterminated: {stopping.KEPT}\n"


def test_an_interruption_that_python_drops_is_made_again(tmp_path: Path) -> None:
    """While an object is being removed, as the last reference to it goes."""

    class Removed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        removed = Removed()
        del removed
        time.sleep(20)

    done = forked(lambda: stopping.run_stoppably(lambda: exit_code([outcome_of(work)])), tmp_path / "log")
    assert (done.code, (tmp_path / "log").read_text()) == (143, f"terminated: {stopping.KEPT}\n")
    assert done.seconds < stopping.SECONDS


@pytest.mark.parametrize("of_a_job", [True, False])
@pytest.mark.parametrize(
    "error", [ValueError("'' is no evaluation"), UserError("no such evaluation")], ids=["defect", "refusal"]
)
def test_what_a_library_makes_of_the_interruption_is_no_failure(
    tmp_path: Path, error: Exception, of_a_job: bool
) -> None:
    """Such as OmegaConf, which tells of whatever went wrong while it built a value."""

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as interruption:
            raise error from interruption

    def command() -> int:
        outcomes: list[Any] = []

        def run_job() -> None:
            outcomes.append(outcome_of(work, tmp_path / "run"))

        return exit_code([*outcomes, outcome_of(run_job if of_a_job else work)])

    done = forked(lambda: stopping.run_stoppably(command), tmp_path / "log")
    assert (done.code, (tmp_path / "log").read_text()) == (143, f"terminated: {stopping.KEPT}\n")


def test_a_forked_process_ends_by_itself_alone(tmp_path: Path) -> None:
    """Such as one that loads data, which its parent ends with SIGTERM."""

    def work() -> None:
        child = os.fork()
        if child == 0:
            time.sleep(60)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.3)

    done = forked(lambda: stopping.run_stoppably(lambda: exit_code([outcome_of(work)])), tmp_path / "log")
    assert (done.code, (tmp_path / "log").read_text()) == (0, "")


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time; from twinlens.callbacks.processes import loading, parents;"
        "parents.start_others();"
        'child = \'import time; from twinlens.callbacks.processes import loading; loading.begin("__main__");'
        " print(1, flush=True); time.sleep(60)';"
        "process = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE);"
        "process.stdout.readline(); print(process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(timeout=parents.GRACE_SECONDS + 10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell of the end of a parent")
def test_a_parent_that_is_still_giving_back_its_memory_has_ended(tmp_path: Path) -> None:
    """Its main thread, whose end the system tells the child, ends before its last one."""
    child = (
        "import os, time; os.environ['LOCAL_RANK'] = '1';"
        "from twinlens.callbacks.processes import loading; loading.begin('__main__');"
        "print(flush=True); time.sleep(60)"
    )
    code = (
        "import ctypes, os, subprocess, sys, threading, time; from twinlens.callbacks.processes import parents;"
        "parents.start_others();"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
        "child.stdout.readline();"
        "threading.Thread(target=lambda: (child.wait(), os._exit(0))).start();"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"  # ends this thread alone
    )
    with (tmp_path / "err").open("w") as err:
        parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=err)
    assert parent.wait(timeout=30) == 0
    told = (tmp_path / "err").read_text()
    assert told == f"{parents.of_ended(f'the first process of the run ({parent.pid}) has ended')}\n"


def test_a_process_that_takes_long_to_end_says_once_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its main thread has said it, and the thread that watches ends it."""
    monkeypatch.setattr(parents, "GRACE_SECONDS", 0.0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(parents.VARIABLE, str(2**22 + 1))  # no process has this number: it has ended

    def work() -> int:
        stopping.say(signal.SIGTERM)
        parents._watch(2**22 + 1, "the first process of the run")
        return 0

    done = forked(work, tmp_path / "log")
    line = parents.of_ended(f"the first process of the run ({2**22 + 1}) has ended")
    assert (done.code, (tmp_path / "log").read_text()) == (2, f"{line}\n")


def test_a_variable_that_came_down_through_a_shell_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    monkeypatch.setattr(parents, "watch_parent", lambda parent, name=None: begun.append(parent))
    monkeypatch.setenv(parents.VARIABLE, str(2**22 + 1))
    parents.end_with_parent()
    assert begun == []
    monkeypatch.setenv("LOCAL_RANK", "1")  # such a process is always started by the first one, which has ended
    monkeypatch.setattr(parents.sys, "platform", "darwin")
    parents.end_with_parent()
    assert begun == [2**22 + 1]
