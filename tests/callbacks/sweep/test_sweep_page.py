"""sweep.html: the verdict with its errors over seeds, every job's numbers as its results say, and what is missing."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import MARKUP, Page, island
from tests.running import CommandLine
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.sweep.settings import Setting, brief_keys
from twinlens.callbacks.sweep.sweep_files import read_sweep, write_sweep
from twinlens.callbacks.sweep.sweep_page import write_sweep_page

pytestmark = pytest.mark.usefixtures("quiet_datasets")
SMALL: dict[str, Any] = {"n_train": 20, "n_test": 4, "list_length": 6, "instance": ("gradsim",)}
FAULT = "damping=0: expected more than 0: say " + MARKUP


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings with two seeds each, one refused job, one whose file is damaged and one without results."""
    return written_sweep(tmp_path_factory.mktemp("sweeps") / "sweep")


def written_sweep(folder: Path) -> Path:
    FakeRun(**SMALL).write(folder / "0")
    outcomes = []
    for number in range(7):
        run = folder / str(number)
        if number:
            shutil.copytree(folder / "0", run)
        if number < 4:
            rows = read_results(folder / "0" / "results.csv")
            factor = 1 + 0.11 * number
            scaled = [row | {"seed": number % 2, "value": factor * float(str(row["value"]))} for row in rows]
            write_results(run / "results.csv", scaled)
        said = f"seed={number % 2} method.influence.damping={'0.1' if number < 2 else '1'}"
        outcomes.append({"job": number, "status": "done", "overrides": said, "headline": "", "folder": str(number)})
    for number in range(4):
        (folder / str(number) / "report.html").write_text("a report")
    outcomes[4] |= {"status": "refused", "message": FAULT, "overrides": "seed=0 method.influence.damping=0"}
    (folder / "5" / "results.csv").write_text("damaged")
    (folder / "6" / "results.csv").unlink()
    write_sweep(folder / "sweep.csv", outcomes)
    read = read_sweep(folder)
    write_sweep_page(folder, read.outcomes, read.jobs, read.faults, read.summary, [])
    return folder


def test_the_verdict_has_means_with_their_errors_over_seeds(sweep: Path) -> None:
    page = Page((sweep / "sweep.html").read_text(encoding="utf-8"))
    kept = [33 * (1 + 0.11 * number) for number in (0, 1)]  # comprehensiveness of ig at 100
    error = np.std(kept, ddof=1) / math.sqrt(2)
    assert f"damping=0.1: ig changes {100 - np.mean(kept):.1f} ± {error:.1f} % of predictions" in page.words
    assert "damping=1: ig changes" in page.words
    assert "test accuracy 0.807 ± 0.042 (damping=0.1), 0.975 ± 0.042 (damping=1)" in page.words
    assert "Behind ± stands the standard error over 2 seeds." in page.words
    assert "7 jobs: 6 done, 1 refused." in page.words
    assert "That makes 2 settings besides the seed." in page.words


def test_what_is_missing_is_said_as_text(sweep: Path) -> None:
    html = (sweep / "sweep.html").read_text(encoding="utf-8")
    page = Page(html)
    assert f"Job 4 is missing, refused: {FAULT}." in page.words
    assert "Job 5 is missing, its files cannot be read: The header of" in page.words
    assert "Job 6 is missing: its folder 6 has no results.csv." in page.words
    assert page.open == []
    assert len(page.content["script"]) == 1
    assert not page.attributes("img", "src")
    assert "http" not in "".join(page.attributes("a", "href"))
    jobs = island(html)["jobs"]
    assert [job["status"] for job in jobs] == ["done"] * 4 + ["refused", "unread", "unread"]
    assert [job["report"] for job in jobs] == [f"{n}/report.html" for n in range(4)] + [""] * 3


def test_jobs_by_numbers_are_what_their_results_say(sweep: Path) -> None:
    data = island((sweep / "sweep.html").read_text(encoding="utf-8"))
    numbers, places = data["numbers"], [0, 1, 2, 3]
    value = np.reshape(numbers["value"], (-1, 4))
    mean, error, seeds = (np.reshape(numbers[f"mean_{name}"], (-1, 2)) for name in ("value", "stderr", "seeds"))
    rows = [read_results(sweep / str(number) / "results.csv") for number in places]
    assert len(value) == len(rows[0]) == numbers["size"]
    for place, of_jobs in enumerate(zip(*rows, strict=True)):
        found = [float(str(row["value"])) for row in of_jobs]
        assert value[place] == pytest.approx(found)
        about = [numbers["about"][name][place] for name in ("evaluation", "method", "metric")]
        assert about == [of_jobs[0][name] or "" for name in ("evaluation", "method", "metric")]
        for setting, pair in enumerate((found[:2], found[2:])):
            assert mean[place, setting] == pytest.approx(np.mean(pair))
            assert error[place, setting] == pytest.approx(np.std(pair, ddof=1) / math.sqrt(2))
    assert (seeds == 2).all()
    assert [job["setting"] for job in data["jobs"]] == [0, 0, 1, 1, -1, -1, -1]
    assert data["swept"] == {"seed": "seed", "method.influence.damping": "damping"}


@pytest.mark.long
def test_a_sweep_is_made_anew_from_its_files(command: CommandLine, sweep: Path) -> None:
    copy = shutil.copytree(sweep, command.folder / "sweep")
    (copy / "sweep.html").unlink()
    done = command("report.of=sweep", base=())
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"report: {Path('sweep') / 'sweep.html'}"
    assert (copy / "sweep.html").stat().st_size > 1_000_000
    with (copy / "summary.csv").open() as opened:
        assert {row["seeds"] for row in csv.DictReader(opened)} == {"2"}
    assert (copy / "comparison.csv").is_file()


def test_a_sweep_of_failures_has_a_page_that_says_so(tmp_path: Path) -> None:
    row = {"job": 0, "status": "refused", "overrides": "seed=0", "folder": "0", "message": "no"}
    page = Page(write_sweep_page(tmp_path, [row], [], {}, [], []).read_text(encoding="utf-8"))
    assert "Job 0 is missing, refused: no." in page.words
    assert "No job of this sweep has results." in page.words
    assert "#numbers" not in page.attributes("a", "href")


def test_settings_are_called_by_what_sets_them_apart() -> None:
    one, other = Setting("tiny", "demo", "method.cg.damping=1"), Setting("gpt2", "demo", "method.cg.damping=2")
    assert one.told([one, other]) == "tiny, damping=1"
    assert one.told([one]) == "tiny × demo"
    assert Setting("tiny", "demo", "").told([one, Setting("tiny", "demo", "")]) == "as shipped"
    assert brief_keys(["a.b.k", "a.c.k", "a.c.x"]) == {"a.b.k": "a.b.k", "a.c.k": "a.c.k", "a.c.x": "x"}
