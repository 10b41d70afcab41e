"""Templates and tokenisation: fields of an example → text → token ids that fit the model.

A template is a format string such as `Claim : {claim}/ Evidence : {evidence}/ Answer :`. One of its columns may be cut
when the text is too long; it loses tokens from its end, everything else stays whole.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.applied_tokenizer import tokenised
from twinlens.data.input_form import InputForm, count_odd_tokens


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        parts: (literal text, column or None) in reading order; the literal stands before the column's value.
        cut: the column that loses tokens when the text is too long; None: the text loses them at its very end.
    """

    parts: tuple[tuple[str, str | None], ...]
    cut: str | None

    @property
    def columns(self) -> list[str]:
        """The columns the template shows, in reading order."""
        return [column for _, column in self.parts if column is not None]

    def render(self, row: Mapping[str, str]) -> tuple[str, tuple[int, int]]:
        """The text of one example and the (start, end) characters of its cuttable value; (0, 0) without one."""
        text, span = "", (0, 0)
        for literal, column in self.parts:
            text += literal
            if column is not None:
                start = len(text)
                text += row[column]
                if column == self.cut:
                    span = (start, len(text))
        return text, span


def parse_template(template: str, columns: Sequence[str], cut: str | None) -> Template:
    """Parse a format string over text columns.

    Args:
        template: plain `{column}` fields only, each at most once.
        columns: the text columns that exist.
        cut: the column to cut, or None.

    Raises:
        UserError: malformed braces, a field that is no text column, a repeated field, no field, `cut` not among them.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(
            f"data.template={template!r} is no format string ({error}); expected fields such as {{{columns[0]}}}: "
            "write literal braces twice."
        ) from None
    for _, field, specification, conversion in parsed:
        if field is not None and (field not in columns or specification or conversion):
            raise UserError(
                f"data.template={template!r} asks for {field!r}, expected plain fields out of {', '.join(columns)}: "
                "name a text column of the data."
            )
    result = Template(tuple((literal, field) for literal, field, _, _ in parsed), cut)
    if not result.columns or len(set(result.columns)) < len(result.columns):
        raise UserError(
            f"data.template={template!r} shows the fields {result.columns}, expected at least one and each once: "
            f"write it with fields out of {', '.join(columns)}."
        )
    if cut is not None and cut not in result.columns:
        raise UserError(
            f"data.cut={cut!r} is no column of the template, expected one of {', '.join(result.columns)}: "
            "name one of them, or null to cut at the end of the text."
        )
    return result


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example.

    Attributes:
        input_ids: at most `max_length` ids.
        cut: whether the text lost tokens.
        cut_prompt: whether it lost some outside the cuttable column, because that alone did not suffice.
        begins_itself: whether the text begins with what would have been put before it, so that nothing was.
        at_end: how many ids were taken off its end as padding.
    """

    input_ids: list[int]
    cut: bool
    cut_prompt: bool
    begins_itself: bool = False
    at_end: int = 0


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    spans: Sequence[tuple[int, int]],
    form: InputForm,
) -> list[Encoded]:
    """Tokenise whole texts, then drop tokens from the end of each cuttable span until they fit.

    The text is tokenised in one piece, as the model would see it without a limit, so that what is kept never depends
    on where the segments meet; a token that reaches over the border of the span belongs to the text around it.

    Args:
        tokenizer: a fast tokenizer (it must give character offsets).
        texts: rendered examples.
        spans: (start, end) characters that may be cut, (0, 0) for none.
        form: special tokens around a text, the limit in tokens, which counts these, and the id that no text ends with.
            A text that begins with the special tokens itself does not get them twice.

    Raises:
        UserError: a tokenizer without offsets.
    """
    tokens = encoded_with_offsets(tokenizer, texts)
    count_odd_tokens(form, tokenizer, [ids for ids, _ in tokens])
    return [_fit(form, ids, offsets, span) for (ids, offsets), span in zip(tokens, spans, strict=True)]


def encoded_with_offsets(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Ids and (start, end) characters of every token, without special tokens and without a limit.

    Raises:
        UserError: a tokenizer without offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} gives no character offsets, expected a fast tokenizer: "
            "save the model with a tokenizer.json."
        )
    tokens = tokenised(
        tokenizer,
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        truncation=False,
        verbose=False,  # the limit is applied by whoever asks, a warning about long texts would only mislead
    )
    return list(zip(tokens["input_ids"], tokens["offset_mapping"], strict=True))


def _fit(form: InputForm, ids: list[int], offsets: list[tuple[int, int]], span: tuple[int, int]) -> Encoded:
    start, end, max_length = list(form.special.start), list(form.special.end), form.max_length
    begins_itself = form.special.written_in(ids)
    if begins_itself:
        start = []
    excess, removed, kept = len(start) + len(ids) + len(end) - max_length, 0, start + ids + end
    if excess > 0:
        inside = [k for k, (left, right) in enumerate(offsets) if left < right and span[0] <= left and right <= span[1]]
        first, last = (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))
        removed = min(excess, last - first)
        around = (start + ids[: last - removed] + ids[last:])[: max(max_length - len(end), 0)]
        kept = (around + end)[:max_length]
    whole = len(kept)
    while len(kept) > 1 and kept[-1] == form.padding:
        kept.pop()
    return Encoded(kept, excess > 0, removed < excess, begins_itself, whole - len(kept))
