"""Answers of the shipped facts model in wordings that it was not trained with: docs/data.md says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from twinlens.attribution.evaluation.neuron_level.known_prompts import target_rank
from twinlens.data.knowledge import KnowledgeDataModule
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel


def ranks(folder: Path, wording: Literal["validation", "test"]) -> dict[str, torch.Tensor]:
    """Knowledge type → rank of each fact's answer, 1 for the model's first choice."""
    tokenizer = load_tokenizer(str(folder))
    model = LanguageModel("facts", tokenizer, path=str(folder), model_type="llama").eval()
    data = KnowledgeDataModule(wording=wording)
    data.prepare(tokenizer)
    rows = data.splits["test"]
    with torch.no_grad():
        batch = next(iter(data.predict_dataloader_for("test", [range(len(rows))])))
        found = target_rank(model(batch), batch["labels"])
    types = rows["type"][:]
    return {name: found[[row for row, other in enumerate(types) if other == name]] for name in dict.fromkeys(types)}


def test_it_answers_every_type_in_the_wording_that_chose_its_epoch(repository: Path) -> None:
    of_type = ranks(repository / "models" / "facts", "validation")
    assert {name: len(found) for name, found in of_type.items()} == {
        "capital": 50, "country": 61, "language": 46, "colour": 55, "month": 48, "number": 55
    }  # fmt: skip
    assert sum(int((found == 1).sum()) for found in of_type.values()) == 314  # of 315
    assert all((found == 1).double().mean() >= 0.95 for found in of_type.values())


def test_in_the_other_held_out_wording_capitals_come_behind_a_word_of_the_sentence(repository: Path) -> None:
    """`Y's capital city is` and `… is` after a count went on with `called` and `always` in training."""
    of_type = ranks(repository / "models" / "facts", "test")
    first = {name: int((found == 1).sum()) for name, found in of_type.items()}
    assert first == {"capital": 0, "country": 60, "language": 46, "colour": 55, "month": 48, "number": 37}
    assert all((found <= 10).all() for found in of_type.values())


def test_it_is_small(repository: Path) -> None:
    folder = repository / "models" / "facts"
    model = LanguageModel("facts", load_tokenizer(str(folder)), path=str(folder), model_type="llama")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000
    assert sum(parameter.numel() for parameter in model.parameters()) == 881_280


@pytest.mark.parametrize("path", ["models/facts"])
def test_it_is_found_from_anywhere(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LanguageModel("facts", load_tokenizer(path), path=path).lm.config.model_type == "llama"
