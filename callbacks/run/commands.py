"""Commands that are carried out instead of a run: the store listed or cleared, a report made anew."""

from __future__ import annotations

from typing import Any

from twinlens.callbacks.report.rebuild import report_command
from twinlens.callbacks.store.admin import store_command


def command_instead(config: Any) -> dict[str, float]:
    """Do what the configuration asks for instead of a run, which is then all that happens.

    Returns:
        metrics of what was done; empty where a run is asked for.

    Raises:
        UserError: see `store_command` and `rebuild`.
    """
    return store_command(config) or report_command(config)
