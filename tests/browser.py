"""Debian's Chromium, driven by Playwright, for tests of pages; a page that asks for anything or complains fails."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report_page import BROWSERS

AT_MOST = 60.0
"""Seconds that a test waits for a page, on however slow a machine."""


class Browser:
    """Opens pages from files and collects what they should not do."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.faults: list[str] = []

    def open(self, path: Path, state: str = "", ready: str = "html[data-ready]", **options: Any) -> Any:
        """A page at an address within a report, once its data are unpacked.

        Args:
            ready: what is there then.
            options: of Playwright's `new_page`, such as `color_scheme="dark"`.
        """
        page = self._driver.new_page(**options)
        page.on("console", lambda said: self.faults.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda asked: self._asked(asked.url))
        page.goto(f"{path.as_uri()}#{state}")
        page.wait_for_selector(ready)
        return page

    @staticmethod
    def move(page: Any, state: str) -> None:
        """Show another address within the report: the browser changes it first, the page follows an event later."""
        page.goto(f"{page.url.partition('#')[0]}#{state}")
        until(page, "document.documentElement.dataset.address === location.hash")

    def _asked(self, address: str) -> None:
        if not address.startswith(("file:", "data:", "blob:")):
            self.faults.append(f"asked for {address}")


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for some tests; they are skipped, with the reason, where none is at hand."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)} (apt-get install chromium)")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright (pip install -e '.[dev]')")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        driver = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield Browser(driver)
        driver.close()


def downloaded(page: Any, button: Any) -> str:
    """What a button saves, as text."""
    with page.expect_download() as waited:
        button.click()
    return Path(waited.value.path()).read_text(encoding="utf-8")


def until(page: Any, expression: str, argument: Any = None) -> None:
    """Wait for what a page shows. Playwright's own way evaluates text within the page, which its policy forbids.

    Args:
        expression: JavaScript that becomes true, of `argument` where it is a function.
    """
    end = time.monotonic() + AT_MOST
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"never true: {expression}, {argument}"
        page.wait_for_timeout(10)


def shows(page: Any, heading: str) -> None:
    """Wait until a page shows one thing: a click or Back changes the address, and the page follows later."""
    until(page, "(heading) => document.querySelector('#one h2')?.textContent === heading", heading)


def no_barrier(page: Any, view: str) -> None:
    """Fail where axe-core finds a barrier in a view of a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    Browser.move(page, view)
    found = axe.run(page).response
    assert len(found["passes"]) > 15
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == [], view
