"""Screenshots of every view for the pages of docs/: `python -m tests.report_screenshots RUN PROMPT SWEEP OTHER`.

RUN is the folder of the default run, PROMPT that of a run with `evaluation=prompt`, SWEEP that of a sweep, OTHER of
a run on the data of RUN; pictures go to docs/.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.browser import browser
from tests.callbacks.report.report_page import island
from twinlens.callbacks.report.rebuild import rebuild
from twinlens.callbacks.sweep.comparison_page import write_comparison
from twinlens.callbacks.sweep.sweep_files import remake_sweep

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


def main(run: str, prompt: str, sweep: str, other: str) -> None:
    """Write the pictures; the pages must ask for nothing and complain of nothing."""
    path, of_prompt = (rebuild(folder).resolve() for folder in (run, prompt))
    shown = [(name, path, *view) for name, view in views(island(path.read_text(encoding="utf-8"))).items()]
    shown.append(("report_prompts", of_prompt, "prompts", {}))
    of_sweep = remake_sweep(Path(sweep)).resolve()
    number = measured_by_most(island(of_sweep.read_text(encoding="utf-8"))["numbers"])
    shown += [("sweep", of_sweep, "", {}), ("sweep_number", of_sweep, f"number={number}", {})]
    with tempfile.TemporaryDirectory() as folder:
        both = write_comparison([run, other], Path(folder))
        first = island(both.read_text(encoding="utf-8"))["tests"][0][0]
        shown += [("comparison", both, "", {}), ("comparison_example", both, f"test={first}", {})]
        take(shown)


def measured_by_most(numbers: dict[str, Any]) -> int:
    """The number of comprehensiveness with most neurons, else the first one."""
    about = numbers["about"]
    found = [i for i, metric in enumerate(about["metric"]) if metric == "comprehensiveness" and about["method"][i]]
    return max(found, key=lambda i: float(about["k"][i] or 0), default=0)


def take(shown: Sequence[tuple[str, Path, str, dict[str, Any]]]) -> None:
    """Write a picture of each (name, page, address within it, options of the browser's page)."""
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
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
