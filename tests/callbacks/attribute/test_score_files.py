"""Stored tables come back as tensors, in whatever blocks they are read."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch

from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.callbacks.attribute import score_files as score_tables
from twinlens.callbacks.attribute.score_files import (
    instance_table,
    neuron_table,
    read_best_instances,
    read_neuron_lists,
)
from twinlens.callbacks.report.neuron_names import unit_name


@pytest.mark.parametrize(("at_once", "length"), [(1, 2), (2, 3), (100, 5)])
def test_lists_of_any_length_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, length: int
) -> None:
    layer = torch.tensor([[0, 1, 2], [1, -1, -1], [-1, -1, -1], [2, 0, -1]], dtype=torch.int32)
    unit = torch.where(layer >= 0, 7 * layer + 1, -1)
    score = torch.where(layer >= 0, 1.0 / (2 + layer), 0.0)
    rows = {"layer": layer, "unit": unit, "score": score, "index": torch.arange(4), "target": torch.zeros(4)}
    table = neuron_table({**rows, "target_prob": torch.ones(4)})
    datasets.Dataset(table).save_to_disk(str(tmp_path / "neurons"))
    monkeypatch.setattr(score_tables, "ROWS_READ_AT_ONCE", at_once)
    lists = read_neuron_lists(tmp_path / "neurons", length, n_layers=3, n_neurons=20, n_attention=0)
    wide = torch.nn.functional.pad
    assert torch.equal(lists.layer, wide(layer, (0, 2), value=-1)[:, :length])
    assert torch.equal(lists.unit, wide(unit, (0, 2), value=-1)[:, :length])
    assert torch.equal(lists.score, wide(score, (0, 2))[:, :length])
    assert lists.layer.dtype == lists.unit.dtype == torch.int32


def test_the_best_instances_are_as_many_as_there_are(tmp_path: Path) -> None:
    index, score = torch.tensor([[4, 2, 0], [1, 3, 5]]), torch.tensor([[3.0, 2.0, -1.0], [2.0, 1.0, -torch.inf]])
    table = instance_table(InstanceScores(torch.arange(2), index, score, index.flip(1), score.flip(1)))
    datasets.Dataset(table).save_to_disk(str(tmp_path / "instances"))
    for length, kept in ((2, 2), (100, 3)):
        top_index, top_score = read_best_instances(tmp_path / "instances", length)
        assert torch.equal(top_index, index[:, :kept])
        assert torch.equal(top_score, score[:, :kept])


def test_lists_of_a_mixture_name_the_expert_as_the_report_does(tmp_path: Path) -> None:
    """Layer 0 is dense; layer 1 has 4 experts of 10 units and a shared one; the third entry is an attention neuron."""
    places = ExpertPlaces(frozenset({1}), routed=4, units=10, shared=15)
    layer, unit = torch.tensor([[0, 1, 1, 1, -1]]), torch.tensor([[33, 33, 7, 52, -1]])
    site, score = torch.tensor([[0, 0, 1, 0, 0]]), torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0]])
    rows = {"layer": layer, "unit": unit, "score": score, "site": site, "index": torch.arange(1)}
    rows |= {"target": torch.zeros(1), "target_prob": torch.ones(1)}
    assert "expert" not in neuron_table(rows).column_names
    assert "expert" not in neuron_table(rows, unit_kind="head", experts=places).column_names
    table = neuron_table(rows, experts=places)
    (row,) = table.to_pylist()
    assert (row["expert"], row["expert_unit"]) == ([-1, 3, -1, 4], [-1, 3, -1, 12])
    settings = {"experts": places.described()}
    names = [unit_name(settings, row, entry, "neuron") for entry in range(4)]
    assert names == ["33", "expert 3 · unit 3", "7", "shared expert · unit 12"]
    datasets.Dataset(table).save_to_disk(str(tmp_path / "neurons"))
    lists = read_neuron_lists(tmp_path / "neurons", 5, n_layers=2, n_neurons=55, n_attention=8)
    assert lists.unit.tolist() == [[33, 33, 62, 52, -1]]
