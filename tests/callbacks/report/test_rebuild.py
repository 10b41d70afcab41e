"""A report made again from a run's files, and what is no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import island
from tests.running import CommandLine

pytestmark = pytest.mark.usefixtures("quiet_datasets")


def test_a_report_is_made_again_also_without_what_came_later(command: CommandLine) -> None:
    run = FakeRun(n_train=20, n_test=4, list_length=5, summary=False, plants=False, instance=("gradsim",)).write(
        command.folder / "run"
    )
    (run / "report.html").write_text("an old one")
    done = command("report.of=run", base=())
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {Path('run') / 'report.html'}"
    assert len(island((run / "report.html").read_text(encoding="utf-8"))["tests"]["index"]) == 4
    assert not list((command.folder / "outputs" / "runs").glob("*"))  # no run came about


def test_what_is_no_command_is_refused_with_a_sentence(command: CommandLine) -> None:
    refused = command("report=run", base=())
    assert refused.code == 2
    assert "say report.of=RUN" in refused.err


def test_a_file_does_not_ask_for_it(command: CommandLine) -> None:
    (command.folder / "mine").mkdir()
    (command.folder / "mine" / "mine.yaml").write_text("defaults: [train, _self_]\nreport: {of: run}\n")
    refused = command("--config-dir", "mine", "--config-name", "mine", base=())
    assert refused.code == 2
    assert "a configuration file asks for this" in refused.err
