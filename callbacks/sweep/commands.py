"""Commands that are carried out instead of a run: the store listed or cleared, a page made anew, runs compared, rows
of others checked, a run pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.rebuild import rebuild
from twinlens.callbacks.results.outside_rows import results_command
from twinlens.callbacks.share.cards import write_cards
from twinlens.callbacks.share.upload import push_command, ready_to_push
from twinlens.callbacks.store.admin import store_command
from twinlens.callbacks.sweep.comparison_page import write_comparison
from twinlens.callbacks.sweep.sweep_files import remake_sweep
from twinlens.callbacks.tracking.places import is_sweep


def command_instead(config: Any) -> dict[str, float]:
    """Do what the configuration asks for instead of a run, which is then all that happens.

    A run that is to be pushed at its end is refused here if the hub would not take it.

    Returns:
        metrics of what was done; empty where a run is asked for.

    Raises:
        UserError: see `store_command`, `report_command`, `results_command`, `push_run` and `ready_to_push`.
    """
    done = store_command(config) or report_command(config) or results_command(config) or push_command(config)
    if not done and config.get("push") and not config.plan:
        ready_to_push(config.push)
    return done


def report_command(config: Any) -> dict[str, float]:
    """Make the page of a finished run or sweep anew, or one of several runs side by side, if the configuration says so.

    Returns:
        How many pages were made; empty where the configuration asks for a run.

    Raises:
        UserError: see `rebuild`, `remake_sweep` and `write_comparison`.
    """
    asked = config.get("report") or {}
    of, compare, beside = asked.get("of"), asked.get("compare"), asked.get("beside")
    if of is not None and compare is not None:
        raise UserError(
            f"report.of={of} and report.compare ask for two pages; expected one of them: make the pages one after the "
            "other."
        )
    sweep = Path(of) if of is not None and is_sweep(Path(of)) else None
    if beside is not None and (of is None or sweep is not None):
        raise UserError(
            f"report.beside={beside!s:.200} names rows of others, but nothing says whose run they stand beside; "
            "expected both: add report.of=RUN."
        )
    if sweep is not None:
        print(f"report: {remake_sweep(sweep)}", flush=True)
    elif of is not None:
        print(f"report: {rebuild(of, beside)}", flush=True)
        write_cards(Path(of))
    elif compare is not None:
        runs = [compare] if isinstance(compare, str) else list(compare)
        print(f"comparison: {write_comparison(runs, Path(config.paths.output_dir))}", flush=True)
    else:
        return {}
    return {"report/made": 1.0}
