"""Faithfulness through the command line: curves, matched controls, references, stored answers and the plan of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.running import SMALL_DEMO, CommandLine

RUN = (
    "method=[ig,random_neurons]",
    "method.ig.n_steps=2",
    "method.random_neurons.seeds=[0]",
    "evaluation=faithfulness",
    "evaluation.faithfulness.sufficiency=[1,4]",
    "evaluation.faithfulness.comprehensiveness=[20]",
    "evaluation.faithfulness.control_seeds=[0,1]",
)
METRICS = {f"{test}{suffix}" for test in ("sufficiency", "comprehensiveness") for suffix in ("", "_flips", "_drop")} | {
    "sufficiency_auc"
}


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").open()))


@pytest.mark.long
def test_every_option_runs_is_stored_and_planned(command: CommandLine) -> None:
    setting = "evaluation.faithfulness"
    options = (*RUN, f"{setting}.control=matched", f"{setting}.intervention=resample", f"{setting}.reference=train",
               f"{setting}.reference_size=10")  # fmt: skip
    first = command(*options, "data.eval_batch_size=3")
    assert first.code == 0, first.err
    rows = rows_of(first.folder)
    assert {row["metric"] for row in rows} == METRICS
    said = "intervention=resample;reference=train"
    assert {(row["method"], row["reference_group"], row["variant"]) for row in rows} == {
        ("ig", "", said), ("random_neurons", "", said), ("random_neurons", "ig", f"control=matched;{said}"),
        ("no_neurons", "", said),
    }  # fmt: skip
    (answers,) = (command.folder / "outputs" / "store" / "evaluate").glob("*/answers.safetensors")
    assert not (answers.parent / "reference").exists()
    names = {key.split("|")[0] for key in load_file(answers)}
    controls = {f"random_neurons/ig/seed{seed}" for seed in (0, 1)}
    assert names == {"ig", "random_neurons/seed0", "no_neurons", "probability", *controls}
    again = command(*options, "plan=true")
    assert "to do: 0 of" in again.out, again.out + again.err
    other = command(*options, "data.eval_batch_size=5", "overwrite=true")
    for one, two in zip(rows, rows_of(other.folder), strict=True):
        assert one["metric"] == two["metric"]
        assert abs(float(one["value"]) - float(two["value"])) < 1e-4, one


@pytest.mark.long
def test_every_site_has_a_control_and_a_base_line_of_its_own(command: CommandLine) -> None:
    """Methods of two sites in one run: the configured control serves one of them, the other's is drawn beside."""
    options = (
        "method=[ig,ig_gauss,random_neurons]", "method.ig.n_steps=2", "method.ig_gauss.n_steps=2",
        "method.ig_gauss.site=attn", "method.random_neurons.seeds=[0]", "evaluation=[faithfulness,site_ablation]",
        "evaluation.faithfulness.comprehensiveness=[20]", "evaluation.faithfulness.control_seeds=[0]",
    )  # fmt: skip
    first = command(*options)
    assert first.code == 0, first.err
    rows = rows_of(first.folder)
    lists = [row for row in rows if row["evaluation"] == "faithfulness"]
    assert {(row["method"], row["variant"], row["control"]) for row in lists} == {
        ("ig", "", ""), ("random_neurons", "", "true"), ("no_neurons", "", "true"),
        ("ig_gauss", "site=attn", ""), ("random_neurons", "site=attn", "true"), ("no_neurons", "site=attn", "true"),
    }  # fmt: skip
    cells = {
        (row["group"], row["reference_group"]): float(row["value"]) for row in rows if row["metric"] == "preserved"
    }
    base = {
        row["variant"]: float(row["value"]) for row in lists
        if (row["method"], row["metric"], row["group"]) == ("no_neurons", "sufficiency", "")
    }  # fmt: skip
    assert base == pytest.approx({"": cells["mlp off", "attention on"], "site=attn": cells["mlp on", "attention off"]})
    table = list(csv.DictReader((first.folder / "tables" / "site_ablation.csv").open()))
    assert [(line["MLP"], line["attention"]) for line in table] == [
        ("on", "on"), ("on", "off"), ("off", "on"), ("off", "off"),
    ]  # fmt: skip
    assert "all neurons of MLP or attention zero" in (first.folder / "report.html").read_text(encoding="utf-8")
    assert "to do: 0 of" in command(*options, "plan=true").out
    alone = command("method=[ig_gauss,random_neurons]", *options[2:5], "evaluation=[]")
    described = (alone.folder / "scores" / "random_neurons" / "method.yaml").read_text(encoding="utf-8")
    assert "site: attn" in described  # drawn from what the run's other method ranks


def test_a_reference_of_one_example_is_refused(command: CommandLine) -> None:
    base = [argument.replace("limit.test=12", "limit.test=1") for argument in SMALL_DEMO]
    finished = command(*RUN, "evaluation.faithfulness.intervention=mean", base=base)
    assert finished.code == 2
    assert "takes activations from other examples of the test split, which has 1" in finished.err
