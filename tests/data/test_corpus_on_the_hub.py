"""A corpus on the hub: the files of a dataset repository, by split where it names them, offline what came before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stand_in_hub import reached_at, serving
from twinlens.attribution.errors import UserError
from twinlens.data.corpus_files import read_corpus
from twinlens.data.data_report import Notes

STORIES = [{"text": "A fox sat on a hill."}, {"text": "It slept."}]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# The card, which is no text of the corpus")
    (folder / "weights.bin").write_text("no text")
    return folder


def texts(path: str, split: str = "train") -> list[str]:
    return [row["text"] for row in read_corpus(path, "data.train", split, Notes()).rows]


def test_files_of_a_split_count_where_any_is_called_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, STORIES)))
    (repository / "data" / "validation.jsonl").write_text(json.dumps({"text": "Held out."}))
    with serving({"datasets": {"own/stories": repository}, "models": {}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        assert texts("own/stories") == [row["text"] for row in STORIES]
        assert texts("own/stories", "validation") == ["Held out."]
        fetched = [request for request in hub.asked if "resolve" in request]
        assert fetched
        assert all("datasets/own/stories/resolve/" in request for request in fetched)
        assert not any("weights" in request for request in fetched)
    reached_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "home", offline=True)
    assert texts("own/stories") == [row["text"] for row in STORIES]


def test_without_named_splits_every_readable_file_counts(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "data" / "b.txt").write_text("Second.")
    (repository / "a.jsonl").write_text(json.dumps({"text": "First."}))
    with serving({"datasets": {"own/stories": repository}, "models": {}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        assert texts("own/stories") == ["First.", "Second."]


@pytest.mark.parametrize("kind", ["models", "nothing"])
def test_what_is_no_dataset_of_the_hub_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with serving({"datasets": {}, "models": {}, kind: {"own/stories": repository}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        with pytest.raises(UserError, match=r"data\.train='?\"?own/stories.*RepositoryNotFoundError") as refused:
            texts("own/stories")
    assert "expected a file, a folder or a dataset that this machine can reach: correct the path" in str(refused.value)
