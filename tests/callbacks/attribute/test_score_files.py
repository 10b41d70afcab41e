"""Stored tables come back as tensors, in whatever blocks they are read."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch

from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.callbacks.attribute import score_files as score_tables
from twinlens.callbacks.attribute.score_files import (
    instance_table,
    neuron_table,
    read_best_instances,
    read_neuron_lists,
)


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
