"""Checkpoints of a killed fit: gone on from where they are as they were written, else the fit starts over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from twinlens.callbacks.fit.checkpoints import SUMS, WholeCheckpointIO, last_checkpoint
from twinlens.callbacks.store.checksums import CHECKS, note_checksums


def written(folder: Path, epochs: int = 2) -> Path:
    """Two checkpoints, and as many kept epochs."""
    for name in ("best.ckpt", "last.ckpt"):
        for _ in range(2):
            state = {"state_dict": {"weight": torch.ones(64)}, "epoch": epochs - 1}
            WholeCheckpointIO().save_checkpoint(state, folder / "checkpoints" / name)
    for number in range(1, epochs + 1):
        epoch = folder / "epochs" / str(number)
        epoch.mkdir(parents=True)
        (epoch / "model.safetensors").write_bytes(bytes(100))
        note_checksums(epoch)
    return folder / "checkpoints"


def flip(file: Path) -> None:
    before, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_sound_ones_are_gone_on_from(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert last_checkpoint(folder, tmp_path / "epochs") == folder / "last.ckpt"


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_flipped_bit_under_the_old_time_starts_the_fit_over(tmp_path: Path, name: str) -> None:
    folder = written(tmp_path)
    flip(folder / name)
    assert last_checkpoint(folder) is None
    assert not folder.exists()


def test_a_kept_epoch_that_is_missing_or_changed_starts_the_fit_over(tmp_path: Path) -> None:
    for number, harm in enumerate((lambda file: flip(file), lambda file: file.unlink())):
        folder = written(tmp_path / str(number))
        harm(tmp_path / str(number) / "epochs" / "1" / "model.safetensors")
        assert last_checkpoint(folder, tmp_path / str(number) / "epochs") is None
        assert not (tmp_path / str(number) / "epochs").exists()
    folder = written(tmp_path / "unnoted")
    (tmp_path / "unnoted" / "epochs" / "2" / CHECKS).unlink()
    assert last_checkpoint(folder, tmp_path / "unnoted" / "epochs") is None


@pytest.mark.parametrize("content", ["", "[]", '{"last.ckpt": 3}', '{"last.ckpt": ["x"]}', "\0"])
def test_checksums_that_cannot_be_read_start_the_fit_over_and_are_written_anew(tmp_path: Path, content: str) -> None:
    folder = written(tmp_path)
    (folder / SUMS).write_text(content)
    WholeCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 0}, folder / "last.ckpt")
    assert last_checkpoint(folder) is None  # of the best one nothing is known any more


def test_a_kill_between_checksum_and_renaming_leaves_the_old_one_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("twinlens.callbacks.fit.checkpoints.put", lambda partial, path: None)
        WholeCheckpointIO().save_checkpoint({"state_dict": {}, "epoch": 2}, folder / "last.ckpt")
    assert last_checkpoint(folder) == folder / "last.ckpt"
