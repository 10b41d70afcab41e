"""Trackers are told how a run begins and ends, and what they have written is read back by their own formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.tracking.reading import read_wandb, table
from tests.running import installed
from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.run.run_outcome import code_of
from twinlens.callbacks.tracking import packages
from twinlens.callbacks.tracking.findings import Findings
from twinlens.callbacks.tracking.gather import findings_of_run
from twinlens.callbacks.tracking.mlflow_logger import MLflowRun
from twinlens.callbacks.tracking.tensorboard_logger import TensorBoardRun
from twinlens.callbacks.tracking.trackers import tracked
from twinlens.callbacks.tracking.wandb_logger import RunLogger


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small finished run, in an environment without keys."""
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = FakeRun(n_train=30, n_test=8, list_length=12, neuron=("ig",), instance=("gradsim",)).write(tmp_path / "r")
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "figures").mkdir()
    import matplotlib.image
    import numpy as np

    matplotlib.image.imsave(folder / "figures" / "overlap.png", np.zeros((4, 6, 3)))
    return folder


def tell(logger: Any, folder: Path, error: BaseException | None = None) -> None:
    """Take a finished run through a tracker, or one that ends with an error."""
    files = RunFiles(folder)
    with tracked([logger], lambda: files.config, code_of) as send:
        if error is not None:
            raise error
        send(lambda: findings_of_run(folder, files.results, {"time/fit": 1.5}, "f" * 24, True))


def test_weights_and_biases_offline(run: Path) -> None:
    tell(RunLogger(str(run), project="p", group="g", name="n", tags=["a"]), run)
    found = read_wandb(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert {key: value for key, value in found.config.items() if key in config} == config
    assert (found.run.project, found.run.run_group, found.run.display_name) == ("p", "g", "n")
    assert (found.run.job_type, found.run.host) == ("run", "")
    rows = RunFiles(run).results
    name = "ig/faithfulness/sufficiency_at_1"
    (value,) = [
        row["value"] for row in rows if row["method"] == "ig" and row["metric"] == "sufficiency" and row["k"] == 1
    ]
    assert found.summary[name] == value
    assert found.summary["time/fit"] == 1.5
    assert [step[name] for step in found.history if name in step] == [value]
    assert len(table(run, "results")["data"]) == len(rows)
    examples = table(run, "examples")
    assert examples["columns"][-2:] == ["ig", "gradsim"]
    assert len(examples["data"]) == 8
    assert found.summary["overlap._type"].startswith("images")
    kinds = {name: (kind, facts) for name, (kind, facts, _) in found.artifacts.items() if kind != "run_table"}
    assert kinds == {
        "model-ffffffffffff": ("model", {"weights": "f" * 24}),
        "scores-r": ("scores", {"made of": "model-ffffffffffff"}),
        "report-r": ("report", {"made of": "scores-r"}),
    }
    assert any(path.startswith("scores/ig/test/") for path in found.artifacts["scores-r"][2])
    assert found.exit_code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no"), 2),
        pytest.param(ValueError("defect"), 1, marks=pytest.mark.long),
        pytest.param(KeyboardInterrupt(), 130, marks=pytest.mark.long),
    ],
)
def test_a_run_that_fails_is_finished_with_its_exit_code(run: Path, error: BaseException, code: int) -> None:
    with pytest.raises(type(error)):
        tell(RunLogger(str(run)), run, error)
    found = read_wandb(run)
    assert found.exit_code == code
    assert found.config["seed"] == 0
    assert not found.artifacts


def test_tensorboard(run: Path) -> None:
    if not installed("tensorboard"):
        pytest.skip("the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tell(TensorBoardRun(str(run)), run)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert events.Scalars("time/fit")[-1].value == 1.5
    assert "ig/faithfulness/sufficiency_at_1" in events.Tags()["scalars"]
    text = {
        name: events.Tensors(f"{name}/text_summary")[-1].tensor_proto.string_val[0].decode()
        for name in ("config", "examples", "results")
    }
    assert "seed: 0" in text["config"]
    assert text["examples"].startswith("| index | ")
    assert events.Images("overlap")[-1].width == 6


@pytest.mark.long
def test_mlflow(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed("mlflow"):
        pytest.skip("the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    logger = MLflowRun(str(run), experiment="e", name="n", tags=["a"])
    tell(logger, run)
    client = MlflowClient((run / "mlflow").as_uri())
    (experiment,) = [one for one in client.search_experiments() if one.name == "e"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name, found.data.tags["label.a"]) == ("FINISHED", "n", "true")
    assert not {"mlflow.user", "mlflow.source.name"} & set(found.data.tags)
    assert found.data.params["seed"] == "0"
    assert found.data.metrics["time/fit"] == 1.5
    assert "ig/faithfulness/sufficiency_at_1" in found.data.metrics
    folders = ("tables", "figures", "report", "scores")
    below = {file.path for folder in folders for file in client.list_artifacts(found.info.run_id, folder)}
    assert {"tables/examples.json", "tables/results.json", "figures/overlap.png"} <= below
    assert {"report/report.html", "scores/results.csv"} <= below
    examples = json.loads(Path(client.download_artifacts(found.info.run_id, "tables/examples.json")).read_text())
    assert examples["columns"][-2:] == ["ig", "gradsim"]
    with pytest.raises(KeyboardInterrupt):
        tell(MLflowRun(str(run), experiment="e", name="stopped"), run, KeyboardInterrupt())
    (stopped,) = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == "stopped"]
    assert (stopped.info.status, stopped.data.tags["exit_code"]) == ("KILLED", "130")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 takes no run.*MLFLOW_TRACKING_URI"):
        tell(MLflowRun(str(run)), run)


@pytest.mark.parametrize(("kind", "option"), [(MLflowRun, "mlflow"), (TensorBoardRun, "tensorboard")])
def test_a_package_that_is_missing_is_one_sentence(
    kind: type, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"logger={option}: the package {option} is not installed.*'\.\[{option}\]'"):
        kind(str(tmp_path))


class Failing:
    """A tracker whose library fails when the results are there."""

    ended: int | None = None

    def begin_run(self, config: Any) -> None:
        self.config = config

    def send(self, findings: Findings) -> None:
        raise OSError("the network is gone, key=hf_aB3dE6gH9jK2mN5pQ8sT1vW4")

    def end_run(self, code: int) -> None:
        self.ended = code


def test_a_tracker_that_fails_ends_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = Failing()
    csv = CSVLogger(str(run), name="", version="logs")
    files = RunFiles(run)
    with tracked([failing, csv], lambda: files.config, code_of) as send:  # type: ignore[list-item]
        send(lambda: findings_of_run(run, files.results, {}, "f" * 24, True))
    assert failing.ended == 0
    told = capsys.readouterr().out
    assert "Failing: the network is gone" in told
    assert "hf_aB3" not in told
    assert "ig/faithfulness/sufficiency_at_1" in (run / "logs" / "metrics.csv").read_text().splitlines()[0]


def test_only_the_first_process_speaks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlens.callbacks.tracking.trackers.is_first_process", lambda: False)
    failing = Failing()
    with tracked([failing], dict, code_of) as send:  # type: ignore[list-item]
        send(lambda: pytest.fail("nobody listens"))
    assert failing.ended is None
