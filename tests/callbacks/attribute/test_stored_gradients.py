"""Stored gradients: shared by methods, gone on with after a kill, mended row by row, the same for any process count."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.running import SMALLER_MODEL, CommandLine, Finished, once, run_here
from twinlens.callbacks.store.row_files import RowFiles

SMALL = ("data.limit.train=48", "data.limit.test=12", "data.n_train=60", "data.n_validation=10", "data.n_test=20",
         "data.n_twins=2", "logger=none", "evaluation=accuracy")  # fmt: skip


def layers(name: str, *more: str) -> list[str]:
    settings = {"params": "all", "projection": "random", "projection_dim": "6"} | dict(item.split("=") for item in more)
    return [f"method={name}", *(f"method.{name}.{key}={value}" for key, value in settings.items())]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments that read a trained model."""
    asked = (
        "method=[]",
        "trainer.max_epochs=1",
        *SMALL,
        *SMALLER_MODEL,
        "trainer.accelerator=cpu",
        "hydra.run.dir=run",
    )
    folder = once(tmp_path_factory, "stored_gradients", lambda folder: run_here(folder, *asked))
    return ("fit=false", "model=local", f"model.path={folder / 'run' / 'model'}", "data.eval_batch_size=2", *SMALL)


def lists(finished: Finished, name: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    assert finished.code == 0, finished.err
    rows = datasets.load_from_disk(str(finished.folder / "scores" / name / split)).with_format("numpy")
    return rows["top_index"][:], rows["top_score"][:]


def entries(root: Path, n_rows: int = 48) -> list[Path]:
    """Entries of a split, the train split's by its number of rows, of one row per example."""
    found = [file.parent for file in root.glob("gradients/*/rows.json") if ".partial" not in str(file)]
    return [folder for folder in found if RowFiles(folder).n_rows == n_rows and RowFiles(folder).manifest["rank"] == 1]


def arrays(folder: Path) -> list[Tensor]:
    return [array.clone() for array in RowFiles(folder).map()]


@pytest.mark.long
def test_methods_of_one_kind_share_the_rows(command: CommandLine, model: tuple[str, ...]) -> None:
    store = command.folder / "outputs" / "store"

    def after(*asked: str) -> tuple[Finished, int, int]:
        """A run, and how many entries of rows the store then has of train and of test."""
        run = command(*asked, base=(*model, "trainer.accelerator=cpu"))
        assert run.code == 0, run.err
        sizes = [RowFiles(file.parent).n_rows for file in store.glob("gradients/*/rows.json")]
        return run, sizes.count(48), sizes.count(12)

    assert after(*layers("gradsim"))[1:] == (1, 1)
    assert after(*layers("influence", "curvature=datainf"))[1:] == (1, 1)
    assert after(*layers("influence"))[1:] == (2, 1), "an expectation over the model's labels has rows of its own"
    assert after(*layers("gradsim", "projection_seed=1"))[1:] == (3, 2)
    again, *held = after(*layers("gradsim"))
    assert held == [3, 2]
    assert again.out.count("gradsim: read from the store") == 1


def test_scores_do_not_depend_on_batch_and_padding(command: CommandLine, model: tuple[str, ...]) -> None:
    found = []
    for number, change in enumerate(("data.eval_batch_size=2", "data.eval_batch_size=32", "data.padding_side=left")):
        base = (*model, "trainer.accelerator=cpu", f"paths.store=store{number}", change)
        found.append(lists(command(*layers("influence"), base=base), "influence"))
    for index, score in found[1:]:
        np.testing.assert_allclose(score, found[0][1], rtol=1e-4, atol=1e-5 * np.abs(found[0][1]).max())
        assert (index[:, 0] == found[0][0][:, 0]).all()


def test_a_killed_pass_goes_on_and_mends_what_was_damaged_meanwhile(
    command: CommandLine, model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = (*model, "trainer.accelerator=cpu")
    whole = command(*layers("gradsim"), "paths.store=whole", base=cpu)
    reference = arrays(entries(command.folder / "whole")[0])
    write, calls = RowFiles.write, []

    def killed(self: RowFiles, rows: list[int], values: list[Tensor]) -> None:
        calls.append(rows)
        if len(calls) == 18:
            raise KeyboardInterrupt
        write(self, rows, values)

    monkeypatch.setattr(RowFiles, "write", killed)
    assert command(*layers("gradsim"), "paths.store=broken", base=cpu).code == 130
    monkeypatch.setattr(RowFiles, "write", write)
    partial = next((command.folder / "broken" / "gradients").glob("*.partial"))
    files = RowFiles(partial)
    done = np.flatnonzero(files.written())
    assert 0 < len(done) < 48
    altered, zeroed, unmarked = calls[0][0], calls[2][0], calls[4][1]
    with (partial / "group_000.rows").open("r+b") as opened:
        width = files.widths[0] * 4
        opened.seek(altered * width + 8)
        opened.write(b"\1\2")
        opened.seek(zeroed * width)
        opened.write(bytes(width))
    with (partial / "rows.checks").open("r+b") as opened:
        opened.seek(4 * unmarked)
        opened.write(bytes(4))
    next(partial.glob("shards/shard_000003*")).unlink()
    resumed = command(*layers("gradsim"), "paths.store=broken", base=cpu)
    assert resumed.code == 0, resumed.err
    named = ", ".join(map(str, sorted({altered, zeroed, unmarked})))
    assert f"rows {named} damaged or missing, computed again" in resumed.out
    for found, wanted in zip(arrays(entries(command.folder / "broken")[0]), reference, strict=True):
        assert torch.equal(found, wanted)
    assert np.array_equal(lists(resumed, "gradsim")[0], lists(whole, "gradsim")[0])


def test_damage_in_a_finished_entry_costs_the_damaged_rows_alone(
    command: CommandLine, model: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = (*model, "trainer.accelerator=cpu")
    command(*layers("gradsim"), base=cpu)
    folder = entries(command.folder / "outputs" / "store")[0]
    reference = arrays(folder)
    with (folder / "group_000.rows").open("r+b") as opened:
        opened.seek(RowFiles(folder).widths[0] * 4 * 7)
        opened.write(b"\1\2\3")
    later = (folder / "manifest.json").stat().st_mtime + 5
    os.utime(folder / "group_000.rows", (later, later))
    write, rows = RowFiles.write, []  # type: ignore[var-annotated]
    monkeypatch.setattr(
        RowFiles, "write", lambda self, these, values: (rows.extend(these), write(self, these, values))[1]
    )
    mended = command(*layers("influence", "curvature=identity"), base=cpu)
    assert mended.code == 0, mended.err
    assert "row 7 of its arrays changed" in mended.out
    assert 7 in rows
    assert len(rows) <= 2
    for found, wanted in zip(arrays(entries(command.folder / "outputs" / "store")[0]), reference, strict=True):
        assert torch.equal(found, wanted)
    n_entries, n_written = len(entries(command.folder / "outputs" / "store")), len(rows)
    assert command(*layers("influence", "curvature=datainf"), base=cpu).code == 0
    assert (len(entries(command.folder / "outputs" / "store")), len(rows)) == (n_entries, n_written)
