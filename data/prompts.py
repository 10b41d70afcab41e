"""Base of datasets with the vocabulary as readout: prompts whose label is the first token of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import pyarrow

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import TokenReadout
from twinlens.data.applied_tokenizer import tokenised
from twinlens.data.file_readers import Row
from twinlens.data.source_rows import SourceRows
from twinlens.data.text_data_module import TextDataModule

NO_ANSWER = -1
"""The label of a prompt without an answer."""
ACCEPTED = "accepted_ids"
"""Column of the tokens of all answers that a prompt accepts; there where a row lists several."""


class PromptDataModule(TextDataModule):
    """Prompts that a causal language model goes on from.

    Columns beside those of every dataset: `prompt`, `answer` (empty where there is none), `type` (of knowledge),
    `label` (id of the answer's first token, −1 without an answer) and `answer_ids` (all tokens of the answer). Where a
    row lists the answers that it accepts, `accepted_ids` has the tokens of each; label and `answer_ids` are the first
    one's until the model has said which it finds the most probable.

    The answer's tokens are those behind the prompt's in `prompt + " " + answer`, tokenised in one piece, which is how
    the model would read it; so for a tokenizer that joins spaces to words the first one begins with the space, whether
    or not the answer was written with one. Sources that write their spaces are taken as written, `prompt + answer`; a
    source may name the token itself.

    Attributes:
        given: source row → what it says beside the text: `as_written`, `answer_id` or `answers`, and its `place`.

    Args:
        options: see `TextDataModule`.
    """

    readout: ClassVar[str] = TokenReadout.name

    def __init__(self, name: str, path: Any = None, **options: Any) -> None:
        super().__init__(name, path, **options)
        self.text_columns = ["prompt", "answer", "type"]
        self.given: dict[int, Row] = {}

    def templates(self) -> dict[str, str]:
        """`reference`: the prompt as it stands."""
        return {"reference": "{prompt}"}

    def finish(self, split: str, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        """The split with `label` and `answer_ids`, and `accepted_ids` where a row lists several answers."""
        numbers = rows["source_index"][:]
        given = [self.given.get(number, {}) for number in numbers]
        written = [bool(row.get("as_written")) for row in given]
        named = [row.get("answer_id") for row in given]
        places = self._places(numbers)
        texts = ["" if token is not None else text for text, token in zip(rows["answer"][:], named, strict=True)]
        answers = answer_tokens(tokenizer, rows["prompt"][:], texts, places, written)
        answers = [
            ids if token is None else [_known_token(token, place, len(tokenizer))]
            for ids, token, place in zip(answers, named, places, strict=True)
        ]
        accepted = self._accepted(tokenizer, rows, given, answers)
        table = rows.with_format("arrow")[:]
        if accepted is not None:
            tokens = pyarrow.list_(pyarrow.list_(pyarrow.int32()))
            table = table.append_column(ACCEPTED, pyarrow.array(accepted, tokens))
        labels = pyarrow.array([ids[0] if ids else NO_ANSWER for ids in answers], pyarrow.int64())
        table = table.set_column(table.column_names.index("label"), "label", labels)
        return datasets.Dataset(
            table.append_column("answer_ids", pyarrow.array(answers, pyarrow.list_(pyarrow.int32())))
        )

    def _places(self, numbers: Sequence[int]) -> list[str]:
        """Where rows stand, in words for messages."""
        return [self.given.get(number, {}).get("place", f"row {number} of the prompts") for number in numbers]

    def _accepted(
        self, tokenizer: Any, rows: datasets.Dataset, given: Sequence[Row], answers: Sequence[list[int]]
    ) -> list[list[list[int]]] | None:
        """Tokens of every answer that each prompt accepts, none where it has none; None: no row lists several."""
        several = [(place, row["answers"]) for place, row in enumerate(given) if "answers" in row]
        if not several:
            return None
        listed = [(place, answer) for place, texts in several for answer in texts]
        prompts, places = rows["prompt"][:], self._places(rows["source_index"][:])
        tokens = answer_tokens(
            tokenizer,
            [prompts[place] for place, _ in listed],
            [answer for _, answer in listed],
            [places[place] for place, _ in listed],
            [bool(given[place].get("as_written")) for place, _ in listed],
        )
        found = [[ids] if ids else [] for ids in answers]
        for place, _ in several:
            found[place] = []
        for (place, _), ids in zip(listed, tokens, strict=True):
            found[place].append(ids)
        return found


def prompt_rows(rows: Sequence[Row], source_index: Sequence[int]) -> SourceRows:
    """Rows with `prompt`, `answer` and `type` as a source; labels follow with the tokenizer."""
    return SourceRows(
        source_index=list(source_index),
        columns={name: [row[name] for row in rows] for name in ("prompt", "answer", "type")},
        labels=[NO_ANSWER] * len(rows),
    )


def answer_tokens(
    tokenizer: Any,
    prompts: Sequence[str],
    answers: Sequence[str],
    places: Sequence[str],
    as_written: Sequence[bool] | None = None,
) -> list[list[int]]:
    """Tokens of each answer behind its prompt, none where the answer is empty.

    Tokens that reach over the end of the prompt count as the answer's only where the prompt alone has others there.

    Args:
        tokenizer: a fast tokenizer.
        prompts, answers: [prompts].
        places: where each row stands, for messages.
        as_written: whether an answer goes on from its prompt without a space put between them, [prompts]; None: none.

    Raises:
        UserError: an answer that gives no token, or one that the tokenizer does not know.
    """
    as_written = [False] * len(prompts) if as_written is None else as_written
    whole = [
        prompt + answer if written else f"{prompt} {answer.lstrip()}"
        for prompt, answer, written in zip(prompts, answers, as_written, strict=True)
    ]
    options = {"add_special_tokens": False, "return_attention_mask": False, "truncation": False, "verbose": False}
    together = tokenised(tokenizer, whole, return_offsets_mapping=True, **options)
    alone = tokenised(tokenizer, list(prompts), **options)["input_ids"]
    found = []
    for number, answer in enumerate(answers):
        ids, offsets = together["input_ids"][number], together["offset_mapping"][number]
        before = alone[number]
        if ids[: len(before)] == before:
            behind = ids[len(before) :]
        else:  # the two meet in one token
            behind = [token for token, (_, end) in zip(ids, offsets, strict=True) if end > len(prompts[number])]
        behind = behind if answer else []
        blank = not (answer if as_written[number] else answer.strip())
        if answer and (not behind or blank or behind[0] == tokenizer.unk_token_id):
            raise UserError(
                f"{places[number]} has the answer {answer!r}, of which the model's tokenizer "
                "makes no token; expected a word that it can write: mend the row or leave it out."
            )
        found.append(behind)
    return found


def _known_token(token: Any, place: str, n_tokens: int) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < n_tokens:
        raise UserError(
            f"{place} has answer_id={token!r:.40}, expected a token's number, 0 to {n_tokens - 1}: "
            "mend the row, or write the answer as text."
        )
    return token
