"""Predict passes: gradients stay possible, damaged or missing shards alone are computed, order is restored."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from twinlens.callbacks.passes import predict_pass, progress
from twinlens.callbacks.passes.predict_pass import TrainerFactory, index_loader, run_pass, run_shards
from twinlens.callbacks.passes.shards import index_shards, read_shard, shard_path, write_shard

TRAINERS = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))


def test_index_shards_cover_every_row_once() -> None:
    assert index_shards(5, 2) == [[[0, 1]], [[2, 3]], [[4]]]


def test_gradients_are_possible_and_parameters_come_back_trainable(tmp_path: Path) -> None:
    model = nn.Linear(1, 1).train()

    def compute(batch):
        assert not torch.is_inference_mode_enabled()
        assert not model.training
        with torch.enable_grad():
            point = batch["index"].float().requires_grad_()
            (slope,) = torch.autograd.grad((point**2).sum() + model(point[:, None]).sum(), point)
        return {"index": batch["index"], "slope": slope}

    result = run_pass("squares", model, compute, index_shards(7, 3), index_loader, tmp_path, TRAINERS)
    expected = 2 * torch.arange(7).float() + model.weight.item()
    assert torch.allclose(result.rows["slope"], expected)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_only_missing_shards_are_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def compute(batch):
        seen.extend(batch["index"].tolist())
        return {"index": batch["index"], "double": 2 * batch["index"]}

    shards = [[[4, 1], [0]], [[3, 2]], [[5]]]
    first = run_pass("double", nn.Identity(), compute, shards, index_loader, tmp_path, TRAINERS)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    seen.clear()
    shard_path(tmp_path, 1).unlink()
    again = run_pass("double", nn.Identity(), compute, shards, index_loader, tmp_path, TRAINERS)
    assert sorted(seen) == [2, 3]
    assert "2 of 3 shards are there" in capsys.readouterr().out
    assert torch.equal(first.rows["double"], again.rows["double"])
    assert again.rows["double"].tolist() == [0, 2, 4, 6, 8, 10]


def test_a_pass_that_fails_keeps_its_finished_shards(tmp_path: Path) -> None:
    def compute(batch):
        if 2 in batch["index"]:
            raise RuntimeError("out of luck")
        return {"index": batch["index"]}

    with pytest.raises(RuntimeError, match="out of luck"):
        run_pass("doomed", nn.Identity(), compute, index_shards(4, 1), index_loader, tmp_path, TRAINERS)
    assert [shard_path(tmp_path, number).is_file() for number in range(4)] == [True, True, False, False]


class SecondOfTwo(Trainer):
    """What the second of two processes knows of itself, in this one."""

    global_rank = property(lambda self: 1)
    world_size = property(lambda self: 2)


def test_a_process_without_a_shard_computes_one_and_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all processes meet within a computation, one that stayed away would be waited for for ever."""
    monkeypatch.setattr(predict_pass, "watch_processes", lambda trainer: None)  # there is no first one to watch
    seen: list[int] = []

    def compute(batch):
        seen.extend(batch["index"].tolist())
        return {"index": batch["index"]}

    second = TrainerFactory(partial(SecondOfTwo, accelerator="cpu", devices=1))
    for shards, own in (([[[0, 1]]], []), ([[[0, 1]], [[2]]], [1])):
        seen.clear()
        run_shards("few", nn.Identity(), compute, shards, index_loader, tmp_path / str(len(shards)), second)
        assert seen == ([2] if own else [0, 1])
        assert [shard_path(tmp_path / str(len(shards)), n).is_file() for n in range(2)] == [False, bool(own)]


def test_one_tensor_under_two_names_is_written_twice(tmp_path: Path) -> None:
    none = torch.full((2, 3), -1)
    write_shard(tmp_path, 0, {"unit": none, "position": none, "index": torch.arange(2)})
    found = read_shard(tmp_path, 0)
    assert found is not None
    assert found["unit"].equal(none)
    assert found["position"].equal(none)


def test_the_bar_of_a_terminal_shows_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    model, work = nn.Identity(), lambda batch: {"index": batch["index"]}
    run_pass("squares", model, work, index_shards(7, 3), index_loader, tmp_path, TRAINERS)
    assert re.search(r"squares: 100%.*3/3 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+batch/s", capsys.readouterr().out)
