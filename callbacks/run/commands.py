"""Commands that are carried out instead of a run: the store listed or cleared, a report made anew, rows of others
checked, a run pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinlens.callbacks.report.rebuild import report_command
from twinlens.callbacks.results.outside_rows import results_command
from twinlens.callbacks.share.cards import write_cards
from twinlens.callbacks.share.upload import push_command, ready_to_push
from twinlens.callbacks.store.admin import store_command


def command_instead(config: Any) -> dict[str, float]:
    """Do what the configuration asks for instead of a run, which is then all that happens.

    A run that is to be pushed at its end is refused here if the hub would not take it.

    Returns:
        metrics of what was done; empty where a run is asked for.

    Raises:
        UserError: see `store_command`, `rebuild`, `results_command`, `push_run` and `ready_to_push`.
    """
    done = store_command(config) or report_command(config) or results_command(config) or push_command(config)
    if "report/made" in done:
        write_cards(Path(config.report.of))
    if not done and config.get("push") and not config.plan:
        ready_to_push(config.push)
    return done
