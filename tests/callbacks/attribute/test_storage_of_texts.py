"""Stored gradients of texts: in three forms, of long documents window by window, and gone on with after kills."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml

from tests.faults.starting import start
from tests.running import CommandLine, Finished
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.layout import row_layout
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.storage import form_of
from twinlens.callbacks.attribute.stored_gradient_pass import BatchGradients, kept_arrays
from twinlens.callbacks.store.row_files import RowFiles

BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.queries=q.jsonl", "fit=false", "evaluation=[]",
        "trainer.accelerator=cpu", "logger=none", "method=[gradsim_cosine]", "method.gradsim_cosine.params=all",
        "method.gradsim_cosine.projection=random")  # fmt: skip
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris."},
    {"prompt": "Snow is", "completion": " white"},
]
WORDS = ("Paris", "Rome", "grass", "green", "sky", "blue", "June", "May", "two", "four", "snow", "white")
METHOD = "method.gradsim_cosine"


def write(folder: Path, documents: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, rows in (("docs", [{"text": text} for text in documents]), ("q", QUERIES)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def short_documents(count: int) -> list[str]:
    """Different texts of a few words each."""
    draw = np.random.default_rng(0)
    return [f"{number} " + " ".join(draw.choice(WORDS, size=draw.integers(2, 6))) for number in range(count)]


def lists(run: Finished) -> tuple[np.ndarray, np.ndarray]:
    assert run.code == 0, run.err
    return lists_in(run.folder)


def lists_in(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = datasets.load_from_disk(str(folder / "scores" / "gradsim_cosine" / "test")).with_format("numpy")
    return rows["top_index"][:], rows["top_score"][:]


def described(run: Finished) -> dict[str, object]:
    return yaml.safe_load((run.folder / "scores" / "gradsim_cosine" / "method.yaml").read_text())


@pytest.mark.long
def test_forms_of_stored_rows(command: CommandLine) -> None:
    """Dense is the default, each form has an entry of its own, tests are shared, and method.yaml says what is kept."""
    write(command.folder, short_documents(40))
    plain = command(base=BASE)
    dense = command(f"{METHOD}.storage=dense", base=BASE)
    assert "gradsim_cosine: read from the store" in dense.out
    assert (described(dense)["storage"], "storage_kept_share" in described(dense)) == ("dense", False)
    bytes_of = {"dense": described(dense)["storage_bytes_per_row"]}
    for storage, agreement in (("half", 1 - 1e-3), ("factored", 0.9)):
        run = command(f"{METHOD}.storage={storage}", base=BASE)
        held = [RowFiles(file.parent) for file in command.folder.glob("outputs/store/gradients/*/rows.json")]
        assert len([files for files in held if files.n_rows == len(QUERIES)]) == 1, "tests are stored once"
        said = described(run)
        assert said["storage"] == storage
        assert f"storage={storage} keeps {said['storage_kept_share']:.4f} of their squared length" in run.out
        assert said["storage_kept_share"] > agreement - 0.1  # type: ignore[operator]
        bytes_of[storage] = said["storage_bytes_per_row"]
        for found, expected in zip(by_row(lists(run)), by_row(lists(plain)), strict=True):
            assert np.corrcoef(found, expected)[0, 1] > agreement
    assert bytes_of["half"] < 0.52 * bytes_of["dense"]  # type: ignore[operator]
    assert bytes_of["factored"] <= bytes_of["dense"] / 8  # type: ignore[operator]


def by_row(found: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Scores of each test in the order of the documents, all of which its list names."""
    return [score[index.argsort()] for index, score in zip(*found, strict=True)]


@pytest.mark.long
@pytest.mark.parametrize("per", ["example", pytest.param("token", marks=pytest.mark.long)])
def test_long_documents_go_through_the_model_a_few_windows_at_a_time(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, per: str
) -> None:
    """Scores are those of all windows at once; what the model reads at a time stays within the budget."""
    write(command.folder, [" ".join(short_documents(60)), "Snow is white.", " ".join(short_documents(25))])
    base = (*BASE, "data.max_length=24", f"{METHOD}.per={per}", f"{METHOD}.projection_dim=4")
    seen: list[int] = []
    whole = BatchGradients._of_sequences

    def counting(self: BatchGradients, batch: dict) -> object:  # type: ignore[type-arg]
        if self.whole_texts:
            seen.append(batch["input_ids"].numel())
        return whole(self, batch)

    monkeypatch.setattr(BatchGradients, "_of_sequences", counting)
    at_once = command("paths.store=whole", base=base)
    expected, most = lists(at_once), max(seen)
    seen.clear()
    few = command("paths.store=few", "memory_budget=1MiB", base=base)
    assert max(seen) < most / 4
    assert max(seen) % 24 == 0
    for found, wanted in zip(by_score(lists(few)), by_score(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    plans = [command("plan=true", f"paths.store={budget}", f"memory_budget={budget}", base=base).out
             for budget in ("1MiB", "4GiB")]  # fmt: skip
    assert planned(plans[0]) < planned(plans[1]) / 4


def by_score(found: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    return [np.sort(score) for score in found[1]]


def planned(out: str) -> float:
    """MiB of working memory in the plan's line of the method."""
    found = re.search(rf"^{METHOD.split('.')[1]} .*? ([\d.]+) MiB +[\d.]+ MiB  cpu", out, re.MULTILINE)
    assert found is not None, out
    return float(found[1])


@pytest.mark.parametrize("storage", ["half", "factored"])
def test_a_number_that_a_form_cannot_say_is_refused_by_its_row(storage: Storage) -> None:
    layout = row_layout(["layer"], [(2, 2)])
    rows = [torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, torch.nan, 3.0, 4.0]])]
    kept_arrays(form_of(storage, 1), layout, 1, [rows[0][:1]], [5], "train")
    with pytest.raises(UserError, match=r"A gradient of train is NaN or infinite for 1 example\(s\) \(index 9\)"):
        kept_arrays(form_of(storage, 1), layout, 1, rows, [5, 9], "train")
    kept_arrays(form_of("dense", 1), layout, 1, rows, [5, 9], "train")  # float32 shows it as a score


@pytest.mark.long
def test_rows_of_texts_killed_twice_equal_one_uninterrupted_run(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(command.folder, short_documents(400))
    base = (*BASE, f"{METHOD}.storage=factored", "data.eval_batch_size=16")
    whole = command("paths.store=whole", base=base)
    expected = lists(whole)
    write_rows = RowFiles.write
    for point in (5, 14):
        calls = [0]

        def killed(self: RowFiles, *given: object, calls: list[int] = calls, point: int = point) -> None:
            calls[0] += 1
            if calls[0] == point:
                raise KeyboardInterrupt
            write_rows(self, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(RowFiles, "write", killed)
        assert command("paths.store=broken", base=base).code == 130
    monkeypatch.setattr(RowFiles, "write", write_rows)
    resumed = command("paths.store=broken", base=base)
    assert "shards are there, going on" in resumed.out
    for found, wanted in zip(lists(resumed), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert described(resumed)["storage_kept_share"] == described(whole)["storage_kept_share"]


@pytest.mark.long
@pytest.mark.parametrize("storage", ["dense", "half", "factored"])
def test_twenty_thousand_rows_killed_at_ten_points_equal_one_uninterrupted_run(tmp_path: Path, storage: str) -> None:
    """SIGKILL at ten numbers of finished shards; lists and scores are the same to the last bit."""
    write(tmp_path, short_documents(20_000))
    asked = (*BASE, f"{METHOD}.storage={storage}", f"{METHOD}.projection_dim=8")
    whole = start(tmp_path, *asked, "paths.store=whole", "hydra.run.dir=whole_run")
    assert whole.wait() == 0, (tmp_path / "err").read_text()
    again = (*asked, "paths.store=broken", "hydra.run.dir=broken_run")
    n_shards = -(-20_000 // 256)
    for point in np.linspace(2, n_shards - 4, 10).astype(int).tolist():
        run = start(tmp_path, *again)
        while len(list(tmp_path.glob("broken/gradients/*.partial/shards/shard_*.safetensors"))) < point:
            assert run.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()
    last = start(tmp_path, *again)
    assert last.wait() == 0
    for found, wanted in zip(lists_in(tmp_path / "broken_run"), lists_in(tmp_path / "whole_run"), strict=True):
        assert np.array_equal(found, wanted)
