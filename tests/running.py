"""Runs the command line inside the test process: same code as `python train.py`, without starting Python again."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

SMALL_DEMO = (
    "debug=fdr",
    "data.n_train=60",
    "data.n_validation=10",
    "data.n_test=20",
    "data.n_twins=2",
    "data.limit.train=48",
    "data.limit.test=12",
    "trainer.accelerator=cpu",
)
"""Every stage in a few seconds."""
SMALLER_MODEL = tuple(
    f"model.architecture.{key}"
    for key in ("hidden_size=32", "intermediate_size=64", "num_hidden_layers=2", "num_attention_heads=2")
)
"""With model=tiny: for methods whose work grows with the parameters."""


def installed(package: str) -> bool:
    """Whether a package of an extra is there."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run's folder, the last line on stdout."""
        return Path(self.out.strip().splitlines()[-1])


def stages_of(out: str) -> dict[str, str]:
    """Stage → `computed` or `read from the store`, as a run says in its lines."""
    lines = [line.partition(": ") for line in out.splitlines()]
    told = {name: rest.partition(", ")[0].partition(" in ")[0] for name, _, rest in lines}
    return {name: rest for name, rest in told.items() if rest in ("computed", "read from the store")}


def run_here(folder: Path, *arguments: str) -> Finished:
    """`python train.py …` in `folder`, in this process; for fixtures, whose output no test captures."""
    # imported late: conftest.py sets the environment that the libraries read when they are imported
    from hydra.core.global_hydra import GlobalHydra

    from twinlens import train

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.chdir(folder)
        patched.setattr(sys, "argv", [train.__file__, *arguments])
        train.OUTCOMES.clear()
        GlobalHydra.instance().clear()
        code = train.main()
    return Finished(code, out.getvalue(), err.getvalue())


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder that one process of the suite fills and all of them read; tests that write into it take a copy."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared" / name
    done = folder.with_name(name + ".done")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name(name + ".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
            folder.mkdir()
            build(folder)
            done.touch()
    return folder


class CommandLine:
    """Runs commands in a working directory of their own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def __call__(self, *arguments: str, base: Sequence[str] = SMALL_DEMO) -> Finished:
        # imported late: conftest.py sets the environment that the libraries read when they are imported
        from hydra.core.global_hydra import GlobalHydra

        from twinlens import train

        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setattr(sys, "argv", [train.__file__, *arguments, *base])
        train.OUTCOMES.clear()
        GlobalHydra.instance().clear()
        self.capfd.readouterr()
        code = train.main()
        captured = self.capfd.readouterr()
        return Finished(code, captured.out, captured.err)
