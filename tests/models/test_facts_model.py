"""The shipped facts model answers the project's own facts in wordings that it was not trained with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attribution.evaluation.knowledge_filter import target_rank
from data.knowledge import KnowledgeDataModule
from models.backbone import load_tokenizer
from models.language_model import LanguageModel


def test_it_knows_the_facts_of_every_type_and_is_small(repository: Path) -> None:
    folder = repository / "models" / "facts"
    tokenizer = load_tokenizer(str(folder))
    model = LanguageModel("facts", tokenizer, path=str(folder), model_type="llama").eval()
    data = KnowledgeDataModule()
    data.prepare(tokenizer)
    rows = data.splits["test"]
    with torch.no_grad():
        batch = next(iter(data.predict_dataloader_for("test", [range(len(rows))])))
        first = target_rank(model(batch), batch["labels"]) == 1
    of_type: dict[str, list[bool]] = {}
    for is_first, name in zip(first.tolist(), rows["type"][:], strict=True):
        of_type.setdefault(name, []).append(is_first)
    assert first.double().mean() >= 0.95
    for name, known in of_type.items():
        assert sum(known) >= 0.85 * len(known), name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000
    assert sum(parameter.numel() for parameter in model.parameters()) == 881_280


@pytest.mark.parametrize("path", ["models/facts"])
def test_it_is_found_from_anywhere(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LanguageModel("facts", load_tokenizer(path), path=path).lm.config.model_type == "llama"
