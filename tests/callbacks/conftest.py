"""Fixtures of tests that read and write runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from datasets import disable_progress_bars, enable_progress_bars


@pytest.fixture(scope="module")
def quiet_datasets() -> Iterator[None]:
    """No progress bars of the datasets library."""
    disable_progress_bars()
    yield
    enable_progress_bars()
