"""AVeriTeC (Schlichtkrull, Guo, Vlachos 2023): real claims, with questions and answers as evidence.

The published `train.json` becomes train and validation by a seeded permutation (2768 and 300 rows), the published
`dev.json` (500 rows) is the test split, since the labels of the original test set are not public.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import listed
from twinlens.data.file_readers import FileRows, Row, named_file, read_files, user_path
from twinlens.data.hub import fetch
from twinlens.data.labels import label_numbers, parted_by_label, say_unlabelled
from twinlens.data.sampling import permutation
from twinlens.data.text_data_module import SourceRows, TextDataModule

LABELS = ["Supported", "Refuted", "Conflicting Evidence/Cherrypicking", "Not Enough Evidence"]
HUB_REPOSITORY = "chenxwh/AVeriTeC"
FILES = {"train": "train.json", "test": "dev.json"}
TEMPLATE = "Claim : {claim}/ Evidence : {evidence}/ Answer :"
TEMPLATES = {"reference": TEMPLATE, "full": TEMPLATE}


def evidence_text(questions: list[dict[str, Any]], full: bool) -> str:
    """The evidence of a claim: `(0)question answer(1)question answer…`.

    Args:
        questions: as published, each with `question` and `answers`.
        full: all answers, each with its boolean explanation; otherwise the first answer of each question.
    """
    parts = []
    for number, question in enumerate(questions):
        answers = question["answers"] if full else question["answers"][:1]
        words = [question["question"]]
        for answer in answers:
            words.append(answer["answer"])
            if full and answer.get("boolean_explanation"):
                words.append(answer["boolean_explanation"])
        parts.append(f"({number})" + " ".join(words))
    return "".join(parts)


class AveritecDataModule(TextDataModule):
    """AVeriTeC in its published schema.

    Args:
        path: folder with train.json and dev.json; None: download them from the Hugging Face hub.
        template: `reference` (first answer of each question), `full` (all answers and explanations), or a format
            string over claim and evidence, which gets the evidence of `reference`.
        validation_size: rows of train.json set aside for validation.
        options: see `TextDataModule`.
    """

    papers: ClassVar[tuple[str, ...]] = ("schlichtkrull2023averitec",)
    licence: ClassVar[tuple[str, ...]] = ("CC BY-NC 4.0",)

    def __init__(
        self,
        name: str = "averitec",
        path: str | None = None,
        template: str | None = None,
        validation_size: int = 300,
        **options: Any,
    ) -> None:
        super().__init__(name, path, template, **options)
        self.validation_size = validation_size
        self.label_names = list(LABELS)
        self.text_columns = ["claim", "evidence"]
        self.pair_columns = ("evidence", "claim")  # the evidence is the premise
        self.entailment_name = "Supported"

    def templates(self) -> dict[str, str]:
        """`reference` and `full`; they differ in what stands in the evidence."""
        return TEMPLATES

    def load_splits(self) -> dict[str, SourceRows]:
        """Read both files and set the validation rows aside."""
        train = read_files([self._file(FILES["train"])], notes=self.notes)
        test = read_files([self._file(FILES["test"])], notes=self.notes, need=self.need_of("test"))
        labels = [_checked(train.where(row), example)["label"] for row, example in enumerate(train.rows)]
        taken, left_out = parted_by_label(labels, self.label_names)
        n_train = len(taken)
        if not 0 < self.validation_size < n_train:
            raise UserError(
                f"data.validation_size={self.validation_size}, expected between 1 and {n_train - 1}, the labelled "
                f"rows of {train.name} less one: change it."
            )
        order = [taken[place] for place in permutation(n_train, self.split_seed)]
        splits = {
            "train": self._rows(train, order[self.validation_size :]),
            "validation": self._rows(train, order[: self.validation_size]),
            "test": self._rows(test, list(range(len(test.rows))), allow_empty=True),
        }
        splits["train"].left_out = left_out
        say_unlabelled("test", splits["test"].labels, self.notes)
        return splits

    def _rows(self, table: FileRows, chosen: list[int], allow_empty: bool = False) -> SourceRows:
        examples = [_checked(table.where(row), table.rows[row]) for row in chosen]
        return SourceRows(
            source_index=chosen,
            columns={
                "claim": [example["claim"] for example in examples],
                "evidence": [evidence_text(example["questions"], self.template == "full") for example in examples],
            },
            labels=label_numbers(
                table, chosen, [example["label"] for example in examples], self.label_names, allow_empty
            ),
        )

    def _file(self, name: str) -> Path:
        if self.path is not None:
            return named_file(user_path(self.path) / name)
        return download(name)


def download(name: str) -> Path:
    """Fetch one published file from the hub, or find it in the hub's cache.

    Raises:
        UserError: no connection, or the hub refuses.
    """
    # its authors published the data in a model repository
    return fetch(HUB_REPOSITORY, f"data/{name}", "AVeriTeC", "train.json and dev.json", ("model", "dataset"))


def _checked(where: str, example: Row) -> Row:
    """A row in the published schema."""
    missing = [column for column in ("claim", "label", "questions") if column not in example]
    if missing:
        raise UserError(
            f"{where} has the columns {listed(list(example))}, expected also {', '.join(missing)} as in the "
            "published AVeriTeC: use its files, or data=table for others."
        )
    questions = example["questions"]
    fits = isinstance(example["claim"], str) and isinstance(questions, list)
    if not fits or not all(_is_question(question) for question in questions):
        raise UserError(
            f"{where} has a claim or questions of another form, expected a text and a list of "
            "{question, answers: [{answer}]} as in the published AVeriTeC: mend that row."
        )
    return example


def _is_question(question: Any) -> bool:
    if not isinstance(question, dict) or not isinstance(question.get("question"), str):
        return False
    answers = question.get("answers")
    return isinstance(answers, list) and all(
        isinstance(answer, dict)
        and isinstance(answer.get("answer"), str)
        and isinstance(answer.get("boolean_explanation") or "", str)
        for answer in answers
    )
