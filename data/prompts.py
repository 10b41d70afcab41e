"""Base of datasets with the vocabulary as readout: prompts whose label is the first token of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import pyarrow

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import TokenReadout
from twinlens.data.file_readers import Row
from twinlens.data.source_rows import SourceRows
from twinlens.data.text_data_module import TextDataModule

NO_ANSWER = -1
"""The label of a prompt without an answer."""


class PromptDataModule(TextDataModule):
    """Prompts that a causal language model goes on from.

    Columns beside those of every dataset: `prompt`, `answer` (empty where there is none), `type` (of knowledge),
    `label` (id of the answer's first token, −1 without an answer) and `answer_ids` (all tokens of the answer).

    The answer's tokens are those behind the prompt's in `prompt + " " + answer`, tokenised in one piece, which is how
    the model would read it; so for a tokenizer that joins spaces to words the first one begins with the space, whether
    or not the answer was written with one.

    Args:
        options: see `TextDataModule`.
    """

    readout: ClassVar[str] = TokenReadout.name

    def __init__(self, name: str, path: Any = None, **options: Any) -> None:
        super().__init__(name, path, **options)
        self.text_columns = ["prompt", "answer", "type"]

    def templates(self) -> dict[str, str]:
        """`reference`: the prompt as it stands."""
        return {"reference": "{prompt}"}

    def finish(self, split: str, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        """The split with `label` and `answer_ids`."""
        answers = answer_tokens(tokenizer, rows["prompt"][:], rows["answer"][:], rows["source_index"][:])
        table = rows.with_format("arrow")[:]
        labels = pyarrow.array([ids[0] if ids else NO_ANSWER for ids in answers], pyarrow.int64())
        table = table.set_column(table.column_names.index("label"), "label", labels)
        return datasets.Dataset(
            table.append_column("answer_ids", pyarrow.array(answers, pyarrow.list_(pyarrow.int32())))
        )


def prompt_rows(rows: Sequence[Row], source_index: Sequence[int]) -> SourceRows:
    """Rows with `prompt`, `answer` and `type` as a source; labels follow with the tokenizer."""
    return SourceRows(
        source_index=list(source_index),
        columns={name: [row[name] for row in rows] for name in ("prompt", "answer", "type")},
        labels=[NO_ANSWER] * len(rows),
    )


def answer_tokens(
    tokenizer: Any, prompts: Sequence[str], answers: Sequence[str], source_index: Sequence[int]
) -> list[list[int]]:
    """Tokens of each answer behind its prompt, none where the answer is empty.

    Tokens that reach over the end of the prompt count as the answer's only where the prompt alone has others there.

    Args:
        tokenizer: a fast tokenizer.
        prompts, answers: [prompts].
        source_index: rows of the source, for messages.

    Raises:
        UserError: an answer that gives no token, or one that the tokenizer does not know.
    """
    whole = [f"{prompt} {answer.lstrip()}" for prompt, answer in zip(prompts, answers, strict=True)]
    options = {"add_special_tokens": False, "return_attention_mask": False, "truncation": False, "verbose": False}
    together = tokenizer(whole, return_offsets_mapping=True, **options)
    alone = tokenizer(list(prompts), **options)["input_ids"]
    found = []
    for number, answer in enumerate(answers):
        ids, offsets = together["input_ids"][number], together["offset_mapping"][number]
        before = alone[number]
        if ids[: len(before)] == before:
            behind = ids[len(before) :]
        else:  # the two meet in one token
            behind = [token for token, (_, end) in zip(ids, offsets, strict=True) if end > len(prompts[number])]
        behind = behind if answer else []
        if answer and (not behind or not answer.strip() or behind[0] == tokenizer.unk_token_id):
            raise UserError(
                f"row {source_index[number]} of the prompts has the answer {answer!r}, of which the model's tokenizer "
                "makes no token; expected a word that it can write: mend the row or leave it out."
            )
        found.append(behind)
    return found
