"""Shards: whole or not at all, checked when opened, merged in the order of index."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from twinlens.callbacks.passes.shards import (
    ADDED_UP,
    PARTIAL_SUMS,
    concatenated,
    merge_shards,
    missing_shards,
    read_shard,
    shard_path,
    shard_sums,
    write_shard,
)


def fill(folder: Path) -> None:
    for number, rows in enumerate([[3, 1], [0, 2], [5, 4]]):
        index = torch.tensor(rows)
        write_shard(
            folder,
            number,
            {"index": index, "value": index.float() * 10, f"{PARTIAL_SUMS}sum": index.sum()[None]},
        )


def test_merged_by_index_with_partial_sums_per_shard(tmp_path: Path) -> None:
    fill(tmp_path)
    rows, partials = merge_shards(tmp_path, 3)
    assert rows["index"].tolist() == [0, 1, 2, 3, 4, 5]
    assert rows["value"].tolist() == [0, 10, 20, 30, 40, 50]
    assert [part["sum"].item() for part in partials] == [4, 2, 9]
    assert not list(tmp_path.glob(".*partial"))


def test_truncated_and_altered_shards_are_named_and_redone_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    first, second = shard_path(tmp_path, 0), shard_path(tmp_path, 1)
    first.write_bytes(first.read_bytes()[:-7])
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    assert missing_shards(tmp_path, 4) == [0, 1, 3]
    told = capsys.readouterr().out
    assert str(first) in told
    assert str(second) in told
    assert read_shard(tmp_path, 2) is not None
    with pytest.raises(FileNotFoundError):
        merge_shards(tmp_path, 3)


def test_batches_of_a_shard_become_one() -> None:
    batches = [
        {"index": torch.tensor([1]), "x": torch.ones(1, 2)},
        {"index": torch.tensor([2]), "x": torch.zeros(1, 2)},
    ]
    merged = concatenated(batches)
    assert merged["index"].tolist() == [1, 2]
    assert merged["x"].shape == (2, 2)


def test_what_is_added_up_takes_no_more_room_with_more_batches(tmp_path: Path) -> None:
    batches = [{"index": torch.tensor([n]), f"{ADDED_UP}squares": torch.tensor([[n, n * n]])} for n in range(6)]
    for number in range(2):
        write_shard(tmp_path, number, concatenated(batches[3 * number : 3 * number + 3]))
        found = read_shard(tmp_path, number)
        assert found is not None
        assert found[f"{ADDED_UP}squares"].shape == (1, 2)
    assert shard_sums(tmp_path, 2)["squares"].tolist() == [15, 55]
    with pytest.raises(FileNotFoundError):
        shard_sums(tmp_path, 3)
