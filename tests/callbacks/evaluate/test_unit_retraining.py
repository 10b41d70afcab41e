"""Retraining for units on the command line: fits from one initialisation, contributions as plain forwards have them."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.oracles_units import contribution
from tests.running import SMALLER_MODEL, CommandLine
from twinlens.callbacks.evaluate.unit_retraining import places_of
from twinlens.models.backbone import load_tokenizer
from twinlens.models.module import TextClassifier

ASKED = (
    "method=[ig,data_of_neurons,gradsim]",
    "method.data_of_neurons.n_units=2",
    "method.data_of_neurons.curvature=identity",
    "method.data_of_neurons.params=score",
    "evaluation=unit_retraining",
    "evaluation.unit_retraining.units=2",
    "evaluation.unit_retraining.seeds=[0,4]",
    "evaluation.unit_retraining.beside=gradsim",
    *SMALLER_MODEL,
)


def results(run: Path) -> dict[tuple[str, str, str], float]:
    rows = csv.DictReader((run / "results.csv").open())
    return {(row["metric"], row["method"], row["reference_group"]): float(row["value"]) for row in rows}


def test_contributions_of_fits_from_the_same_initial_weights(command: CommandLine) -> None:
    planned = command(*ASKED, "plan=true")
    assert planned.code == 0, planned.err
    assert "12 fits" in planned.out  # for each seed all rows, random ones, two units and their predictions
    done = command(*ASKED)
    assert done.code == 0, done.err
    found = results(done.folder)
    assert {metric for metric, *_ in found} == {
        "unit_fall", "unit_fall_difference", "unit_fall_random_sd", "unit_fall_ratio", "unit_contribution",
    }  # fmt: skip
    falls = [found["unit_fall", name, other] for name, other in
             (("data_of_neurons", ""), ("random_instances", "data_of_neurons"))]  # fmt: skip
    difference = found["unit_fall_difference", "data_of_neurons", "random_instances"]
    assert difference == pytest.approx(falls[0] - falls[1], abs=1e-5)

    cells = sorted((command.folder / "outputs" / "store" / "retrain").glob("*/predictions.safetensors"))
    assert len(cells) == 12
    own = load_own_cell(cells, done.folder)
    again = command(*ASKED)
    assert "computed" not in [line for line in again.out.splitlines() if "unit_retraining: fit" in line]
    assert results(again.folder) == found
    # the fit with the run's own seed and all rows is the run's own fit: same initial weights, same order
    expected = contributions_of_the_run(done.folder)
    assert any(torch.allclose(cell, expected, rtol=1e-3, atol=1e-5) for cell in own)


def load_own_cell(cells: list[Path], run: Path) -> list[torch.Tensor]:
    """Contributions of all fits, NaN left out."""
    found = [load_file(cell)["contribution"].flatten() for cell in cells]
    return [values[~values.isnan()] for values in found]


def contributions_of_the_run(run: Path) -> torch.Tensor:
    """Of the chosen pairs in the run's own model, by plain forwards."""
    from twinlens.attribution.evaluation.ground_truth.unit_retraining import UnitRetraining
    from twinlens.callbacks.attribute.unit_score_files import read_units

    tokenizer = load_tokenizer(str(run / "model"))
    labels = ["a", "b", "c"]
    model = TextClassifier("tiny", labels, tokenizer, path=str(run / "model"), as_it_is=True).eval()
    units, *_ = read_units(run / "scores" / "data_of_neurons" / "test")
    units = units.at(UnitRetraining(units=2).chosen(units))
    examples = datasets.load_from_disk(str(run / "examples" / "test"))
    order = sorted(range(len(units)), key=lambda pair: (int(units.index[pair]), pair))
    found = []
    for pair in order:
        row = examples[int(units.index[pair])]
        ids = torch.tensor(row["input_ids"])[None]
        alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        block = model.backbone.layers[int(units.layer[pair])]
        unit = int(units.unit[pair])
        with torch.no_grad():
            found.append(
                contribution(
                    lambda alone=alone, row=row: model(alone).double().log_softmax(-1)[0, row["prediction"]],
                    block.mlp.dense_4h_to_h,
                    (unit, unit + 1),
                )
            )
    return torch.stack(found)


def test_places_count_the_pairs_of_an_example() -> None:
    place, rows = places_of(torch.tensor([4, 1, 4, 4, 0]))
    assert place.tolist() == [0, 0, 1, 2, 0]
    assert rows.tolist() == [0, 1, 4]
