"""Weights & Biases: offline without a key, online with one; results are written, never read back."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger


def make_wandb_logger(
    save_dir: str,
    project: str = "twinlens",
    group: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    offline: bool | None = None,
) -> WandbLogger:
    """A logger for one run; an earlier run of the same process is finished first, so that two never share one.

    Args:
        save_dir: the run's folder; `wandb/` is written there.
        project, group, name, tags: as in wandb.init.
        offline: None decides by whether a key is at hand.
    """
    wandb.finish()
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        group=group,
        name=name or Path(save_dir).name,
        tags=list(tags),
        offline=not has_key() if offline is None else offline,
        settings=wandb.Settings(
            x_disable_meta=True,  # the command line, host and user name
            disable_git=True,  # the address of a repository, which may hold a password
            disable_code=True,
            x_save_requirements=False,
        ),
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
    """Send a finished run's numbers, results table and figures to its loggers."""
    for logger in loggers:
        logger.log_metrics(dict(metrics))
        if isinstance(logger, WandbLogger):
            columns = list(rows[0]) if rows else []
            logger.log_table("results", columns=columns, data=[[row[c] for c in columns] for row in rows])
            for figure in sorted((folder / "figures").glob("*.png")):
                logger.log_image(figure.stem, [str(figure)])
            wandb.finish()
        else:
            logger.save()
            logger.finalize("success")
