"""Tokenised split made of source rows: one sequence per example, or one per candidate answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import datasets
import pyarrow

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import PreparationReport
from twinlens.data.input_form import InputForm
from twinlens.data.source_rows import SourceRows
from twinlens.data.templates import Encoded, Template, encode

CHOICE = "choice"
"""The field of a template that stands for one candidate answer."""
CHOICES = "choices"
"""The column that lists all of them."""
TOKENISED_AT_ONCE = 1000  # sequences; bounds the memory of Python lists, the result does not depend on it
CHARACTERS_AT_ONCE = 4_000_000  # of these sequences, for the same reason

Sequences = list[Encoded]
"""The sequences of one example: one, or one per choice."""


@dataclass(frozen=True)
class Tokenisation:
    """How the rows of a dataset become token ids.

    Attributes:
        data: name of the dataset, for messages.
        text_columns: the text columns, in the order of the prepared split.
        plant_columns: columns kept beside the text, where a split has them.
        n_choices: candidate answers of each question; None: plain classification.
        template: what a sequence shows; for multiple choice it may show `choice`.
        tokenizer: a fast tokenizer.
        form: what is put around a text, and how long it may be; counts what was done.
        report: is told about every example.
    """

    data: str
    text_columns: list[str]
    plant_columns: list[str]
    n_choices: int | None
    template: Template
    tokenizer: Any
    form: InputForm
    report: PreparationReport = field(default_factory=PreparationReport)

    def split(self, split: str, rows: SourceRows, chosen: list[int]) -> datasets.Dataset:
        """The prepared split.

        Args:
            split: its name.
            rows: all rows of the source.
            chosen: the rows used, in order.

        Returns:
            columns `index`, `source_index`, the text columns, `choices` (for multiple choice), `label`, the plant
            columns that the split has, and `input_ids`, nested (one list per choice) for multiple choice.

        Raises:
            UserError: an example without a token, a question with another number of choices.
        """
        self._refuse_uneven_choices(split, rows, chosen)
        self.report.leave_out(split, rows.left_out)
        blocks: dict[str, list[pyarrow.Array]] = {}
        start = 0
        while start < len(chosen):
            some = self._at_once(rows, chosen[start : start + TOKENISED_AT_ONCE])
            examples = self._encode(split, rows, start, some)
            made = {"input_ids": self._input_ids(examples), **self.further_columns(split, examples)}
            for name, block in made.items():
                blocks.setdefault(name, []).append(block)
            start += len(some)
        kept = {name: rows.columns[name] for name in self.plant_columns if name in rows.columns}
        choices = {} if rows.choices is None else {CHOICES: [rows.choices[row] for row in chosen]}
        columns: dict[str, Any] = {
            "index": pyarrow.array(range(len(chosen)), pyarrow.int64()),
            "source_index": pyarrow.array([rows.source_index[row] for row in chosen], pyarrow.int64()),
            **{
                name: pyarrow.array(self._texts(rows, name, chosen), pyarrow.large_string())
                for name in self.text_columns
            },
            **{name: pyarrow.array(values, pyarrow.list_(pyarrow.string())) for name, values in choices.items()},
            "label": pyarrow.array([rows.labels[row] for row in chosen], pyarrow.int64()),
            **{name: pyarrow.array([values[row] for row in chosen]) for name, values in kept.items()},
            **{name: pyarrow.chunked_array(parts) for name, parts in blocks.items()},
        }
        return datasets.Dataset(pyarrow.table(columns))

    def further_columns(self, split: str, examples: Sequence[Sequences]) -> dict[str, pyarrow.Array]:
        """What a split has beside `input_ids` of its tokens; nothing by default."""
        return {}

    def _at_once(self, rows: SourceRows, chosen: Sequence[int]) -> Sequence[int]:
        """The first of some rows, as many as are tokenised together; one at least where there are any."""
        sequences = characters = 0
        for place, row in enumerate(chosen):
            shown = self._shown(rows, row)
            sequences += len(shown)
            characters += sum(len(text) for fields in shown for text in fields.values())
            if place and (sequences > TOKENISED_AT_ONCE or characters > CHARACTERS_AT_ONCE):
                return chosen[:place]
        return chosen

    def _encode(self, split: str, rows: SourceRows, start: int, chosen: Sequence[int]) -> list[Sequences]:
        """Tokenise some rows and report them; `start` is the index of the first one in the split."""
        shown = [self._shown(rows, row) for row in chosen]
        rendered = [[self.template.render(fields) for fields in sequences] for sequences in shown]
        flat = [pair for sequences in rendered for pair in sequences]
        texts, spans = [text for text, _ in flat], [span for _, span in flat]
        encoded = encode(self.tokenizer, texts, spans, self.form)
        self.form.counts["texts"] += len(encoded)
        self.form.counts["cut"] += sum(text.cut for text in encoded)
        self.form.counts["begins_itself"] += sum(text.begins_itself for text in encoded)
        self.form.counts["at_end"] += sum(text.at_end > 0 for text in encoded)
        ends = list(accumulate(len(sequences) for sequences in shown))
        examples = [encoded[end - len(sequences) : end] for sequences, end in zip(shown, ends, strict=True)]
        for index, (row, sequences, prompts, tokens) in enumerate(
            zip(chosen, shown, rendered, examples, strict=True), start=start
        ):
            fields = [fields[name] for fields in sequences for name in self.template.columns]
            self._refuse_empty(split, rows.source_index[row], fields, tokens)
            self.report.add(split, index, fields, "\x1f".join(text for text, _ in prompts), tokens)
        return examples

    def _input_ids(self, examples: list[Sequences]) -> pyarrow.Array:
        if self.n_choices is None:
            return pyarrow.array([tokens.input_ids for (tokens,) in examples], pyarrow.list_(pyarrow.int32()))
        nested = [[tokens.input_ids for tokens in sequences] for sequences in examples]
        return pyarrow.array(nested, pyarrow.list_(pyarrow.list_(pyarrow.int32())))

    def _shown(self, rows: SourceRows, row: int) -> list[Mapping[str, str]]:
        """The fields of each sequence of a row."""
        fields = {name: rows.columns[name][row] for name in self.text_columns}
        if rows.choices is None:
            return [fields]
        return [{**fields, CHOICE: choice} for choice in rows.choices[row]]

    def _texts(self, rows: SourceRows, column: str, chosen: Sequence[int]) -> list[str]:
        return [rows.columns[column][row] for row in chosen]

    def _refuse_uneven_choices(self, split: str, rows: SourceRows, chosen: Sequence[int]) -> None:
        for row in chosen if rows.choices is not None else ():
            found = len(rows.choices[row]) if rows.choices is not None else 0
            if found != self.n_choices:
                raise UserError(
                    f"Row {rows.source_index[row]} of the source of the {split} split of data={self.data} has {found} "
                    f"choices, expected {self.n_choices} as in the other questions: remove the row or mend it."
                )

    def _refuse_empty(self, split: str, source_row: int, fields: Sequence[str], tokens: Sequences) -> None:
        if not all(sequence.input_ids for sequence in tokens) or not any(text.strip() for text in fields):
            raise UserError(
                f"Row {source_row} of the source of the {split} split of data={self.data} has no token at all, "
                "expected text in at least one field: remove the row or fill it in."
            )
