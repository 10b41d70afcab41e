"""TensorBoard: curves, numbers, tables as text and figures as images, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.tracking.findings import Findings, Sheet
from twinlens.callbacks.tracking.packages import require_package
from twinlens.conf.checking.written_config import to_yaml

MOST_ROWS = 200
"""Rows of a table as text; results.csv has all."""


class TensorBoardRun(TensorBoardLogger):
    """A logger for one run; what has no form in TensorBoard, the report and the scores, stays in the run's folder.

    Args:
        save_dir: the run's folder; `tensorboard/` is written there.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, save_dir: str) -> None:
        require_package("tensorboard", "tensorboard", "tensorboard")
        super().__init__(save_dir=save_dir, name="", version="tensorboard", default_hp_metric=False)

    def begin_run(self, config: Mapping[str, Any]) -> None:
        """Keep the configuration, as text and as TensorBoard's hyperparameters."""
        self.experiment.add_text("config", f"```yaml\n{to_yaml(dict(config))}```")
        self.log_hyperparams(dict(config))

    def send(self, findings: Findings) -> None:
        """Write numbers, tables and figures."""
        from matplotlib.image import imread

        self.log_metrics(dict(findings.numbers), step=0)
        for name, sheet in findings.sheets.items():
            self.experiment.add_text(name, _markdown(sheet))
        for figure in findings.figures:
            self.experiment.add_image(figure.stem, imread(figure), dataformats="HWC")

    def end_run(self, code: int) -> None:
        """Write what is still to be written; a run that failed has its exit code as a number."""
        if code:
            self.log_metrics({"exit_code": float(code)}, step=0)
        self.finalize("success" if code == 0 else "failed")


def _markdown(sheet: Sheet) -> str:
    lines = [sheet.columns, ["---"] * len(sheet.columns), *sheet.rows[:MOST_ROWS]]
    left = len(sheet.rows) - MOST_ROWS
    cut = [f"… {left} more rows in the run's folder"] if left > 0 else []
    return "\n".join([*("| " + " | ".join(map(_cell, line)) + " |" for line in lines), "", *cut])


def _cell(cell: Cell) -> str:
    text = "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("\n", "<br>")
