"""Limits that a shell sets: of addresses while libraries load and in a run, and of the size of files."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.faults.test_storage import ARGUMENTS, sentence
from tests.running import CommandLine
from twinlens.models.module import TextClassifier


@contextmanager
def limited(what: int, amount: int) -> Iterator[None]:
    """A soft limit of this process."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (amount, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def test_a_limit_of_file_sizes(command: CommandLine) -> None:
    for kilobytes in (2, 60, 500):
        with limited(resource.RLIMIT_FSIZE, kilobytes * 1000):
            told = sentence(command(*ARGUMENTS))
        assert "File too large" in told
        assert "ulimit -f unlimited" in told
    assert command(*ARGUMENTS).code == 0


def test_a_limit_of_addresses_while_libraries_load(tmp_path: Path) -> None:
    script = 'ulimit -v 500000; exec "$0" "$@"'
    command = ["sh", "-c", script, sys.executable, str(REPOSITORY / "train.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("refused: the libraries do not find the memory to load")
    assert "ulimit -v unlimited" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_of_addresses_in_a_run(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached while the model is built, which no pass and no fit sees to."""
    build = TextClassifier.__init__

    def hungry(self: TextClassifier, *arguments: object, **options: object) -> None:
        with limited(resource.RLIMIT_AS, psutil.Process().memory_info().vms + 2**27):
            bytearray(2**30)
        build(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(TextClassifier, "__init__", hungry)
    told = sentence(command(*ARGUMENTS))
    assert "found no more memory" in told
    assert "lower memory_budget" in told
    assert "ulimit -v" in told
