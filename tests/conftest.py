"""Fixtures shared by the whole suite."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests import quick_hydra
from tests.running import CommandLine

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# code of checkpoints is copied there before it runs
os.environ.setdefault("HF_MODULES_CACHE", str(Path(tempfile.gettempdir()) / "twinlens-tests-modules"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# a shell tells commands in its background to ignore Ctrl-C, which tests send to themselves
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("twinlens", deadline=None)  # machines are shared: a slow example is no failure
settings.load_profile("twinlens")

REPOSITORY = Path(__file__).resolve().parents[1]

quick_hydra.do_once(REPOSITORY / "conf")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds train.py."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data (real datasets beside the checkout), which is absent")
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """`python train.py …` in an empty folder."""
    return CommandLine(tmp_path, monkeypatch, capfd)
