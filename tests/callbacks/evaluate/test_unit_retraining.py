"""The bridge on the command line: both directions, the report, and fits from one start measured by plain forwards."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.callbacks.report.report_page import island
from tests.oracles_units import contribution
from tests.running import SMALLER_MODEL, CommandLine, Finished
from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitRetraining
from twinlens.callbacks.attribute.unit_score_files import read_units
from twinlens.callbacks.evaluate.unit_retraining import places_of
from twinlens.models.backbone import load_tokenizer
from twinlens.models.module import TextClassifier

ASKED = (
    "method.data_of_neurons.n_units=2",
    "method.data_of_neurons.curvature=identity",
    "method.data_of_neurons.params=score",
    "evaluation=unit_retraining",
    "evaluation.unit_retraining.units=2",
    "evaluation.unit_retraining.seeds=[0,4]",
    *SMALLER_MODEL,
)
TURNED = ("method=[ig,data_of_neurons,neurons_of_data]", "evaluation.unit_retraining.beside=null", *ASKED)
BESIDE = ("method=[ig,data_of_neurons,gradsim]", "evaluation.unit_retraining.beside=gradsim", *ASKED)


def results(run: Path) -> dict[tuple[str, str, str], float]:
    rows = csv.DictReader((run / "results.csv").open())
    return {(row["metric"], row["method"], row["reference_group"]): float(row["value"]) for row in rows}


def test_a_run_both_ways_round_with_its_report_and_fits(command: CommandLine) -> None:
    done = command(*TURNED)
    assert done.code == 0, done.err
    rows = datasets.load_from_disk(str(done.folder / "scores" / "data_of_neurons" / "test"))
    lists = datasets.load_from_disk(str(done.folder / "scores" / "ig" / "test"))
    assert rows["unit"][:2] == lists[0]["unit"][:2]
    assert (done.folder / "scores" / "neurons_of_data" / "train").is_dir()
    page = island((done.folder / "report.html").read_text(encoding="utf-8"))
    [shown] = [method for method in page["methods"] if method["kind"] == "unit"]
    assert page["units"]["name"][shown["unit"][0]] == f"L{rows[0]['layer']} · {rows[0]['unit']}"
    assert shown["target"][0].startswith("what the unit adds to ")

    found = results(done.folder)
    falls = [
        found["unit_fall", name, other]
        for name, other in (("data_of_neurons", ""), ("random_instances", "data_of_neurons"))
    ]
    difference = found["unit_fall_difference", "data_of_neurons", "random_instances"]
    assert difference == pytest.approx(falls[0] - falls[1], abs=1e-5)
    # the fit of the run's own seed on all rows is the run's own: same initial weights, same order
    expected = contributions_of_the_run(done)
    assert any(torch.allclose(cell, expected, rtol=1e-3, atol=1e-5) for cell in fits_of(command))


@pytest.mark.long
def test_fits_are_planned_shared_and_held_against_the_prediction(command: CommandLine) -> None:
    planned = command(*BESIDE, "plan=true")
    assert planned.code == 0, planned.err
    assert "12 fits" in planned.out  # for each seed all rows, random ones, two units and their predictions
    done = command(*BESIDE)
    assert done.code == 0, done.err
    found = results(done.folder)
    assert {("unit_fall", "gradsim", ""), ("unit_fall_difference", "data_of_neurons", "gradsim")} <= set(found)
    assert len(fits_of(command)) == 12
    again = command(*BESIDE)
    lines = [line for line in again.out.splitlines() if line.startswith("unit_retraining: fit")]
    assert lines
    assert not [line for line in lines if ": read from the store, made " not in line]
    assert results(again.folder) == found


def fits_of(command: CommandLine) -> list[torch.Tensor]:
    """Contributions of all fits, NaN left out."""
    cells = (command.folder / "outputs" / "store" / "retrain").glob("*/predictions.safetensors")
    found = [load_file(cell)["contribution"].flatten() for cell in cells]
    return [values[~values.isnan()] for values in found]


def contributions_of_the_run(done: Finished) -> torch.Tensor:
    """Of the chosen pairs in the run's own model, by plain forwards."""
    run = done.folder
    model = TextClassifier(
        "tiny", ["a", "b", "c"], load_tokenizer(str(run / "model")), path=str(run / "model"), as_it_is=True
    ).eval()
    units, *_ = read_units(run / "scores" / "data_of_neurons" / "test")
    units = units.at(UnitRetraining(units=2).chosen(units))
    examples = datasets.load_from_disk(str(run / "examples" / "test"))
    found = []
    for pair in sorted(range(len(units)), key=lambda pair: (int(units.index[pair]), pair)):
        row = examples[int(units.index[pair])]
        ids = torch.tensor(row["input_ids"])[None]
        alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        module = model.backbone.layers[int(units.layer[pair])].mlp.dense_4h_to_h
        unit = int(units.unit[pair])

        def log_prob(alone: dict[str, torch.Tensor] = alone, target: int = row["prediction"]) -> torch.Tensor:
            return model(alone).double().log_softmax(-1)[0, target]

        with torch.no_grad():
            found.append(contribution(log_prob, module, (unit, unit + 1)))
    return torch.stack(found)


def test_places_count_the_pairs_of_an_example() -> None:
    place, rows = places_of(torch.tensor([4, 1, 4, 4, 0]))
    assert place.tolist() == [0, 0, 1, 2, 0]
    assert rows.tolist() == [0, 1, 4]
