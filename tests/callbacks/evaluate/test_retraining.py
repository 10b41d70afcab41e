"""Retraining cells: the same as a run on those rows alone, shared, resumed, and read by a second run."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.running import SMALL_DEMO, CommandLine
from twinlens.attribution.evaluation.train_ranking import least_influential, train_ranking
from twinlens.callbacks.evaluate import refits

ONE_CELL = (
    "method=gradsim",
    "evaluation=retraining",
    "evaluation.retraining.seeds=[1]",
    "evaluation.retraining.groups=[least]",
    "evaluation.retraining.fractions=[25]",
)


def cells(command: CommandLine) -> list[Path]:
    """Finished cells in the store, oldest first."""
    found = (command.folder / "outputs" / "store" / "retrain").glob("*/manifest.json")
    return [manifest.parent for manifest in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


@pytest.mark.long
def test_a_cell_is_a_run_on_its_rows_and_goes_on_after_a_kill(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = refits._predict

    def killed(*arguments):
        raise RuntimeError("killed between fit and prediction")

    monkeypatch.setattr(refits, "_predict", killed)
    assert command(*ONE_CELL).code == 1
    assert cells(command) == []
    monkeypatch.setattr(refits, "_predict", predict)
    first = command(*ONE_CELL)
    assert first.code == 0, first.err
    assert "retraining: fit on 12 train rows, seed 1: computed" in first.out
    assert "fit: epoch" not in first.out  # the killed run's fit was finished
    (cell,) = cells(command)
    assert sorted(path.name for path in cell.iterdir() if path.is_file()) == [
        "fit.json",
        "manifest.json",
        "predictions.safetensors",
    ]
    assert not (cell / "model").exists()

    again = command(*ONE_CELL)
    assert "retraining: fit on 12 train rows, seed 1: read from the store" in again.out
    rows = list(csv.DictReader((again.folder / "results.csv").open()))
    measured = [row for row in rows if not row["metric"].startswith("label_")]
    assert [(r["metric"], r["method"], r["group"], r["k"]) for r in measured] == [
        ("accuracy", "gradsim", "least", "25"),
        ("preserved", "gradsim", "least", "25"),
    ]
    train = datasets.load_from_disk(str(again.folder / "examples" / "train"))
    with (again.folder / "retraining_rows.csv").open() as opened:
        stood = list(csv.DictReader(opened))
    assert [int(row["label"]) for row in stood] == [train["label"][int(row["index"])] for row in stood]
    counts = {row["reference_group"]: float(row["value"]) for row in rows if row["metric"] == "label_count"}
    assert (
        sorted(counts.values()) == sorted([*Counter(row["label"] for row in stood).values(), 0, 0, 0])[-len(counts) :]
    )

    summary = datasets.load_from_disk(str(again.folder / "scores" / "gradsim" / "train_summary"))
    ranking = train_ranking({"mean": torch.tensor(summary["mean"][:], dtype=torch.float64)})
    chosen = sorted(least_influential(ranking, 25).tolist())
    assert sorted(int(row["index"]) for row in stood) == chosen
    alone = command(
        "method=ig",
        "evaluation=accuracy",
        "seed=1",
        f"data.select.train=[{','.join(map(str, chosen))}]",
        "data.limit.train=null",
        base=[option for option in SMALL_DEMO if not option.startswith("data.limit.train")],
    )
    assert alone.code == 0, alone.err
    expected = datasets.load_from_disk(str(alone.folder / "examples" / "test"))["prediction"][:]
    assert load_file(cell / "predictions.safetensors")["prediction"].tolist() == expected


def test_diversity_follows_retraining_and_equal_subsets_are_one_cell(command: CommandLine) -> None:
    finished = command(
        "method=[gradsim,gradsim_cosine,random_instances]",
        "evaluation=[diversity,retraining]",
        "evaluation.retraining.seeds=[0]",
        "evaluation.retraining.groups=[most,random]",
        "evaluation.retraining.fractions=[100]",
    )
    assert finished.code == 0, finished.err
    assert len(cells(command)) == 1  # all rows, whoever ranks them
    assert finished.out.count("retraining: fit on 48 train rows, seed 0: computed") == 1
    assert "retraining: fit on 48 train rows, seed 0: read from the store" not in finished.out  # asked for once
    assert "diversity: no regression: 3 subset(s) with an accuracy" in finished.out
    rows = list(csv.DictReader((finished.folder / "results.csv").open()))
    described = [row for row in rows if row["evaluation"] == "diversity"]
    assert {(row["method"], row["group"], row["k"]) for row in described} == {
        ("gradsim", "most", "100"),
        ("gradsim_cosine", "most", "100"),
        ("random_instances", "random", "100"),
    }
    whole = {row["metric"]: row["value"] for row in described if row["method"] == "gradsim"}
    assert set(whole) == {"cosine_similarity", "loss", "vocabulary", "input_length"}
    train = datasets.load_from_disk(str(finished.folder / "examples" / "train"))
    losses = [-torch.tensor(p)[y].log().item() for p, y in zip(train["prob"][:], train["label"][:], strict=True)]
    assert float(whole["loss"]) == pytest.approx(sum(losses) / 48, rel=1e-5)
    assert int(float(whole["vocabulary"])) == len({token for row in train["input_ids"][:] for token in row})


def test_a_classifier_used_as_it_is_cannot_be_retrained(command: CommandLine, trained: Path) -> None:
    finished = command(
        "fit=false",
        "model=local",
        f"model.path={trained / 'model'}",
        "method=gradsim",
        "evaluation=[retraining,diversity]",
    )
    assert finished.code == 0, finished.err
    assert "retraining: skipped: needs a model that this run trains (fit=true)" in finished.out
    assert "diversity: no regression: needs the accuracy of evaluation=retraining" in finished.out
    rows = list(csv.DictReader((finished.folder / "results.csv").open()))
    assert {row["evaluation"] for row in rows} == {"diversity"}
