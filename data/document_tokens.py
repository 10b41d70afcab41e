"""Tokenised documents and queries: which tokens count, long documents in windows, completions behind their prompts.

A document is one row whatever its length: its windows follow each other in `input_ids`, each begun as a text of its own
and each but the last `max_length` long, so that nothing but the model has to know of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes
from twinlens.data.documents import ChatTemplate, Document, Query
from twinlens.data.input_form import count_odd_tokens
from twinlens.data.source_rows import SourceRows
from twinlens.data.templates import Encoded, encoded_with_offsets
from twinlens.data.tokenise import Sequences, Tokenisation

QUERIES = "test"
"""The split of the queries; all others are of documents."""
MOST_SHOWN_TOKENS = 200
"""Of a text whose tokens are shown."""


@dataclass(frozen=True)
class EncodedDocument(Encoded):
    """Token ids of a document.

    Attributes:
        counts: which of them have a loss, [tokens]; never the first of a window.
        windows: how many there are.
    """

    counts: list[bool] = field(default_factory=list)
    windows: int = 1


@dataclass(frozen=True)
class EncodedQuery(Encoded):
    """Token ids of a prompt, and of what follows it.

    Attributes:
        completion, foil: their tokens; empty where there is none.
    """

    completion: list[int] = field(default_factory=list)
    foil: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class DocumentTokenisation(Tokenisation):
    """How documents and queries become token ids.

    Attributes:
        documents: split → its rows.
        queries: the rows of the test split.
        generate: tokens that the model adds to a query without a completion.
        show: rows of each split whose tokens are shown.
        notes: is told what is shown, how many documents have windows, and how many completions meet their prompt.
    """

    documents: Mapping[str, Sequence[Document]] = field(default_factory=dict)
    queries: Sequence[Query] = ()
    generate: int = 0
    show: int = 0
    notes: Notes = field(default_factory=Notes)

    def further_columns(self, split: str, examples: Sequence[Sequences]) -> dict[str, pyarrow.Array]:
        """Of documents `counts` and `windows`; of queries `answer_ids`, the completion's tokens, and `foil_ids`."""
        if split != QUERIES:
            found = [document for (document,) in examples if isinstance(document, EncodedDocument)]
            return {
                "counts": pyarrow.array([document.counts for document in found], pyarrow.list_(pyarrow.bool_())),
                "windows": pyarrow.array([document.windows for document in found], pyarrow.int32()),
            }
        asked = [query for (query,) in examples if isinstance(query, EncodedQuery)]
        ids = pyarrow.list_(pyarrow.int32())
        return {
            "answer_ids": pyarrow.array([query.completion for query in asked], ids),
            "foil_ids": pyarrow.array([query.foil for query in asked], ids),
        }

    def _encode(self, split: str, rows: SourceRows, start: int, chosen: Sequence[int]) -> list[Sequences]:
        """Tokenise some rows and report them; `start` is the index of the first one in the split."""
        if split == QUERIES:
            texts = [(query.prompt + query.completion,) for query in (self.queries[row] for row in chosen)]
            encoded: Sequence[Encoded] = self._queries([self.queries[row] for row in chosen])
        else:
            texts = [(rows.columns["prompt"][row] + rows.columns["completion"][row],) for row in chosen]
            encoded = self._documents([self.documents[split][row] for row in chosen])
        for index, (shown, one) in enumerate(zip(texts, encoded, strict=True), start=start):
            self.report.add(split, index, shown, shown[0], [one])
            if index < self.show:
                self.notes.say(f"{split} {index}: {self._told(one)}")
        return [[one] for one in encoded]

    # -- documents ------------------------------------------------------------------------------------------------

    def _documents(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        template = ChatTemplate(self.tokenizer)
        marked = [
            template.written(document)
            if document.messages is not None
            else (document.prompt + document.completion, [_behind(document.prompt, document.completion)])
            for document in documents
        ]
        tokens = encoded_with_offsets(self.tokenizer, [text for text, _ in marked])
        # a template of turns writes special tokens of its own
        plain = [ids for document, (ids, _) in zip(documents, tokens, strict=True) if document.messages is None]
        count_odd_tokens(self.form, self.tokenizer, plain)
        found = []
        for document, (_, spans), (ids, offsets) in zip(documents, marked, tokens, strict=True):
            counted = [any(left < end and right > begin for begin, end in spans) for left, right in offsets]
            encoded = self._in_windows(ids, counted)
            if not any(encoded.counts):
                raise UserError(
                    f"{document.where} has no token that counts ({len(encoded.input_ids)} in all), expected at least "
                    "one that the model has to say behind another: fill the row in or leave it out."
                )
            found.append(encoded)
        self.form.counts["texts"] += len(found)
        self.form.counts["begins_itself"] += sum(one.begins_itself for one in found)
        self.form.counts["in_windows"] += sum(one.windows > 1 for one in found)
        self.form.counts["windows"] += sum(one.windows for one in found if one.windows > 1)
        return found

    def _in_windows(self, ids: list[int], counted: list[bool]) -> EncodedDocument:
        start = list(self.form.special.start)
        begins_itself = self.form.special.written_in(ids)
        if begins_itself:
            ids, counted = ids[len(start) :], counted[len(start) :]
        size = max(1, self.form.max_length - len(start))
        kept: list[int] = []
        counts: list[bool] = []
        windows = 0
        for first in range(0, max(1, len(ids)), size):
            part = counted[first : first + size]
            counts += [False] * len(start) + part
            if not start and part:
                counts[len(kept)] = False  # nothing stands before it
            kept += start + ids[first : first + size]
            windows += 1
        return EncodedDocument(kept, False, False, begins_itself, 0, counts, windows)

    # -- queries --------------------------------------------------------------------------------------------------

    def _queries(self, queries: Sequence[Query]) -> list[EncodedQuery]:
        texts = [text for query in queries for text in (query.prompt + query.completion, query.prompt + query.foil)]
        tokens = encoded_with_offsets(self.tokenizer, texts)
        found = []
        for number, query in enumerate(queries):
            encoded = self._query(query, tokens[2 * number], tokens[2 * number + 1])
            self._refuse_cut(query, encoded)
            found.append(encoded)
            joined = query.completion[:1].isalnum() and query.prompt[-1:].isalnum()
            self.form.counts["joined"] += joined
        written = [ids + one.foil for (ids, _), one in zip(tokens[::2], found, strict=True)]
        count_odd_tokens(self.form, self.tokenizer, written)
        self.form.counts["texts"] += len(found)
        self.form.counts["queries"] += len(found)
        self.form.counts["begins_itself"] += sum(one.begins_itself for one in found)
        return found

    def _query(self, query: Query, whole: Any, with_foil: Any) -> EncodedQuery:
        """Prompt and completion as they are read in one piece; what completion and foil share with the prompt before
        them are the tokens that end within it and are the same in both."""
        (ids, offsets), (foil_ids, foil_offsets) = whole, with_foil
        start, length = list(self.form.special.start), len(query.prompt)
        shared = _within(offsets, length)
        if query.foil:
            shared = min(shared, _within(foil_offsets, length))
            same = [a == b for a, b in zip(ids[:shared], foil_ids[:shared], strict=True)]
            shared = same.index(False) if False in same else shared
        begins_itself = self.form.special.written_in(ids)
        prompt = ids[:shared] if begins_itself else start + ids[:shared]
        foil = foil_ids[shared:] if query.foil else []
        if not prompt:
            raise UserError(
                f"{query.where} has a prompt of no token, and the model's tokenizer has none to begin with, so that "
                "nothing stands before the completion; expected a prompt: fill it in."
            )
        if query.completion and foil == ids[shared:]:
            raise UserError(
                f"{query.where} has a foil with the tokens of the completion, expected two that differ: change the "
                "foil or leave it out."
            )
        return EncodedQuery(prompt, False, False, begins_itself, 0, ids[shared:] if query.completion else [], foil)

    def _refuse_cut(self, query: Query, encoded: EncodedQuery) -> None:
        behind = len(encoded.completion) if query.completion else self.generate
        longest, what = max((behind, "completion"), (len(encoded.foil), "foil"))
        total = len(encoded.input_ids) + longest
        if total > self.form.max_length:
            raise UserError(
                f"{query.where} has {len(encoded.input_ids)} tokens of prompt and {longest} of {what}, but "
                f"data.max_length is {self.form.max_length}, so that the {what} would be cut; expected both within it: "
                "shorten the prompt, or raise data.max_length as far as the model goes."
            )

    # -- what is shown --------------------------------------------------------------------------------------------

    def _told(self, encoded: Encoded) -> str:
        """Tokens as they are written, those that count in brackets."""
        ids, counts = list(encoded.input_ids), [False] * len(encoded.input_ids)
        rest = ""
        if isinstance(encoded, EncodedDocument):
            counts = encoded.counts
        elif isinstance(encoded, EncodedQuery):
            foil = "".join(f"[{word}]" for word in self._words(encoded.input_ids + encoded.foil)[len(ids) :])
            rest = f" against {foil}" if foil else ""
            ids, counts = ids + encoded.completion, counts + [True] * len(encoded.completion)
        shown = [f"[{word}]" if counted else word for word, counted in zip(self._words(ids), counts, strict=False)]
        more = f" … ({len(ids)} in all)" if len(ids) > MOST_SHOWN_TOKENS else ""
        return f"{sum(counts)} of {len(ids)} tokens count: {''.join(shown)}{more}{rest}"

    def _words(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text before it, its space among it."""
        texts = [self.tokenizer.decode(ids[:end]) for end in range(min(len(ids), MOST_SHOWN_TOKENS) + 1)]
        return [text[len(before) :] for before, text in itertools.pairwise(texts)]


def _behind(prompt: str, completion: str) -> tuple[int, int]:
    return len(prompt), len(prompt) + len(completion)


def _within(offsets: Sequence[tuple[int, int]], length: int) -> int:
    """Tokens before the first that reaches over that many characters."""
    return next((place for place, (_, end) in enumerate(offsets) if end > length), len(offsets))
