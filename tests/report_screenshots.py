"""Screenshots of every view of a report for the pages of docs/: `python -m tests.report_screenshots RUN PROMPT`.

RUN is the folder of the default run, PROMPT that of a run with `evaluation=prompt`; pictures go to docs/.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.browser import browser
from tests.callbacks.report.report_page import island
from twinlens.callbacks.report.rebuild import rebuild

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH, HEIGHT = 1100, 900
UNFOLDED = {"tutorial_against": "details:has(> summary:text('lowest'))"}
"""Picture → what is unfolded and brought into view before it is taken."""


def views(data: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → address within the page and options: the first example, its first instance and its first neuron."""
    tests, train, units = data["tests"], data["train"], data["units"]
    listing = {kind: next(one for one in data["methods"] if one["kind"] == kind) for kind in ("instance", "neuron")}
    index = tests["index"][listing["neuron"]["row"][0]]
    return {
        "report": ("", {}),
        "report_examples": ("examples", {}),
        "report_example": (f"test={index}", {}),
        "tutorial_influence": (f"test={index}&instances=influence", {}),
        "tutorial_against": (f"test={index}&instances=influence", {}),
        "report_instance": (f"train={train['index'][listing['instance']['top']['at'][0]]}&from={index}", {}),
        "report_neuron": (f"neuron={units['key'][listing['neuron']['top']['at'][0]]}&from={index}", {}),
        "report_training_set": ("instances", {}),
        "report_neurons": ("units", {}),
        "report_settings": ("settings", {}),
        "report_dark": (f"test={index}", {"color_scheme": "dark"}),
        "report_narrow": (f"test={index}", {"viewport": {"width": 400, "height": HEIGHT}}),
    }


def main(run: str, prompt: str) -> None:
    """Write the pictures; the pages must ask for nothing and complain of nothing."""
    path, other = (rebuild(folder).resolve() for folder in (run, prompt))
    shown = [(name, path, *view) for name, view in views(island(path.read_text(encoding="utf-8"))).items()]
    shown.append(("report_prompts", other, "prompts", {}))
    with browser() as opened:
        for name, path, state, options in shown:
            page = opened.open(path, state, **{"viewport": {"width": WIDTH, "height": HEIGHT}, **options})
            if name in UNFOLDED:
                page.locator(UNFOLDED[name]).first.evaluate("part => { part.open = true; part.scrollIntoView(); }")
            page.wait_for_timeout(1500)  # figures in view are drawn
            page.screenshot(path=str(DOCS / f"{name}.png"))
            page.close()
        if opened.faults:
            raise SystemExit("\n".join(opened.faults))
    print(f"{len(shown)} pictures in {DOCS}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
