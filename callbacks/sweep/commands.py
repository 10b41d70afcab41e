"""Commands that are carried out instead of a run: the store listed or cleared, a report made anew, runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.rebuild import rebuild
from twinlens.callbacks.store.admin import store_command
from twinlens.callbacks.sweep.comparison_page import write_comparison
from twinlens.callbacks.sweep.sweep_files import FILE, remake_sweep


def command_instead(config: Any) -> dict[str, float]:
    """Do what the configuration asks for instead of a run, which is then all that happens.

    Returns:
        metrics of what was done; empty where a run is asked for.

    Raises:
        UserError: see `store_command` and `report_command`.
    """
    return store_command(config) or report_command(config)


def report_command(config: Any) -> dict[str, float]:
    """Make the page of a finished run or sweep anew, or one of several runs side by side, if the configuration says so.

    Returns:
        How many pages were made; empty where the configuration asks for a run.

    Raises:
        UserError: see `rebuild`, `remake_sweep` and `write_comparison`.
    """
    asked = config.get("report") or {}
    of, compare = asked.get("of"), asked.get("compare")
    if of is not None and compare is not None:
        raise UserError(
            f"report.of={of} and report.compare ask for two pages; expected one of them: make the pages one after the "
            "other."
        )
    if of is not None:
        print(f"report: {remake_sweep(Path(of)) if (Path(of) / FILE).is_file() else rebuild(of)}", flush=True)
    elif compare is not None:
        runs = [compare] if isinstance(compare, str) else list(compare)
        print(f"comparison: {write_comparison(runs, Path(config.paths.output_dir))}", flush=True)
    else:
        return {}
    return {"report/made": 1.0}
