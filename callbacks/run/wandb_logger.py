"""Weights & Biases: offline without a key, online with one; results are written, never read back.

The library is imported where it is used, which spares every other run the time that this takes.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, WandbLogger

from twinlens.conf.checking.secrets import hide

if TYPE_CHECKING:
    import wandb

SECONDS_TO_REACH = 20.0
"""How long a run waits for Weights & Biases before it goes on without."""


class RunLogger(WandbLogger):
    """A logger for one run; an earlier run of the same process is finished first, so that two never share one.

    Where Weights & Biases cannot be reached, the run says so and is logged offline. What is secret by its value is
    left out of all that is sent or written.

    Args:
        save_dir: the run's folder; `wandb/` is written there.
        project, name, tags: as in wandb.init.
        group: as in wandb.init, for a run of its own; the jobs of a sweep are grouped under the sweep's id.
        offline: None decides by whether a key is at hand.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "twinlens",
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        offline: bool | None = None,
    ) -> None:
        import wandb

        wandb.finish()
        settings: dict[str, Any] = {
            "save_dir": save_dir,
            "project": hide(project),
            "group": sweep_id(Path(save_dir)) or (group and hide(group)),
            "name": hide(name or Path(save_dir).name),
            "tags": [hide(str(tag)) for tag in tags],
            "settings": private_settings(),
        }
        is_offline = bool(offline) or (offline is None and not has_key())
        super().__init__(**settings, offline=is_offline)
        if is_offline:
            return
        try:
            _ = self.experiment  # connects now: later a failure would end the fit
        except wandb.errors.Error as error:
            reason = hide(str(error).splitlines()[0])
            print(
                f"wandb: cannot be reached ({reason}); the run goes on and is logged offline in {save_dir}", flush=True
            )
            wandb.teardown()
            super().__init__(**settings, offline=True)


def sweep_id(folder: Path) -> str:
    """Name of the sweep that a run's folder belongs to, empty for a run of its own."""
    return folder.parent.name if (folder.parent / "sweep.csv").is_file() else ""


def private_settings() -> wandb.Settings:
    """Settings under which nothing of the machine, the user or the command line is sent along."""
    import wandb

    return wandb.Settings(
        init_timeout=SECONDS_TO_REACH,
        x_disable_meta=True,  # the command line, host and user name
        disable_git=True,  # the address of a repository, which may hold a password
        disable_code=True,
        x_save_requirements=False,
    )


def has_key() -> bool:
    """Whether a key is in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def log_run(
    loggers: Sequence[Logger], metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]], folder: Path
) -> None:
    """Send a finished run's numbers, results table and figures to its loggers; what fails is said, the run is done."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _send(logger, metrics, rows, folder)
        else:
            logger.log_metrics(dict(metrics))
            logger.save()
            logger.finalize("success")


def _send(logger: WandbLogger, metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    import wandb

    columns = list(rows[0]) if rows else []
    try:
        logger.log_metrics(dict(metrics))
        logger.log_table("results", columns=columns, data=[[_shown(row[c]) for c in columns] for row in rows])
        for figure in sorted((folder / "figures").glob("*.png")):
            logger.log_image(figure.stem, [str(figure)])
        wandb.finish()
    except wandb.errors.Error as error:
        print(f"wandb: {hide(str(error))}; the results stand in {folder} all the same", flush=True)


def _shown(cell: Any) -> Any:
    return hide(cell) if isinstance(cell, str) else cell
