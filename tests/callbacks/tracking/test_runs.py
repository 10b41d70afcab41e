"""Whole commands with trackers: what they have written of runs, sweeps, interruptions, several processes, studies."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest
import yaml

from tests.callbacks.tracking.reading import read_wandb, table
from tests.faults.starting import SECONDS, finished_shards, start, wait_until
from tests.running import SMALL_DEMO, SMALLER_MODEL, CommandLine, installed

QUICK = ("method=[gradsim,random_instances]", "evaluation=accuracy")
STUDY = (
    "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1",
    "hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0", "method=[influence,random_instances]",
    "evaluation=[lds]", "evaluation.lds.subsets=5", "method.influence.damping=tag(log, interval(0.01,1))",
    "hydra.sweep.dir=sweep",
)  # fmt: skip


@pytest.fixture(autouse=True)
def without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.mark.long
def test_a_run_and_a_second_one_on_its_fit(command: CommandLine) -> None:
    finished = command("logger=[csv,wandb]", "hydra.run.dir=first", *QUICK)
    assert finished.code == 0, finished.err
    first = read_wandb(command.folder / "first")
    config = yaml.safe_load((command.folder / "first" / "config.yaml").read_text())
    del config["defaults"]
    assert {key: value for key, value in first.config.items() if key != "_wandb"} == config
    assert any("validation/loss" in step for step in first.history)  # of the one step that fdr trains
    metrics = json.loads((command.folder / "first" / "metrics.json").read_text())
    assert first.summary["accuracy/accuracy"] == metrics["accuracy/accuracy"]
    assert first.run.run_group == "tiny_demo"
    assert first.exit_code == 0
    header = (command.folder / "first" / "logs" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"validation/loss", "accuracy/accuracy", "time/fit"} <= set(header)
    assert command("logger=wandb", "hydra.run.dir=second", *QUICK).code == 0
    second = read_wandb(command.folder / "second")
    (model,) = [name for name, (kind, _, _) in first.artifacts.items() if kind == "model"]
    assert second.artifacts[model] == first.artifacts[model]
    assert second.artifacts["scores-second"][1] == {"made of": model}


@pytest.mark.long
def test_a_sweep_is_a_group_with_a_run_of_its_own(command: CommandLine) -> None:
    swept = command("-m", "seed=0,1", "logger=[csv,wandb]", "hydra.sweep.dir=sweep", *QUICK)
    assert swept.code == 0, swept.err
    jobs = [read_wandb(command.folder / "sweep" / str(job)) for job in range(2)]
    own = read_wandb(command.folder / "sweep")
    assert [found.run.run_group for found in (*jobs, own)] == ["sweep"] * 3
    assert [found.run.job_type for found in (*jobs, own)] == ["run", "run", "sweep"]
    assert (own.summary["sweep/jobs"], own.summary["sweep/done"]) == (2, 2)
    rows = list(csv.DictReader((command.folder / "sweep" / "summary.csv").open()))
    assert len(table(command.folder / "sweep", "summary")["data"]) == len(rows)
    whole = [row for row in rows if row["split"] == "test" and not row["group"]]
    (mean,) = [float(row["value"]) for row in whole if row["metric"] == "accuracy"]
    assert own.summary["tiny demo/accuracy/accuracy"] == pytest.approx(mean)
    assert "seed" not in own.config
    assert own.config["model"]["name"] == "tiny"
    assert own.exit_code == 0


@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_finished_as_such(tmp_path: Path, number: signal.Signals, code: int) -> None:
    slow = ("debug=fdr", "data.limit.train=48", "data.limit.test=32", "method=ig", "method.ig.n_steps=400")
    process = start(tmp_path, *slow, "logger=wandb", "trainer.accelerator=cpu", "hydra.run.dir=run")
    wait_until(lambda: finished_shards(tmp_path, "attribute") > 0, process)
    process.send_signal(number)
    assert process.wait(timeout=SECONDS) == code
    assert read_wandb(tmp_path / "run").exit_code == code


@pytest.mark.long
def test_of_two_processes_the_first_speaks(tmp_path: Path) -> None:
    process = start(
        tmp_path, *SMALL_DEMO, *SMALLER_MODEL, *QUICK, "trainer=ddp_cpu", "trainer.devices=2", "logger=wandb",
        "hydra.run.dir=run",
    )  # fmt: skip
    assert process.wait(timeout=4 * SECONDS) == 0, (tmp_path / "err").read_text()
    found = read_wandb(tmp_path / "run")  # which reads one file and no other
    assert found.config["trainer"]["devices"] == 2
    assert found.exit_code == 0
    assert len(found.artifacts) == 5


@pytest.mark.long
def test_a_small_study_of_optuna(command: CommandLine) -> None:
    if not installed("hydra_plugins.hydra_optuna_sweeper"):
        pytest.skip("the extra optuna is not installed")
    finished = command(*STUDY, "optimise=influence/lds/lds_at_5")
    assert finished.code == 0, finished.err
    found = yaml.safe_load((command.folder / "sweep" / "optimization_results.yaml").read_text())
    numbers = {}
    for job in range(3):
        run = command.folder / "sweep" / str(job)
        damping = yaml.safe_load((run / "config.yaml").read_text())["method"]["influence"]["damping"]
        rows = csv.DictReader((run / "results.csv").open())
        (value,) = [float(row["value"]) for row in rows if (row["method"], row["metric"]) == ("influence", "lds")]
        assert json.loads((run / "metrics.json").read_text())["optimise"] == value
        numbers[damping] = value
    assert len(numbers) == 3
    assert found["best_value"] == max(numbers.values())
    assert numbers[found["best_params"]["method.influence.damping"]] == found["best_value"]


@pytest.mark.long
def test_a_study_without_its_number_says_so(command: CommandLine) -> None:
    if not installed("hydra_plugins.hydra_optuna_sweeper"):
        pytest.skip("the extra optuna is not installed")
    finished = command(*STUDY, "optimise=influence/lds/lds_at_40", "hydra.sweeper.max_failure_rate=1.0")
    assert finished.code == 2
    assert "did you mean influence/lds/lds_at_5?" in finished.err
    assert "no job of the sweep has given the number to optimise" in finished.err
    assert "No trials are completed" not in finished.err  # the library's own words, in a traceback
    rows = list(csv.DictReader((command.folder / "sweep" / "sweep.csv").open()))
    assert [row["status"] for row in rows] == ["refused"] * 3
    assert (command.folder / "sweep" / "2" / "results.csv").is_file()
