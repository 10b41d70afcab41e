"""Model and tokenizer that are shipped, as a caller has them in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(scope="session")
def facts(repository: Path) -> tuple[Any, Any]:
    folder = repository / "models" / "facts"
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
