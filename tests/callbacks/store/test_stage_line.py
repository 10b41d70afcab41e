"""Line of a stage: its time where it was computed, its day where it was read."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.callbacks.store.test_admin import builder
from twinlens.callbacks.store.stage_line import stage_line
from twinlens.callbacks.store.store import Store


def test_a_stage_says_its_time_or_its_day() -> None:
    made = time.mktime((2026, 11, 29, 14, 7, 0, 0, 0, -1))
    assert stage_line("fit", 21.4, None) == "fit: computed in 21 s"
    assert stage_line("fit", 0.0, None) == "fit: computed in <1 s"
    assert stage_line("fit", None, made, made + 90) == "fit: read from the store, made 29 Nov 14:07"
    assert stage_line("fit", None, made, made + 90 * 86_400) == "fit: read from the store, made 29 Nov 2026"
    assert stage_line("fit", None, 0.0) == stage_line("fit", None, None) == "fit: read from the store"


def test_the_store_says_a_line_for_a_stage_with_a_title(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path).get("fit", {"seed": 0}, builder(10), {}, "fit")
    Store(tmp_path).get("fit", {"seed": 0}, builder(10), {}, "fit")
    Store(tmp_path).get("fit", {"seed": 0}, builder(10), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "fit: computed in <1 s"
    assert re.fullmatch(r"fit: read from the store, made \d+ \w{3} \d\d:\d\d", second)
