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

from lightning.pytorch.loggers import WandbLogger

from twinlens.callbacks.tracking.findings import Bundle, Findings, files_taken
from twinlens.callbacks.tracking.places import is_sweep, sweep_id
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.conf.checking.secrets import hide

if TYPE_CHECKING:
    import wandb

SECONDS_TO_REACH = 20.0
"""How long a run waits for Weights & Biases before it goes on without."""
SECONDS_TO_END = 300.0
"""How long a run that is over waits for what is not sent yet; the rest stays on disk for `wandb sync`."""
MODE = "WANDB_MODE"
"""Variable of the environment in which a user may say `offline` or `disabled`."""


class RunLogger(WandbLogger):
    """A logger for one run; an earlier run of the same process is finished first, so that two never share one.

    Where Weights & Biases cannot be reached, the run says so and is logged offline. What is secret by its value is
    left out of all that is sent or written.

    Args:
        save_dir: the run's folder; `wandb/` is written there.
        project, name, tags: as in wandb.init.
        group: as in wandb.init, for a run of its own; the jobs of a sweep, and the sweep's own run, are grouped under
            the sweep's id.
        offline: None decides by whether a key is at hand.
        weights: whether the model's artifact holds its weights.
        largest: bytes of large files that an artifact takes, for example `100MiB`; of more it holds the small ones.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "twinlens",
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        offline: bool | None = None,
        weights: bool = False,
        largest: str | int = "100MiB",
    ) -> None:
        folder = Path(save_dir)
        self.weights, self.largest = weights, parse_bytes(largest)
        self._given: dict[str, Any] = {
            "save_dir": str(folder.absolute()),  # the library's own process writes there, with another working folder
            "project": hide(project),
            "group": sweep_id(folder) or (group and hide(group)),
            "job_type": "sweep" if is_sweep(folder) else "run",
            "name": hide(name or folder.name),
            "tags": [hide(str(tag)) for tag in tags],
            "settings": private_settings(),
        }
        self._is_offline = bool(offline) or (offline is None and not has_key())
        super().__init__(**self._given, **self._mode(), offline=self._is_offline)

    def begin_run(self, config: Mapping[str, Any]) -> None:
        """Start the run, offline where Weights & Biases cannot be reached, with its configuration."""
        import wandb

        wandb.finish()
        try:
            self._connect()  # now: later a failure would end the fit
        except wandb.errors.Error as error:
            reason = hide(str(error).splitlines()[0])
            print(
                f"wandb: cannot be reached ({reason}); the run goes on and is logged offline in "
                f"{self._given['save_dir']}",
                flush=True,
            )
            wandb.teardown()
            self._is_offline = True
            super().__init__(**self._given, **self._mode(), offline=True)
            self._connect()
        self.experiment.config.update(dict(config), allow_val_change=True)

    def _mode(self) -> dict[str, Any]:
        """What is said to wandb.init, which else takes the mode of an earlier run of this process."""
        if self._is_offline:
            return {"mode": "offline"}
        return {} if MODE in os.environ else {"mode": "online"}

    def _connect(self) -> None:
        """Start the run; Lightning says in the environment that it is offline, which would hold for runs after it."""
        mode = os.environ.get(MODE)
        try:
            _ = self.experiment
        finally:
            if mode is None:
                os.environ.pop(MODE, None)
            else:
                os.environ[MODE] = mode

    def send(self, findings: Findings) -> None:
        """Log numbers, whose last values are the summary, tables, figures and artifacts."""
        self.log_metrics(dict(findings.numbers))
        for name, sheet in findings.sheets.items():
            self.log_table(name, columns=list(sheet.columns), data=[list(row) for row in sheet.rows])
        for figure in findings.figures:
            self.log_image(figure.stem, [str(figure)])
        for bundle in findings.bundles:
            self._log_bundle(bundle)

    def end_run(self, code: int) -> None:
        """Finish the run with the exit code of the command."""
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=code)

    def _log_bundle(self, bundle: Bundle) -> None:
        """Log an artifact that the run made, or note that it used one.

        Offline nothing can be noted as used: it is logged, under a name and a content that the run which made it
        logs too, so that the server keeps one.
        """
        import wandb

        artifact = wandb.Artifact(bundle.name, bundle.kind, metadata=dict(bundle.facts))
        files = files_taken(bundle, self.weights, self.largest, "wandb")
        for inside, path in files.items():
            artifact.add_file(str(path.resolve()), name=inside, policy="immutable")  # no second copy on this disk
        if bundle.made_here or self._is_offline:
            self.experiment.log_artifact(artifact)
        else:
            self.experiment.use_artifact(artifact)


def private_settings() -> wandb.Settings:
    """Settings under which nothing that names the machine, the user or the command line is sent along."""
    import wandb

    return wandb.Settings(
        init_timeout=SECONDS_TO_REACH,
        finish_timeout=SECONDS_TO_END,
        host="",  # beside those of the next line, the run itself names the machine
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
