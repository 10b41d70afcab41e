"""An out-of-memory error halves what is computed at a time, once per size, and changes no result."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes.memory import (
    SMALLEST_BUDGET,
    Need,
    WithinMemory,
    attempt,
    is_out_of_memory,
    within_memory,
)

EACH = Need(lambda columns: 10, lambda columns: 10)


def batch_of(n: int) -> dict[str, torch.Tensor]:
    return {"index": torch.arange(n), "input_ids": torch.arange(4 * n).view(n, 4)}


class Device:
    """Fits only so many examples and only so large a budget; remembers what it was asked."""

    def __init__(self, examples: int, budget: int, error: Exception) -> None:
        self.examples, self.budget, self.error = examples, budget, error
        self.asked: list[tuple[int, int]] = []

    def __call__(self, batch, budget):
        self.asked.append((len(batch["index"]), budget))
        if len(batch["index"]) > self.examples or budget > self.budget:
            raise self.error
        return {"index": batch["index"], "sum": batch["input_ids"].sum(1)}


ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to …"),
    RuntimeError("not enough memory: you tried to allocate 8 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_halves_once_per_size_and_gives_the_same(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(2, 1 << 40, error)
    cut = WithinMemory("ig on test", device, 1 << 40, EACH)
    result = cut(batch_of(8))
    assert result["index"].tolist() == list(range(8))
    assert torch.equal(result["sum"], batch_of(8)["input_ids"].sum(1))
    assert device.asked == [(8, 1 << 40), (4, 40), (2, 20), (2, 20), (2, 20), (2, 20)]
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "ig on test: out of memory, going on with memory_budget=40B",
        "ig on test: out of memory, going on with memory_budget=20B",
    ]
    device.asked.clear()
    cut(batch_of(4))
    assert device.asked == [(2, 20), (2, 20)], "the rest of the pass keeps to what fitted"
    assert capsys.readouterr().out == ""


def test_the_budget_alone_cuts_the_batch() -> None:
    device = Device(100, 100, MemoryError())
    WithinMemory("p", device, 35, EACH)(batch_of(8))
    assert [n for n, _ in device.asked] == [3, 3, 2]


def test_chunks_within_one_example_are_halved_before_giving_up(capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(1, 30, MemoryError())
    result = WithinMemory("p", device, 1 << 40, Need(lambda columns: 10, lambda columns: 100))(batch_of(1))
    assert result["sum"].tolist() == [6]
    assert [budget for _, budget in device.asked] == [1 << 40, 50, 25]


def test_a_single_example_that_does_not_fit_is_one_sentence() -> None:
    device = Device(0, 1 << 40, MemoryError())
    with pytest.raises(UserError, match=r"ig on test: one example of 4 tokens \(index 0\).*lower data\.max_length"):
        WithinMemory("ig on test", device, 1 << 40, EACH)(batch_of(3))
    assert [n for n, _ in device.asked] == [3, 1, 1]


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        attempt(lambda: (_ for _ in ()).throw(RuntimeError("shape mismatch")))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_work_in_blocks_halves_its_budget(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    def work(budget: int) -> str:
        tried.append(budget)
        if budget > 3 * SMALLEST_BUDGET:
            raise MemoryError
        return "done"

    assert within_memory("influence", work, 8 * SMALLEST_BUDGET) == ("done", 2 * SMALLEST_BUDGET)
    assert tried == [8 * SMALLEST_BUDGET, 4 * SMALLEST_BUDGET, 2 * SMALLEST_BUDGET]
    assert capsys.readouterr().out.count("influence: out of memory") == 2


def test_work_that_never_fits_is_one_sentence() -> None:
    def work(budget: int) -> None:
        raise MemoryError

    with pytest.raises(UserError, match="influence: the work does not fit"):
        within_memory("influence", work, 1 << 30)


def test_memory_of_a_failed_attempt_is_free_again() -> None:
    import weakref

    kept: list[weakref.ref] = []

    def work() -> None:
        tensor = torch.zeros(10)
        kept.append(weakref.ref(tensor))
        raise MemoryError

    assert attempt(work) is None
    assert kept[0]() is None
