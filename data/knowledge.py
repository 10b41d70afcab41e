"""Prompts that ask for knowledge, with typed answers: the project's own facts, files, or a single prompt."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import datasets

from twinlens.attribution.errors import UserError
from twinlens.data.applied_tokenizer import tokenised
from twinlens.data.facts import facts, prompts
from twinlens.data.file_readers import Row, check_row, user_path
from twinlens.data.knowledge_formats import read_prompts
from twinlens.data.prompts import ACCEPTED, PromptDataModule, prompt_rows
from twinlens.data.text_data_module import SourceRows

NO_TYPE = "prompt"
"""The type of a single prompt, which no other prompt is compared with."""


class KnowledgeDataModule(PromptDataModule):
    """Query → answer prompts of several types, all in the test split.

    Args:
        path: a file or folder in one of the formats of `data.knowledge_formats`; None: the project's own facts, in
            `wording`.
        wording: held-out pattern of the own facts, in neither of which the shipped model saw them: `validation` chose
            its epoch, and it answers them; `test` it answers less often.
        prompt: one prompt instead; its type is `prompt`.
        prompt_answer: answer of `prompt`; None: none, so that the model's own next token is looked at.
        answer: what of an answer counts: its `first` token, or the summed log-probability of its `full` length.
        types: types to use, in any order; None: all.
        only_known: go on with the prompts alone whose answer ranks in the model's top 10 and above its type's others; a
            single `prompt` is always gone on with.
        options: see `TextDataModule`; `limit.test` keeps the first prompts of the types that are used.
    """

    def __init__(
        self,
        name: str = "knowledge",
        path: str | None = None,
        wording: Literal["validation", "test"] = "validation",
        prompt: str | None = None,
        prompt_answer: str | None = None,
        answer: Literal["first", "full"] = "first",
        types: Sequence[str] | None = None,
        only_known: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(name, path, **options)
        self.wording = wording
        self.prompt = prompt
        self.prompt_answer = prompt_answer
        self.answer = answer
        self.types = None if types is None else list(types)
        self.only_known = only_known and prompt is None
        self._check_prompt_options()

    def load_splits(self) -> dict[str, SourceRows]:
        """Read the prompts of the types that are used; `source_index` counts all that were read."""
        if self.prompt is not None:
            row = {"prompt": self.prompt.rstrip(), "answer": self.prompt_answer or "", "type": NO_TYPE}
            check_row("data.prompt", row)
            return {"test": prompt_rows([row], [0])}
        if self.path is None:
            rows: list[Row] = [asdict(prompt) for prompt in prompts(self.wording, facts())]
        else:
            # which types there are only the whole file says
            need = None if self.types is not None else self.row_choice.needed("test")
            rows = read_prompts(user_path(self.path), self.notes, need)
        present = list(dict.fromkeys(row["type"] for row in rows))
        unknown = [name for name in self.types or () if name not in present]
        if unknown:
            raise UserError(
                f"data.types names {unknown[0]!r}, expected some of {', '.join(present)}: use these or null for all."
            )
        self.given = dict(enumerate(rows))
        used = [number for number, row in enumerate(rows) if self.types is None or row["type"] in self.types]
        several = sum("answers" in rows[number] for number in used)
        if several:
            self.notes.say(
                f"answers: {several} of {len(used)} rows list the answers that they accept; the target is the one "
                "whose first token the model finds the most probable"
            )
        return {"test": prompt_rows([rows[number] for number in used], used)}

    def finish(self, split: str, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        """The split with labels, once no prompt was cut and every type has prompts to compare."""
        self._refuse_long(rows, tokenizer)
        finished = super().finish(split, rows, tokenizer)
        refuse_lonely_types(finished["type"][:])
        return finished

    def fingerprint(self, split: str) -> str:
        """As of every dataset, and where whole or several answers count these as well."""
        rows, own = super().fingerprint(split), self._split(split)
        names = ["answer_ids"] * (self.answer == "full") + [ACCEPTED] * (ACCEPTED in own.column_names)
        if not names:
            return rows
        return hashlib.sha256(json.dumps([rows, *(own[name][:] for name in names)]).encode()).hexdigest()

    def _refuse_long(self, rows: datasets.Dataset, tokenizer: Any) -> None:
        texts = rows["prompt"][:]
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        whole = tokenised(tokenizer, texts, **options)["input_ids"]
        start = int(self.bos and tokenizer.bos_token_id is not None)
        longest = min(self.max_length, tokenizer.model_max_length)
        for row, ids in zip(rows["source_index"][:], whole, strict=True):
            if start + len(ids) > longest:
                limit = "data.max_length" if longest == self.max_length else "the model's length"
                raise UserError(
                    f"row {row} of data={self.name} has a prompt of {start + len(ids)} tokens, but {limit} is "
                    f"{longest}; expected a whole prompt, since a cut one asks something else: "
                    "raise data.max_length as far as the model goes, or leave the row out."
                )

    def _check_prompt_options(self) -> None:
        if self.answer not in ("first", "full"):
            raise UserError(f"data.answer={self.answer!r}, expected first or full: use one of these.")
        if self.wording not in ("validation", "test"):
            raise UserError(f"data.wording={self.wording!r}, expected validation or test: use one of these.")
        if self.prompt is not None and self.path is not None:
            raise UserError("data.prompt and data.path are both set, expected one of them: set the other to null.")
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("data.prompt is blank, expected a text to go on from: write one, or null for many prompts.")
        if self.prompt is None and self.prompt_answer is not None:
            raise UserError(
                f"data.prompt_answer={self.prompt_answer!r} has no data.prompt, expected the prompt that it answers: "
                "set data.prompt, or data.prompt_answer=null."
            )


def refuse_lonely_types(types: Sequence[str]) -> None:
    """Refuse a type with one prompt among several: a prompt is kept where its answer ranks above its type's others.

    Raises:
        UserError: naming the type.
    """
    counts = Counter(types)
    lonely = next((name for name, count in counts.items() if count == 1 and name != NO_TYPE), None)
    if lonely is not None:
        raise UserError(
            f"the type {lonely!r} has a single prompt, but its answer is compared with those of the type's other "
            "prompts; expected at least two: add prompts of this type, leave it out with data.types, or raise "
            "data.limit.test."
        )
