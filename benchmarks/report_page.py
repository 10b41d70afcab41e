"""Opening of a large report and a typed letter in it, in Debian's Chromium: 500 examples, 2768 train rows, 6 methods.

Aims: 2 s and 100 ms, on a quiet machine. The times are the wall clock's: the browser is a process of its own.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.large_run import write_large_run
from benchmarks.measured import Outcome, is_installed
from benchmarks.pairs import progress
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.results.run_files import RunFiles

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LETTERS = "the of and"
_TYPED = """async (letter) => {
    const field = document.querySelector('#examples input');
    const start = performance.now();
    field.value += letter;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise(requestAnimationFrame);
    await new Promise((done) => setTimeout(done));
    return performance.now() - start;
}"""
"""Milliseconds from a letter to the page painted with what it finds."""


def benchmark_report(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Seconds to write, megabytes, seconds to open and milliseconds per typed letter."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None or not is_installed("playwright"):
        outcome.skip("report", "skipped: needs chromium (apt-get install chromium) and playwright (extra dev)")
        return
    from playwright.sync_api import sync_playwright

    progress("report: 500 examples by 2768 train rows by 6 methods")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        run = write_large_run(Path(name) / "run")
        path = run / "report.html"
        start = time.monotonic()
        path.write_text(render_report(RunFiles(run)), encoding="utf-8")
        outcome.add_value("report_written_seconds", time.monotonic() - start)
        outcome.add_value("report_megabytes", path.stat().st_size / 1e6)
        driver = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened, typed, taken = [], [], []
        for _ in range(arguments.pairs):
            page = driver.new_page()
            start = time.monotonic()
            page.goto(f"{path.as_uri()}#examples")
            page.wait_for_selector("html[data-ready]")
            opened.append(time.monotonic() - start)
            processor = _processor(page)
            for letter in LETTERS:
                before = processor()
                typed.append(page.evaluate(_TYPED, letter))
                taken.append(1000 * (processor() - before))
            page.close()
        driver.close()
        outcome.add_value("report_opened_seconds", statistics.median(opened))
        outcome.add_value("report_letter_milliseconds", statistics.median(typed))
        outcome.add_value("report_slowest_letter_milliseconds", max(typed))
        outcome.add_value("report_slowest_letter_processor_milliseconds", max(taken))


def _processor(page: Any) -> Callable[[], float]:
    """Seconds of processor time that the page's own thread has taken so far, whatever else the machine does."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def taken() -> float:
        measured = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in measured if one["name"] == "TaskDuration"))

    return taken
