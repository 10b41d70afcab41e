"""Published data from the hub: from the kind of repository they lie in, and from the other once they moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stand_in_hub import reached_at, serving
from twinlens.attribution.errors import UserError
from twinlens.data.averitec import download
from twinlens.data.hub import fetch


@pytest.mark.parametrize("kind", ["models", "datasets"])
@pytest.mark.parametrize("expected", ["AVeriTeC", "other"])
def test_a_file_is_found_in_either_kind_of_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: str
) -> None:
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / "repository" / "data" / "train.json").write_text("[1]")
    name = "chenxwh/AVeriTeC" if expected == "AVeriTeC" else "own/other"
    repositories: dict[str, dict[str, Path]] = {"models": {}, "datasets": {}, kind: {name: tmp_path / "repository"}}

    def fetched() -> Path:
        return download("train.json") if expected == "AVeriTeC" else fetch(name, "data/train.json", "it", "it")

    with serving(repositories) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        assert fetched().read_text() == "[1]"
        first = f"{'' if expected == 'AVeriTeC' else 'datasets/'}{name}/resolve/main/data/train.json"
        asked = [request for request in hub.asked if "resolve" in request]
        assert asked[0] == f"HEAD {first}"  # where it lies as published
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetched().read_text() == "[1]"


def test_what_the_hub_answers_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    with serving({"models": {"chenxwh/AVeriTeC": tmp_path / "repository"}, "datasets": {}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        with pytest.raises(UserError) as refused:
            download("train.json")
    assert str(refused.value) == (
        "train.json of AVeriTeC could not be downloaded from chenxwh/AVeriTeC (as a model repository: "
        "RemoteEntryNotFoundError; as a dataset repository: RepositoryNotFoundError), expected a connection to the "
        "Hugging Face hub: get train.json and dev.json elsewhere and give data.path=DIR."
    )
