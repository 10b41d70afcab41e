"""Rows on disk: written in any order by anybody, and damage is found row by row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.callbacks.store.manifest import damage_of, write_manifest
from twinlens.callbacks.store.row_files import RowFiles

WIDTHS = [3, 2]


def filled(folder: Path, n_rows: int = 6) -> RowFiles:
    folder.mkdir(exist_ok=True)
    files = RowFiles.create(folder, n_rows, WIDTHS, {"kind": "test"})
    for rows in ([4, 1], [0, 5], [2, 3]):
        files.write(rows, [torch.tensor(rows)[:, None].expand(-1, width) + 0.5 for width in WIDTHS])
    return files


def overwrite(file: Path, offset: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(content)


def test_rows_come_back_whatever_their_order(tmp_path: Path) -> None:
    files = filled(tmp_path)
    assert files.written().all()
    assert files.damaged() == []
    for array, width in zip(files.map(), WIDTHS, strict=True):
        assert torch.equal(array, torch.arange(6)[:, None].expand(-1, width) + 0.5)


def test_arrays_have_types_of_their_own(tmp_path: Path) -> None:
    values = [torch.tensor([[1, -2], [3, 127]], dtype=torch.int8), torch.tensor([[0.5], [7.0]], dtype=torch.float16)]
    files = RowFiles.create(tmp_path, 2, [2, 1], {}, ["int8", "float16"])
    files.write([1, 0], values)
    assert [file.stat().st_size for file in sorted(tmp_path.glob("*.rows"))] == [4, 4]
    assert files.damaged() == []
    for array, given in zip(RowFiles(tmp_path).map(), values, strict=True):
        assert torch.equal(array, given[[1, 0]])
    overwrite(tmp_path / "group_000.rows", 3, b"\1")
    assert files.damaged() == [1]


def test_what_is_there_outlives_a_second_start(tmp_path: Path) -> None:
    filled(tmp_path)
    again = RowFiles.create(tmp_path, 6, WIDTHS, {})
    assert again.damaged() == []


def test_rows_that_were_never_written_are_named(tmp_path: Path) -> None:
    files = RowFiles.create(tmp_path, 4, WIDTHS, {})
    files.write([2], [torch.zeros(1, width) for width in WIDTHS])
    assert files.written().tolist() == [False, False, True, False]
    assert files.damaged() == [0, 1, 3]


@pytest.mark.parametrize(
    ("name", "offset", "content"),
    [("group_000.rows", 4 * 3 * 2, b"\1"), ("group_001.rows", 4 * 2 * 2, bytes(8)), ("rows.checks", 8, bytes(4))],
)
def test_altered_zeroed_and_unchecked_rows_are_found(tmp_path: Path, name: str, offset: int, content: bytes) -> None:
    files = filled(tmp_path)
    overwrite(tmp_path / name, offset, content)
    assert files.damaged() == [2]


def test_an_entry_names_its_damaged_rows_and_is_not_hashed_as_a_whole(tmp_path: Path) -> None:
    entry = tmp_path / "gradients" / fingerprint_of({})
    entry.parent.mkdir()
    filled(entry)
    write_manifest(entry, "gradients", entry.name, {}, {})
    assert '"xxh3": null' in (entry / "manifest.json").read_text()
    assert damage_of(entry) == ""
    arrays = entry / "group_001.rows"
    arrays.touch()
    assert damage_of(entry) == ""
    before = arrays.stat()
    overwrite(arrays, 4 * 2 * 5, b"\1")
    os.utime(arrays, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert damage_of(entry) == "row 5 of its arrays changed"


def test_a_row_of_another_place_or_entry_is_damaged(tmp_path: Path) -> None:
    values = [torch.ones(2, width) for width in WIDTHS]
    for owner in ("a", "b"):
        (tmp_path / owner).mkdir()
        RowFiles.create(tmp_path / owner, 2, WIDTHS, {"fingerprint": owner}).write([0, 1], values)
    checks = [(tmp_path / owner / "rows.checks").read_bytes() for owner in ("a", "b")]
    assert len({word for check in checks for word in (check[:4], check[4:])}) == 4
    (tmp_path / "a" / "rows.checks").write_bytes(checks[1])
    assert RowFiles(tmp_path / "a").damaged() == [0, 1]


def test_another_folder_takes_sound_arrays_over(tmp_path: Path) -> None:
    filled(tmp_path / "old").adopt(tmp_path)
    assert RowFiles.create(tmp_path, 6, WIDTHS, {}).damaged() == []
