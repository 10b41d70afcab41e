"""Runs the command line inside the test process: same code as `python train.py`, without starting Python again."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

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
