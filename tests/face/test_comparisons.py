"""Two runs side by side: by texts wherever they stand, and what is not comparable is left out or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk

import twinlens
from tests.callbacks.fake_run import FakeRun

N = 6


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeRun(n_train=30, n_test=N, evidence_words=5, list_length=5)
    return fake.write(tmp_path_factory.mktemp("compared") / "run")


def changed(folder: Path, path: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rows of a dataset of a run, written anew."""
    features = load_from_disk(str(folder / path)).features
    rows = change(load_from_disk(str(folder / path)).to_list())
    shutil.rmtree(folder / path)
    Dataset.from_list(rows, features=features).save_to_disk(str(folder / path))


@pytest.fixture(scope="module")
def backwards(written: Path) -> Path:
    """The same run with every row at another place: test examples and train instances count backwards."""
    folder = Path(shutil.copytree(written, written.parent / "backwards"))

    def turned(n: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
        return lambda rows: [{**row, "index": n - 1 - row["index"]} for row in reversed(rows)]

    for split, n in (("test", N), ("train", 30)):
        changed(folder, f"examples/{split}", turned(n))
    for name in ("gradsim", "influence"):
        changed(
            folder, f"scores/{name}/test",
            lambda rows: [
                {**row, "index": N - 1 - row["index"]}
                | {f"{end}_index": [29 - index for index in row[f"{end}_index"]] for end in ("top", "bottom")}
                for row in reversed(rows)
            ],
        )  # fmt: skip
    changed(folder, "scores/ig/test", turned(N))
    return folder


@pytest.fixture
def moved(backwards: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed further."""
    return Path(shutil.copytree(backwards, tmp_path / "moved"))


def test_lists_are_compared_by_texts(written: Path, moved: Path) -> None:
    run = twinlens.open(written)
    for method in ("gradsim", "influence", "ig"):
        lists = run.compare(moved).lists(5)
        own = lists[lists["method"] == method]
        assert list(own["query"]) == list(range(N))
        assert set(own["share"]) == {1.0}
    other = shutil.copytree(moved, moved.parent / "other")
    changed(other, "examples/train", lambda rows: [{**row, "claim": f"new {row['claim']}"} for row in rows])
    lists = run.compare(other).lists(5)
    assert set(lists[lists["method"] == "gradsim"]["shared"]) == {0}
    assert set(lists[lists["method"] == "ig"]["share"]) == {1.0}


def test_what_is_not_compared_is_said(written: Path, moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = twinlens.open(written)
    assert run.compare(run).notes == []
    changed(
        moved, "examples/test", lambda rows: [{**row, "claim": "new"} if row["index"] == 0 else row for row in rows]
    )
    config = json.loads((moved / "model" / "config.json").read_text())
    (moved / "model" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 9}))
    compared = run.compare(moved)
    assert "ig" not in set(compared.lists()["method"])
    assert set(compared.lists()["query"]) == set(range(N - 1))
    compared.show()
    told = capsys.readouterr().out
    assert told.count("note: 1 of the texts that ") == 2
    assert "note: the runs have different models" in told
    assert "different models" in compared._repr_html_()


def test_numbers_of_several_settings_stay_apart(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "settings"))
    header, first, *_ = (folder / "results.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    rows = [{**cells, "setting": setting, "value": value} for setting, value in (("k=1", "0.5"), ("k=2", "0.25"))]
    (folder / "results.csv").write_text("\n".join([header, *(",".join(row.values()) for row in rows)]))
    numbers = twinlens.open(folder).compare(folder).results()
    assert list(numbers["value"]) == [0.5, 0.25]
    assert set(numbers["difference"]) == {0.0}


def test_runs_without_a_text_in_common_are_refused(written: Path, moved: Path) -> None:
    changed(moved, "examples/test", lambda rows: [{**row, "claim": "new"} for row in rows])
    with pytest.raises(twinlens.UserError, match="explain no text in common"):
        twinlens.open(written).compare(moved)
    with pytest.raises(twinlens.UserError, match="first=0 places"):
        twinlens.open(written).compare(written).lists(0)


def test_what_is_no_run_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(twinlens.UserError, match="None is no path"):
        twinlens.open(None)  # type: ignore[arg-type]
    shutil.copytree(written, tmp_path / "sweep" / "0")
    with pytest.raises(twinlens.UserError, match=r"holds 1 run\(s\) and is none itself.*sweep/0"):
        twinlens.open(tmp_path / "sweep")


def test_a_damaged_run_has_a_name(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "damaged"))
    (folder / "scores" / "ig" / "method.yaml").unlink()
    assert "method.yaml is missing" in repr(twinlens.open(folder))
    assert twinlens.open(written).scores.get("igg") is None
    with pytest.raises(twinlens.UserError, match="top=0 entries"):
        twinlens.open(written).show(top=0)
