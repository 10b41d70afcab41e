"""`data.eval_batch_size=auto`: the largest batch that fits is found once, remembered, and changes no score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.utilities import rank_zero_only

from tests.callbacks.attribute.layer_case import LENGTHS, Rows, session_of
from tests.running import CommandLine
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.predict import batch_size
from twinlens.callbacks.predict.batch_size import (
    AT_MOST,
    batch_size_stage,
    device_name,
    largest,
    planned_batch_size,
    predict_copies,
    search_of,
)
from twinlens.callbacks.store.store import Store

SPLITS = ("train", "test")
READOUTS = ("classification", "choice", "token")


def auto_session(folder: Path, readout: Any = "classification") -> Session:
    """A session whose data leave the batch size open."""
    data: Any = Rows(readout)
    session = session_of(folder, data)
    data.eval_batch_size = "auto"
    return session


@pytest.fixture
def second_process() -> Iterator[None]:
    rank_zero_only.rank = 1
    yield
    rank_zero_only.rank = 0


@given(at_most=st.integers(1, 3000), limit=st.integers(0, 3000))
def test_the_largest_is_the_last_double_that_fits(at_most: int, limit: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count <= limit

    sizes = sorted({min(2**power, at_most) for power in range(13)})
    expected = max([size for size in sizes if size <= limit], default=1)
    assert largest(at_most, fits) == expected
    assert sum(count > limit for count in asked) <= 1, "one step too far at the most"


@pytest.mark.parametrize("readout", READOUTS)
def test_on_a_cpu_the_counted_peak_decides(tmp_path: Path, readout: str, capsys: pytest.CaptureFixture[str]) -> None:
    session = auto_session(tmp_path, readout)
    each = prediction_need(session.footprint, session.sequences).least(max(map(max, LENGTHS.values())))
    for budget, expected in ((each // 2, 1), (each, 1), (4 * each, 4), (8 * each - 1, 4), (10**6 * each, 13)):
        session.memory_budget = budget
        batch_size_stage(session, SPLITS)
        assert session.eval_batch_size == session.found_batch_size == expected
        assert f"eval_batch_size={expected}: found on cpu\n" in capsys.readouterr().out
        again = replace(session, found_batch_size=None, store=Store(session.store.root))
        batch_size_stage(again, SPLITS)
        assert again.eval_batch_size == expected
        assert f"eval_batch_size={expected}: read from the store\n" in capsys.readouterr().out


def test_no_more_than_a_bound(tmp_path: Path) -> None:
    session = auto_session(tmp_path)
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2]] * (AT_MOST + 500)})
    session.data.splits["train"] = rows
    search = search_of(session, session.footprint, SPLITS, session.trainers.for_pass([]))
    assert (search.at_most, search.longest, search.split, search.row) == (AT_MOST, 7, "test", 1)


def test_a_given_number_is_kept_and_nothing_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = session_of(tmp_path, Rows("classification"))
    capsys.readouterr()
    batch_size_stage(session, SPLITS)
    assert session.eval_batch_size == 3
    assert capsys.readouterr().out == ""
    assert not (session.store.root / batch_size.STAGE).exists()


def test_what_decides_is_what_it_is_remembered_by(tmp_path: Path) -> None:
    session = auto_session(tmp_path)
    trainer = session.trainers.for_pass([])
    search = search_of(session, session.footprint, SPLITS, trainer)
    wider = replace(search.footprint, hidden_size=2 * search.footprint.hidden_size)
    found = [
        search.inputs(session),
        replace(search, device="another").inputs(session),
        replace(search, footprint=wider).inputs(session),
        replace(search, longest=99).inputs(session),
        search.inputs(replace(session, memory_budget=1)),
        search.inputs(replace(session, trainers=replace(session.trainers, precision="bf16-mixed"))),
    ]
    assert all(found[0] != other for other in found[1:])
    # the examples themselves do not matter
    assert replace(search, row=1, split="test").inputs(session) == found[0]


@pytest.mark.parametrize("readout", READOUTS)
def test_a_plan_counts_the_same_and_reads_what_a_run_has_found(
    tmp_path: Path, readout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session = auto_session(tmp_path, readout)
    model: Any = session.readable
    planned = replace(session, model=None)
    footprint = shape_of(model.lm).footprint
    counted = planned_batch_size(planned, footprint, SPLITS)
    assert f"eval_batch_size={counted}: counted for cpu\n" in capsys.readouterr().out
    assert not (session.store.root / batch_size.STAGE).exists()
    batch_size_stage(session, SPLITS)
    assert session.found_batch_size == counted == planned_batch_size(planned, footprint, SPLITS)
    assert f"eval_batch_size={counted}: read from the store\n" in capsys.readouterr().out


def test_other_processes_take_the_number_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rank_zero_only.rank = 0
    session = auto_session(tmp_path)
    monkeypatch.setattr(batch_size, "_find", lambda *_: 5)
    batch_size_stage(session, SPLITS)
    rank_zero_only.rank = 1
    capsys.readouterr()
    monkeypatch.setattr(batch_size, "_find", lambda *_: pytest.fail("another process decides by itself"))
    other = replace(session, found_batch_size=None, store=Store(session.store.root))
    batch_size_stage(other, SPLITS)
    assert other.eval_batch_size == 5
    assert capsys.readouterr().out == ""


def test_shards_hold_the_same_rows_whatever_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlens.callbacks.passes.shards.SHARDS_AT_LEAST", 3)
    session = auto_session(tmp_path)
    rows_of = []
    for number in (1, 2, 4, 8):
        session.found_batch_size = number
        shards = session.shards("train")
        assert max(len(batch) for shard in shards for batch in shard) == min(number, 5)
        rows_of.append([[row for batch in shard for row in batch] for shard in shards])
    assert all(rows == rows_of[0] for rows in rows_of)


def test_processes_of_several_machines_agree_on_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer(first: torch.device, own: int, machines: int = 1) -> Any:
        devices = [first, torch.device(first.type, 1)]
        return SimpleNamespace(
            strategy=SimpleNamespace(parallel_devices=devices, root_device=devices[own]), num_nodes=machines
        )

    cards = {0: "first card", 1: "second card"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: cards[device.index])
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu", 0)
    assert device_name(trainer(cuda, 0)) == device_name(trainer(cuda, 1)) == "first card"
    assert device_name(trainer(cuda, 1, 2)) == "cuda of 2 machines"
    assert device_name(trainer(cpu, 1)) == "cpu"
    assert device_name(SimpleNamespace(strategy=SimpleNamespace(root_device=cpu), num_nodes=1)) == "cpu"  # type: ignore[arg-type]


# -- trials on a device ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", READOUTS)
def test_a_trial_predicts_copies_of_the_longest_example(tmp_path: Path, readout: str) -> None:
    session = auto_session(tmp_path, readout)
    trainer = session.trainers.for_pass([])
    search = search_of(session, session.footprint, SPLITS, trainer)
    assert (search.split, search.row) == ("train", 7 if readout != "choice" else search.row)
    prob = predict_copies(session, search, trainer, 3)
    assert prob.shape[0] == 3
    assert not prob.requires_grad
    [batch] = session.loader(search.split)([[search.row]])
    model: Any = session.readable
    with torch.no_grad():
        expected = model.scores(model.features(batch)).softmax(-1)
    torch.testing.assert_close(prob, expected.expand_as(prob), rtol=1e-5, atol=1e-7)


class Device:
    """A CUDA device of 100 bytes free where every example takes 10 and the forward of more than `breaks_at` fails."""

    def __init__(self, breaks_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak, self.breaks_at, self.tried = 0, breaks_at, list[int]()
        self.moves: list[str] = []
        functions = {
            "empty_cache": lambda: None,
            "reset_peak_memory_stats": lambda device: None,
            "mem_get_info": lambda device: (100, 1000),
            "memory_reserved": lambda device: 7,
            "max_memory_reserved": lambda device: 7 + self.peak,
        }
        for name, function in functions.items():
            monkeypatch.setattr(torch.cuda, name, function)
        monkeypatch.setattr(batch_size, "predict_copies", self.forward)
        parameter = SimpleNamespace(device=torch.device("cpu"))
        self.model = SimpleNamespace(parameters=lambda: iter([parameter]), to=self.move)

    def move(self, device: torch.device) -> str:
        self.moves.append(device.type)
        return "moved"

    def forward(self, session: Session, search: Any, trainer: Any, count: int) -> str:
        self.tried.append(count)
        if count > self.breaks_at:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.peak = 10 * count
        return "done"


@pytest.mark.parametrize(
    ("breaks_at", "budget", "at_most", "expected", "tried"),
    [
        (1000, 10**9, 1000, 8, [2, 4, 8, 16]),  # 16 examples would take more than the share of 100 bytes
        (5, 10**9, 1000, 4, [2, 4, 8]),  # out of memory at 8, one step back
        (0, 10**9, 1000, 1, [2]),
        (1000, 4, 1000, 4, [2, 4]),  # the counted peak is within the budget up to 4
        (1000, 10**9, 3, 3, [2, 3]),
    ],
)
def test_on_a_cuda_device_trials_decide_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaks_at: int,
    budget: int,
    at_most: int,
    expected: int,
    tried: Any,
) -> None:
    device = Device(breaks_at, monkeypatch)
    model: Any = device.model
    session: Any = SimpleNamespace(memory_budget=budget, readable=model)
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    footprint: Any = None
    search = batch_size.Search("a card", footprint, 1, "train", 0, 9, at_most)
    assert batch_size._find(session, search, trainer) == expected
    assert device.tried == tried
    assert device.moves == ["cuda", "cpu"], "the model goes back where it was"


# -- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_scores_do_not_depend_on_it(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "twinlens.callbacks.passes.shards.SHARDS_AT_LEAST", 1
    )  # a shard ends a batch: let these reach their size
    first = command("method=[ig,gradsim]", "evaluation=accuracy", "data.eval_batch_size=auto")
    assert first.code == 0, first.err
    assert first.out.count("eval_batch_size=48: found on cpu") == 1
    trained = ("fit=false", "model=local", f"model.path={first.folder / 'model'}", "method=[ig,gradsim]")
    expected = scores_of(first.folder)
    for size in (1, 8):
        other = command(*trained, "evaluation=accuracy", f"data.eval_batch_size={size}", f"paths.store=store{size}")
        assert other.code == 0, other.err
        assert "ig: computed" in other.out
        assert "eval_batch_size" not in other.out
        for found, wanted in zip(scores_of(other.folder), expected, strict=True):
            # inner products near zero are differences of large numbers
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
    # what one number has computed, another reads
    again = command("method=[ig,gradsim]", "evaluation=accuracy", "data.eval_batch_size=auto", "memory_budget=1MiB")
    assert again.code == 0, again.err
    assert "eval_batch_size=48" not in again.out
    assert "found on cpu" in again.out
    assert "computed" not in again.out
    planned = command("plan=true", "evaluation=accuracy", "data.eval_batch_size=auto")
    assert planned.code == 0, planned.err
    assert planned.out.startswith("eval_batch_size=48: read from the store\n")


def scores_of(folder: Path) -> list[np.ndarray]:
    """Probabilities, neuron scores and instance scores."""
    columns = {"examples/test": "prob", "scores/ig/test": "score", "scores/gradsim/test": "top_score"}
    return [
        np.asarray(datasets.load_from_disk(str(folder / name))[column][:], dtype=float)
        for name, column in columns.items()
    ]
