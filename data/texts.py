"""Your own texts for a language model: documents to learn from, and queries whose completions are explained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import pyarrow

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import TokenReadout
from twinlens.data.collate import PaddingCollator
from twinlens.data.corpus_files import read_corpus
from twinlens.data.data_report import listed
from twinlens.data.document_batches import DocumentCollator
from twinlens.data.document_tokens import QUERIES, DocumentTokenisation
from twinlens.data.documents import OF_QUERIES, Document, Query, document_of, form_of, query_of, unread_columns
from twinlens.data.file_readers import FileRows, check_row
from twinlens.data.input_form import InputForm
from twinlens.data.marked_rows import EVIDENCE, GROUP, marks, require_evidence
from twinlens.data.sampling import permutation
from twinlens.data.templates import Template
from twinlens.data.text_data_module import SourceRows, TextDataModule

NO_COMPLETION = -1
"""The label of a query whose completion the model has yet to say."""
OF_A_PROMPT = "data.prompt"
"""Where a single query comes from, for messages."""


class TextsDataModule(TextDataModule):
    """A corpus as train split (and validation split), queries as test split.

    Columns beside those of every dataset: `prompt`, `completion` and `foil` (texts; a document without a prompt stands
    in `completion` alone), `document` (file and row). Documents have `counts` (which tokens have a loss) and `windows`
    (how many sequences of at most `max_length` tokens they are read in; a document is one row all the same). Queries
    have `answer_ids` and `foil_ids` (tokens of completion and foil), `type`, and as `label` the completion's first
    token, −1 until the model has said it. With `evidence` both have a column of that name, with `group` queries have.

    Args:
        train: file, folder, or dataset on the hub, see `data.corpus_files` and `data.documents`; None: no documents.
        validation: the same, for the perplexity that chooses the best epoch; None: a share of `train`.
        validation_fraction: share of `train` set aside for validation; 0: none.
        queries: file or folder with `prompt` and `completion`, and perhaps `foil`, `type` or `group`.
        prompt: one query instead.
        completion, foil: of `prompt`; None: none.
        generate: tokens that the model goes on with, greedily, where a query has no completion; 0: none.
        evidence: column of documents and queries; a document with the value of a query is one that tells its answer.
        group: column of queries; those with the same value are asked together too.
        show: documents and queries whose tokens are shown, those that count in brackets.
        options: see `TextDataModule`.
    """

    readout: ClassVar[str] = TokenReadout.name
    answer: ClassVar[str] = "full"
    chosen_by: ClassVar[tuple[str, str]] = ("validation/perplexity", "min")
    neuron_texts: ClassVar[int] = 50

    def __init__(
        self,
        name: str = "texts",
        train: str | None = None,
        validation: str | None = None,
        validation_fraction: float = 0.0,
        queries: str | None = None,
        prompt: str | None = None,
        completion: str | None = None,
        foil: str | None = None,
        generate: int = 0,
        evidence: str | None = None,
        group: str | None = None,
        show: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.text_columns = ["prompt", "completion", "foil"]
        marked = [name for name, column in ((EVIDENCE, evidence), (GROUP, group)) if column is not None]
        self.plant_columns = ["document", "type", *marked]
        self.train, self.validation, self.validation_fraction = train, validation, validation_fraction
        self.queries, self.prompt = queries, prompt
        self.completion, self.foil = completion, foil
        self.generate = generate
        self.evidence, self.group = evidence, group
        self.show = show
        self._documents: dict[str, list[Document]] = {}
        self._queries: list[Query] = []
        self._form_counts: dict[str, int] = {}
        self._check_text_options()

    def templates(self) -> dict[str, str]:
        """`reference`: prompt and completion as they stand."""
        return {"reference": "{prompt}{completion}"}

    def load_splits(self) -> dict[str, SourceRows]:
        """Read documents and queries; `source_index` counts the rows of all files of a split."""
        splits = {}
        self._documents = {}
        for split, path in (("train", self.train), ("validation", self.validation)):
            if path is not None:
                need = None if split == "train" and self.validation_fraction else self.need_of(split)
                table = read_corpus(path, f"data.{split}", split, self.notes, need)
                self._documents[split] = [document_of(row, table.where(at)) for at, row in enumerate(table.rows)]
                self._say_unread(split, unread_columns(table.rows, form_of))
                splits[split] = _document_rows(self._documents[split], table, range(len(table.rows)))
                if self.evidence is not None and split == "train":
                    splits[split].columns[EVIDENCE] = marks(table, self.evidence, "data.evidence")
        if self.train is not None and self.validation_fraction:
            splits |= self._divided(splits["train"])
        splits[QUERIES] = self._query_rows()
        if self.evidence is not None and "train" in splits:
            sides = splits["train"].columns[EVIDENCE], splits[QUERIES].columns[EVIDENCE]
            require_evidence(*sides, self.evidence)
        return splits

    def tokenisation(self, template: Template, tokenizer: Any, form: InputForm) -> DocumentTokenisation:
        """See `DocumentTokenisation`."""
        self._form_counts = form.counts
        return DocumentTokenisation(
            self.name, self.text_columns, self.plant_columns, self.n_choices, template, tokenizer, form,
            documents=self._documents, queries=self._queries, generate=self.generate, show=self.show, notes=self.notes,
        )  # fmt: skip

    def finish(self, split: str, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        """Queries with their labels; a note on what was done to the texts."""
        said = self._form_counts
        if said.get("in_windows"):
            self.notes.say(
                f"windows: {said['in_windows']} documents are longer than {self.max_length} tokens (data.max_length) "
                f"and are read in {said['windows']} windows; each document stays one row"
            )
        if said.get("joined"):
            self.notes.say(
                f"completions: {said['joined']} of {said['queries']} go on from their prompt without a space, within "
                "one word; they are read as written"
            )
        if split != QUERIES:
            return rows
        return with_labels(rows.with_format("arrow")[:])

    def fingerprint(self, split: str) -> str:
        """As of every dataset, with the tokens that count, and of queries completions and foils."""
        own = self._split(split)
        names = ["answer_ids", "foil_ids"] if split == QUERIES else ["counts"]
        digest = hashlib.sha256(super().fingerprint(split).encode())
        digest.update(json.dumps([self.max_length, self.generate if split == QUERIES else 0]).encode())
        for row in own.select_columns(names):
            digest.update(json.dumps([row[name] for name in names]).encode())
        return digest.hexdigest()

    def _columns(self, dataset: datasets.Dataset) -> datasets.Dataset:
        names = ["index", "input_ids", "label"]
        return dataset.select_columns([*names, *(["counts"] if "counts" in dataset.column_names else [])])

    def _collate(self) -> PaddingCollator:
        return DocumentCollator(0, self.padding_side, self.max_length)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _divided(self, rows: SourceRows) -> dict[str, SourceRows]:
        documents, n = self._documents["train"], len(rows.source_index)
        n_validation = round(self.validation_fraction * n)
        if not 0 < n_validation < n:
            raise UserError(
                f"data.validation_fraction={self.validation_fraction} of {n} documents leaves {n_validation} for "
                "validation, expected at least one there and one to train on: change it, or set it to 0."
            )
        order = permutation(n, self.split_seed)
        chosen = {"validation": sorted(order[:n_validation]), "train": sorted(order[n_validation:])}
        self._documents = {split: [documents[at] for at in places] for split, places in chosen.items()}
        return {split: _some(rows, places) for split, places in chosen.items()}

    def _say_unread(self, what: str, columns: Sequence[str]) -> None:
        left = [name for name in columns if name not in (self.evidence, self.group)]
        if left:
            self.notes.say(f"{what}: not read are the columns {listed(left)}")

    def _query_rows(self) -> SourceRows:
        if self.prompt is not None:
            row = {"prompt": self.prompt, "completion": self.completion or "", "foil": self.foil or ""}
            check_row(OF_A_PROMPT, row)
            self._queries = [query_of(row, OF_A_PROMPT, self.generate > 0)]
            names = [OF_A_PROMPT]
            marked: dict[str, list[str]] = {}
        else:
            table = read_corpus(str(self.queries), "data.queries", QUERIES, self.notes, self.need_of(QUERIES))
            self._queries = [query_of(row, table.where(at), self.generate > 0) for at, row in enumerate(table.rows)]
            self._say_unread("queries", unread_columns(table.rows, lambda row: OF_QUERIES))
            names = [_short(table, at) for at in range(len(table.rows))]
            own = {EVIDENCE: self.evidence, GROUP: self.group}
            marked = {name: marks(table, column, f"data.{name}") for name, column in own.items() if column is not None}
        without = sum(not query.completion for query in self._queries)
        if without:
            self.notes.say(
                f"queries: {without} of {len(self._queries)} have no completion; the model goes on by itself"
            )
        foils = sum(bool(query.foil) for query in self._queries)
        if foils:
            self.notes.say(
                f"queries: {foils} of {len(self._queries)} name a foil; explain_against=foil sets completions apart "
                "from it"
            )
        return SourceRows(
            source_index=list(range(len(self._queries))),
            columns={
                **{name: [getattr(query, name) for query in self._queries] for name in self.text_columns},
                "document": names,
                "type": [query.type for query in self._queries],
                **marked,
            },
            labels=[NO_COMPLETION] * len(self._queries),
        )

    def _check_text_options(self) -> None:
        if (self.queries is None) == (self.prompt is None):
            both, neither = "both data.queries and data.prompt", "neither data.queries nor data.prompt"
            raise UserError(
                f"data={self.name} has {neither if self.prompt is None else both}, expected one of them, which "
                "says what is explained: give "
                "data.queries=FILE, or data.prompt with data.completion or data.generate=20."
            )
        given = [name for name in ("completion", "foil") if getattr(self, name) is not None and self.prompt is None]
        if given:
            raise UserError(
                f"data.{given[0]} has no data.prompt, expected the prompt that it follows: set data.prompt, or write "
                f"{given[0]} as a column of data.queries."
            )
        if self.prompt is not None and (self.evidence or self.group):
            name = EVIDENCE if self.evidence else GROUP
            raise UserError(
                f"data.{name}={getattr(self, name)} names a column of queries, but data.prompt is one query without "
                "columns; expected a file: give data.queries=FILE instead of data.prompt."
            )
        if self.generate < 0 or self.show < 0:
            name = "generate" if self.generate < 0 else "show"
            raise UserError(f"data.{name}={getattr(self, name)}, expected 0 or more: raise it.")
        if not 0 <= self.validation_fraction < 1 or (self.validation_fraction and self.validation is not None):
            raise UserError(
                f"data.validation_fraction={self.validation_fraction}, expected a share from 0 to below 1, and 0 "
                "beside data.validation: change it."
            )


def with_labels(table: pyarrow.Table) -> datasets.Dataset:
    """Queries with the first token of each completion as label, −1 where there is none."""
    answers = table["answer_ids"].to_pylist()
    labels = pyarrow.array([ids[0] if ids else NO_COMPLETION for ids in answers], pyarrow.int64())
    return datasets.Dataset(table.set_column(table.column_names.index("label"), "label", labels))


def _document_rows(documents: Sequence[Document], table: FileRows, places: Sequence[int]) -> SourceRows:
    return SourceRows(
        source_index=list(places),
        columns={
            "prompt": [document.prompt for document in documents],
            "completion": [document.completion for document in documents],
            "foil": [""] * len(documents),
            "document": [_short(table, at) for at in places],
        },
        labels=[NO_COMPLETION] * len(documents),
    )


def _some(rows: SourceRows, places: Sequence[int]) -> SourceRows:
    return SourceRows(
        source_index=[rows.source_index[at] for at in places],
        columns={name: [values[at] for at in places] for name, values in rows.columns.items()},
        labels=[rows.labels[at] for at in places],
    )


def _short(table: FileRows, row: int) -> str:
    """File and row without folders, which are this machine's."""
    where = table.where(row)
    return where.rsplit("/", 1)[-1]
