"""Files of a sweep beside its jobs: means over seeds, comparison of jobs, common tables and figures, one group."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from omegaconf import OmegaConf

from tests.callbacks.fake_run import FakeRun
from twinlens.attribution.evaluation.comparisons import Measured
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.outcomes import write_outcomes
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.run_files import WARNINGS_FILE
from twinlens.callbacks.sweep.comparison import compare
from twinlens.callbacks.sweep.jobs import Job, finished_jobs, rows_of_all, swept_settings
from twinlens.callbacks.sweep.seeds import methods_over_seeds
from twinlens.callbacks.sweep.summary import summarise
from twinlens.callbacks.sweep.sweep_table import SweepTable
from twinlens.callbacks.tracking.places import sweep_id

SMALL: dict[str, Any] = {"n_train": 30, "n_test": 8, "list_length": 12, "neuron": ("ig",), "instance": ("gradsim",)}


pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one setting, one model on one data set."""
    folder = tmp_path_factory.mktemp("two_seeds")
    for seed in (0, 1):
        FakeRun(seed=seed, paper=True, **SMALL).write(folder / str(seed))
    return folder


@pytest.fixture
def sweep(tmp_path: Path, two_seeds: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(two_seeds, tmp_path / "sweep", symlinks=True)


def outcome(job: int, overrides: str, status: str = "done") -> dict[str, object]:
    return {"job": job, "status": status, "overrides": overrides, "folder": str(job)}


def jobs_of(sweep: Path, *overrides: str) -> list[Job]:
    return finished_jobs(sweep, [outcome(number, said) for number, said in enumerate(overrides)])


def change(run: Path, **cells: Cell) -> None:
    rows = [row | cells for row in read_results(run / "results.csv")]
    write_results(run / "results.csv", rows)


def test_settings_are_what_was_swept_and_rows_do_not_say() -> None:
    jobs = [
        ["model=tiny", "seed=0", "method.influence.damping=0.1", "data.limit.test=8"],
        ["model=gpt2", "seed=1", "method.influence.damping=1.0", "data.limit.test=8"],
        ["model=gpt2", "seed=1", "method.influence.damping=1.0", "data.limit.test=8", "+new=x=y"],
    ]
    assert swept_settings(jobs) == [
        "method.influence.damping=0.1", "method.influence.damping=1.0", "method.influence.damping=1.0; +new=x=y",
    ]  # fmt: skip
    assert swept_settings([["model=tiny"]]) == [""]
    assert swept_settings([]) == []


def test_summary_is_mean_and_standard_error_over_seeds(sweep: Path) -> None:
    for seed, value in ((0, 0.5), (1, 0.8)):
        change(sweep / str(seed), value=value)
    summary = summarise(jobs_of(sweep, "seed=0", "seed=1"))
    assert len(summary) == len(read_results(sweep / "0" / "results.csv"))
    for row in summary:
        assert row["seeds"] == 2
        assert row["value"] == pytest.approx(0.65)
        assert row["stderr"] == pytest.approx(np.std([0.5, 0.8], ddof=1) / 2**0.5)
        assert row["swept"] is None


def test_a_seed_counts_once_and_settings_stay_apart(sweep: Path) -> None:
    shutil.copytree(sweep / "1", sweep / "2")  # the same seed again, asked for with other methods
    summary = summarise(jobs_of(sweep, "seed=0 method=[ig]", "seed=1 method=[ig]", "seed=1 method=[gradsim]"))
    assert {row["seeds"] for row in summary} == {2}
    apart = summarise(
        jobs_of(sweep, "seed=0 data.max_length=64", "seed=1 data.max_length=64", "seed=1 data.max_length=8")
    )
    assert {(row["swept"], row["seeds"]) for row in apart} == {("data.max_length=64", 2), ("data.max_length=8", 1)}
    errors = [row["stderr"] for row in apart if row["seeds"] == 1 and row["metric"] == "accuracy" and not row["method"]]
    assert errors == [0.03, 0.13]  # one seed: the row's own
    models = {row["model"] for row in rows_of_all(jobs_of(sweep, "seed=0 a=1", "seed=1 a=2"))}
    assert models == {"tiny (a=1)", "tiny (a=2)"}


def test_comparison_equals_the_plain_loop(sweep: Path) -> None:
    rows = compare(jobs_of(sweep, "seed=0", "seed=1"))
    found = {(row["metric"], row["method"], row["k"]): row for row in rows}
    tests = [load_from_disk(str(sweep / job / "scores" / "gradsim" / "test")) for job in ("0", "1")]
    neurons = [load_from_disk(str(sweep / job / "scores" / "ig" / "test")) for job in ("0", "1")]
    for k in (1, 10):
        common, shares = [], []
        for i in range(8):
            common.append(100 * len(set(tests[0][i]["top_index"][:k]) & set(tests[1][i]["top_index"][:k])) / k)
            a, b = (set(zip(rows[i]["layer"][:k], rows[i]["unit"][:k], strict=True)) for rows in neurons)
            shares.append(100 * len(a & b) / len(a | b))
        row = found["instance_overlap_per_test", "gradsim", k]
        assert row["value"] == pytest.approx(np.mean(common))
        assert row["stderr"] == pytest.approx(np.std(common, ddof=1) / 8**0.5)
        assert (row["n"], row["job"], row["reference_job"], row["seed"], row["reference_seed"]) == (8, 0, 1, 0, 1)
        assert found["neuron_overlap", "ig", k]["value"] == pytest.approx(np.mean(shares))
    assert ("instance_overlap_per_test", "gradsim", 100) not in found  # the lists hold twelve
    assert found["sufficiency_difference", "ig", 1]["value"] == 0.0
    assert found["sufficiency_difference", "ig", 1]["stderr"] == pytest.approx(1.5 * 2**0.5)


def test_neurons_of_two_sites_are_different_things_and_heads_are_none(sweep: Path) -> None:
    jobs = ("seed=0", "seed=1")
    shutil.rmtree(sweep / "1" / "scores" / "ig" / "test")
    rows = load_from_disk(str(sweep / "0" / "scores" / "ig" / "test"))
    for column, cell, overlap in (("role", "value", {100.0}), ("site", "attn", {0.0}), ("unit_kind", "head", set())):
        changed = rows.remove_columns(column).add_column(column, [[cell] * len(row) for row in rows[column]])
        changed.save_to_disk(str(sweep / column))
        (sweep / "1" / "scores" / "ig" / "test").unlink(missing_ok=True)
        (sweep / "1" / "scores" / "ig" / "test").symlink_to(sweep / column)
        found = [row for row in compare(jobs_of(sweep, *jobs)) if row["metric"] == "neuron_overlap"]
        assert {row["value"] for row in found} == overlap, column


def test_what_is_left_of_the_target_is_compared(sweep: Path) -> None:
    for seed, value in ((0, 0.2), (1, 0.5)):
        rows = read_results(sweep / str(seed) / "results.csv")
        of_ig = next(row for row in rows if row["method"] == "ig") | {"evaluation": "interventions", "k": 10}
        groups = [of_ig | {"metric": "mrr", "group": group, "value": value, "stderr": 0.3} for group in ("", "month")]
        write_results(sweep / str(seed) / "results.csv", [*rows, *groups])
    found = [row for row in compare(jobs_of(sweep, "seed=0", "seed=1")) if row["metric"] == "mrr_difference"]
    assert [(row["method"], row["k"]) for row in found] == [("ig", 10)]
    assert found[0]["value"] == pytest.approx(-0.3)
    assert found[0]["stderr"] == pytest.approx(0.3 * 2**0.5)


def test_methods_that_only_one_job_has_are_compared_with_each_other(tmp_path: Path) -> None:
    for job, instance in enumerate((("gradsim",), ("influence", "random_instances"))):
        FakeRun(**SMALL | {"instance": instance, "neuron": ()}).write(tmp_path / str(job))
    rows = compare(jobs_of(tmp_path, "method=gradsim", "method=influence"))
    assert {(row["method"], row["reference_method"]) for row in rows} == {("gradsim", "influence")}


def test_what_cannot_be_compared_is_not(sweep: Path) -> None:
    jobs = ("seed=0", "seed=1")
    change(sweep / "1", data="other")
    assert compare(jobs_of(sweep, *jobs)) == []
    change(sweep / "1", data="demo", model="gpt2")
    metrics = {row["metric"] for row in compare(jobs_of(sweep, *jobs))}
    assert "neuron_overlap" not in metrics  # neurons of two models are different things
    assert metrics == {"instance_overlap_per_test", "sufficiency_difference", "comprehensiveness_difference"}
    shutil.rmtree(sweep / "1")
    FakeRun(seed=1, **SMALL | {"n_test": 9}).write(sweep / "1")
    assert compare(jobs_of(sweep, *jobs)) == []  # other examples were explained
    shutil.rmtree(sweep / "1")
    FakeRun(seed=1, **SMALL | {"n_train": 31}).write(sweep / "1")
    assert "instance_overlap_per_test" not in {row["metric"] for row in compare(jobs_of(sweep, *jobs))}


def test_scores_that_both_jobs_link_to_are_no_comparison(sweep: Path) -> None:
    for name in ("gradsim", "ig"):
        shutil.rmtree(sweep / "1" / "scores" / name)
        (sweep / "1" / "scores" / name).symlink_to(sweep / "0" / "scores" / name)
    assert compare(jobs_of(sweep, "seed=0", "seed=1")) == []


def config(sweep: Path, job: int = 0, mode: str = "MULTIRUN") -> Any:
    node = {"mode": mode, "job": {"num": job}, "overrides": {"task": [f"seed={job}"]}}
    return OmegaConf.create({"hydra": node | {"sweep": {"dir": str(sweep), "subdir": str(job)}}})


def run_sweep(sweep: Path, outcomes: list[dict[str, Any]]) -> None:
    table = SweepTable()
    table.on_multirun_start(config(sweep))
    for job, returned in enumerate(outcomes):
        table.on_job_start(config(sweep, job))
        assert sweep_id(sweep / str(job)) == "sweep"  # known before the job's loggers are built
        table.on_job_end(config(sweep, job), SimpleNamespace(_return_value=returned))  # type: ignore[arg-type]
    table.on_multirun_end(config(sweep))


DONE: dict[str, Any] = {"status": "done", "metrics": {"accuracy/accuracy": 0.5}}


def test_a_sweep_leaves_its_files_and_prints_them(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_sweep(sweep, [DONE, DONE])
    names = {path.relative_to(sweep).as_posix() for path in sweep.rglob("*") if path.parent in (
        sweep, sweep / "tables", sweep / "figures")}  # fmt: skip
    assert {"sweep.csv", "summary.csv", "comparison.csv"} <= names
    assert {f"tables/table{n}.csv" for n in range(1, 6)} <= names
    assert {f"figures/figure{n}.png" for n in range(2, 7)} <= names
    assert not [name for name in names if "partial" in name]
    said = capsys.readouterr().out
    assert "mean ± standard error over seeds" in said
    assert "comparison of jobs" in said
    assert said.strip().splitlines()[-1] == str(sweep)
    with (sweep / "comparison.csv").open() as opened:
        assert {row["data"] for row in csv.DictReader(opened)} == {"demo"}


def test_each_warning_is_said_once_with_its_jobs(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {0: ["all are one class", "few rows", "right by 0.5 of 40"], 1: ["few rows", "right by 0.25 of 40"]}
    for job, sentences in said.items():
        path = sweep / str(job) / WARNINGS_FILE
        path.write_text("".join(f"- {{name: it, sentence: {sentence}}}\n" for sentence in sentences))
    run_sweep(sweep, [DONE, {"status": "refused", "message": "no"}])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert lines == [
        "warning (2 of 2 jobs: 0, 1): few rows",
        "warning (1 of 2 jobs: 0): all are one class",
        "warning (2 of 2 jobs: 0, 1; each with its own numbers, here of the first): right by 0.5 of 40",
    ]


def test_failed_and_damaged_jobs_cost_no_other(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_sweep(sweep, [DONE, {"status": "refused", "message": "too few rows"}])
    with (sweep / "summary.csv").open() as opened:
        assert {row["seeds"] for row in csv.DictReader(opened)} == {"1"}
    assert not (sweep / "comparison.csv").exists()
    (sweep / "1" / "results.csv").write_text("damaged")
    run_sweep(sweep, [DONE, DONE])
    assert "job 1: The header of" in capsys.readouterr().out
    with (sweep / "summary.csv").open() as opened:
        assert {row["seeds"] for row in csv.DictReader(opened)} == {"1"}
    run_sweep(sweep, [{"status": "refused", "message": "no"}])
    with (sweep / "sweep.csv").open() as opened:
        assert [row["status"] for row in csv.DictReader(opened)] == ["refused"]


def test_a_run_of_its_own_leaves_nothing_of_a_sweep(tmp_path: Path) -> None:
    table = SweepTable()
    table.on_job_start(config(tmp_path, mode="RUN"))
    table.on_job_end(config(tmp_path, mode="RUN"), SimpleNamespace(_return_value=DONE))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert sweep_id(tmp_path / "run") == ""


def test_methods_are_compared_over_all_seeds(sweep: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    outcomes = {name: torch.randint(2, (2, 8), generator=generator).double() for name in ("ig", "gradsim_neurons")}
    for seed in (0, 1):
        rows = [
            Measured("faithfulness", "sufficiency", "test", 1, "", "", name, "", False, 100.0, values[seed : seed + 1])
            for name, values in outcomes.items()
        ]
        alone = replace(rows[0], metric="only_once")
        write_outcomes(sweep / str(seed) / "outcomes.safetensors", [*rows, *[alone][seed:]])
    table = methods_over_seeds(jobs_of(sweep, "seed=0", "seed=1"))
    assert table is not None
    (line,) = table.lines
    found = dict(zip(table.header, line, strict=True))
    means = [100 * float(values.mean()) for values in outcomes.values()]
    assert found["difference"] == pytest.approx(means[0] - means[1])
    assert (found["test"], found["n"], found["seeds"]) == ("bootstrap over examples and 2 seeds", 8, 2)
    apart = methods_over_seeds(jobs_of(sweep, "seed=0 a=1", "seed=1 a=2"))
    assert apart is not None
    assert [(line[0], line[-1]) for line in apart.lines] == [("tiny (a=1)", 1), ("tiny (a=2)", 1)]
