"""Fixtures shared by the whole suite."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import quick_hydra
from tests.running import SMALL_DEMO, CommandLine, once, run_here

if TYPE_CHECKING:
    from tests.browser import Browser

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


def pytest_collection_finish() -> None:
    """Leave all that was imported out of later searches for garbage: a run makes one, over a million objects.

    Rates of the machine are measured for a moment only: no test reads from the clock how good a plan is.
    """
    from twinlens.callbacks.plan import device_rate

    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # composing configurations makes very many small objects and little garbage
    device_rate.MEASURED_SECONDS = 0.01


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small demo, for tests that read its files or use its classifier as it is."""

    def build(folder: Path) -> None:
        run = run_here(folder, "method=gradsim", "evaluation=accuracy", *SMALL_DEMO, "hydra.run.dir=run")
        assert run.code == 0, run.err

    return once(tmp_path_factory, "trained", build) / "run"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """`python train.py …` in an empty folder."""
    return CommandLine(tmp_path, monkeypatch, capfd)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    from tests.browser import browser

    with browser() as opened:
        yield opened


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Browser]:
    """The browser; what a page complained of or asked for fails the test."""
    chromium.faults.clear()
    yield chromium
    assert chromium.faults == []
