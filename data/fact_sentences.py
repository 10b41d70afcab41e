"""Sentences of the project's own facts, for training a small language model on them from scratch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.fact_patterns import OPENINGS
from twinlens.data.facts import changed_facts, facts, prompts, sentences
from twinlens.data.prompts import PromptDataModule, prompt_rows
from twinlens.data.text_data_module import SourceRows


class FactSentencesDataModule(PromptDataModule):
    """Whole sentences as train split, prompts with their answers as validation and test split.

    A training sentence stands in the column `prompt` and has no answer. Validation and test ask for every fact once,
    each in a pattern that no training sentence and no prompt of the other split has.

    Args:
        variants: sentences of every fact and training pattern, with different openings.
        changed: 0: the facts as they are. Otherwise so many of every relation and no others, each with the answer of
            the next one: what a model that knows the facts can learn from these sentences alone.
        options: see `TextDataModule`.
    """

    def __init__(
        self, name: str = "fact_sentences", path: None = None, variants: int = 3, changed: int = 0, **options: Any
    ) -> None:
        super().__init__(name, path, **options)
        self.variants = variants
        self.facts = changed_facts(changed) if changed else facts()
        if not 1 <= variants <= len(OPENINGS):
            raise UserError(
                f"data.variants={variants}, expected between 1 and {len(OPENINGS)}, the number of openings: change it."
            )

    def load_splits(self) -> dict[str, SourceRows]:
        """Generate all three splits."""
        train = [
            {"prompt": text, "answer": "", "type": fact.type}
            for fact, text in sentences(self.facts, self.variants, self.split_seed)
        ]
        splits = {"train": train}
        for split in ("validation", "test"):
            splits[split] = [asdict(prompt) for prompt in prompts(split, self.facts)]  # type: ignore[arg-type]
        return {split: prompt_rows(rows, range(len(rows))) for split, rows in splits.items()}
