"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer


@pytest.fixture(scope="session")
def tokenizer(repository: Path) -> Any:
    """The shipped tokenizer."""
    return AutoTokenizer.from_pretrained(repository / "models" / "tiny")
