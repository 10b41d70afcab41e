"""A report made again from a run's files, and what is no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import island
from twinlens.callbacks.report.rebuild import main

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def test_a_report_is_made_again_also_without_what_came_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = FakeRun(n_train=20, n_test=4, list_length=5, summary=False, plants=False, instance=("gradsim",)).write(
        tmp_path / "run"
    )
    (run / "report.html").write_text("an old one")
    assert main([str(run)]) == 0
    assert "report: " in capsys.readouterr().out
    assert len(island((run / "report.html").read_text(encoding="utf-8"))["tests"]["index"]) == 4


@pytest.mark.parametrize("arguments", [[], ["nowhere"]])
def test_what_is_no_run_is_refused_with_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "run" in capsys.readouterr().err
