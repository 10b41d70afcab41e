"""MLflow: parameters, numbers, tables, figures, scores and the report, in files of the run or where MLflow is told.

The environment variable `MLFLOW_TRACKING_URI` names a server or a database, as everywhere in MLflow. Without it each
run has a store of its own, `mlflow/` in its folder: no setting of a configuration names a place to send things to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import MLFlowLogger

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.stopping import CODES
from twinlens.callbacks.tracking.findings import Bundle, Findings, files_taken
from twinlens.callbacks.tracking.packages import require_package
from twinlens.callbacks.tracking.places import sweep_id
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.conf.checking.secrets import hide
from twinlens.conf.checking.written_config import to_yaml

ADDRESS = "MLFLOW_TRACKING_URI"
FILES_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
"""Without it MLflow 3 refuses to write plain files; a database of its own would take half a minute to make."""
REPEATS, SECONDS = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
"""How often and how long MLflow asks a server; its own choice keeps a run waiting for minutes."""


class MLflowRun(MLFlowLogger):
    """A logger for one run. Nothing of the machine, the user or the command line is sent along.

    Args:
        save_dir: the run's folder; `mlflow/` is written there where `MLFLOW_TRACKING_URI` names no other place.
        experiment: MLflow's word for a project.
        name: of the run; None: the name of its folder.
        tags: free labels; each becomes a tag `label.<tag>`.
        weights: whether the model's files hold its weights.
        largest: bytes of large files that a bundle takes, for example `100MiB`; of more it holds the small ones.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(
        self,
        save_dir: str,
        experiment: str = "twinlens",
        name: str | None = None,
        tags: Sequence[str] = (),
        weights: bool = False,
        largest: str | int = "100MiB",
    ) -> None:
        require_package("mlflow", "mlflow", "mlflow")
        address = os.environ.get(ADDRESS)
        if not address:
            os.environ.setdefault(FILES_ALLOWED, "true")
        os.environ.setdefault(REPEATS, "2")
        os.environ.setdefault(SECONDS, "20")
        self.weights, self.largest = weights, parse_bytes(largest)
        folder = Path(save_dir)
        labels = {f"label.{hide(str(tag))}": "true" for tag in tags}
        group = {"sweep": sweep_id(folder)} if sweep_id(folder) else {}
        super().__init__(
            experiment_name=hide(experiment),
            run_name=hide(name or folder.name),
            tracking_uri=address or (folder / "mlflow").resolve().as_uri(),
            tags={**labels, **group},
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client, once the run is there."""
        if self._run_id is None:  # Lightning's own way adds the user's name and the path of the script
            client = self._mlflow_client
            found = client.get_experiment_by_name(self._experiment_name)
            number = found.experiment_id if found else client.create_experiment(self._experiment_name)
            self._run_id = client.create_run(number, tags=self.tags, run_name=self._run_name).info.run_id
        return super().experiment

    def begin_run(self, config: Mapping[str, Any]) -> None:
        """Start the run with its configuration: as parameters, of which MLflow keeps 250 characters each, and whole.

        Raises:
            UserError: where `MLFLOW_TRACKING_URI` leads nowhere.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.log_hyperparams(dict(config))
            self.experiment.log_text(self.run_id, to_yaml(dict(config)), "config.yaml")
        except (MlflowException, OSError) as error:
            reason = hide(str(error)).splitlines()[0][:200]
            where = hide(os.environ.get(ADDRESS, self._tracking_uri))
            raise UserError(
                f"logger=mlflow: {where} takes no run ({reason}); expected a server that answers, a database or a "
                f"folder: correct {ADDRESS}, or unset it to have the run's own folder."
            ) from error

    def send(self, findings: Findings) -> None:
        """Log numbers, tables, figures, and the files of the scores, the report and the model."""
        client, run = self.experiment, self.run_id
        self.log_metrics(dict(findings.numbers))
        for name, sheet in findings.sheets.items():
            columns = {column: [row[i] for row in sheet.rows] for i, column in enumerate(sheet.columns)}
            client.log_table(run, columns, f"tables/{name}.json")
        for figure in findings.figures:
            client.log_artifact(run, str(figure), "figures")
        for bundle in findings.bundles:
            self._log_bundle(bundle)

    def end_run(self, code: int) -> None:
        """Give the run its status: FINISHED, KILLED for an interruption, FAILED for anything else."""
        status = "FINISHED" if code == 0 else "KILLED" if code in CODES.values() else "FAILED"
        if code:
            self.experiment.set_tag(self.run_id, "exit_code", str(code))
        self.experiment.set_terminated(self.run_id, status)

    def _log_bundle(self, bundle: Bundle) -> None:
        files = files_taken(bundle, self.weights, self.largest, "mlflow")
        for inside, path in files.items():
            below = "/".join((bundle.kind, *Path(inside).parts[:-1]))
            self.experiment.log_artifact(self.run_id, str(path), below)
        for name, value in {"name": bundle.name, **bundle.facts}.items():
            self.experiment.set_tag(self.run_id, f"{bundle.kind}.{name}", value)
