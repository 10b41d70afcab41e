"""CommonsenseQA (Talmor, Herzig, Lourie, Berant 2019): questions with five candidate answers and a ConceptNet concept.

As in the first paper: the published training file becomes 8767 and 974 questions by a seeded permutation, the published
development file (1221) is the test split, since the labels of the original test set are not public. One sequence per
candidate answer, no external knowledge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import ChoiceReadout, choice_names
from twinlens.data.file_readers import FileRows, Row, named_file, read_files, user_path
from twinlens.data.hub import fetch
from twinlens.data.labels import label_numbers, parted_by_label, say_unlabelled
from twinlens.data.sampling import permutation
from twinlens.data.text_data_module import SourceRows, TextDataModule

N_CHOICES = 5
FILES = {"train": "train_rand_split.jsonl", "test": "dev_rand_split.jsonl"}
HUB_REPOSITORY = "tau/commonsense_qa"
HUB_FILES = {"train": "data/train-00000-of-00001.parquet", "test": "data/validation-00000-of-00001.parquet"}
TEMPLATES = {"reference": "Question : {question}/ Choices : {choice}/ Answer :"}


class CosqaDataModule(TextDataModule):
    """CommonsenseQA in its published schema or that of the hub.

    Args:
        path: folder with train_rand_split.jsonl and dev_rand_split.jsonl; None: download from the Hugging Face hub.
        template: `reference` or a format string over question, concept and choice (one candidate per sequence).
        max_length: longest sequence in tokens; the question is cut from its end, a candidate never.
        validation_size: questions of the train file set aside for validation.
        options: see `TextDataModule`.
    """

    papers: ClassVar[tuple[str, ...]] = ("talmor2019commonsenseqa",)
    hub_dataset: ClassVar[tuple[str, ...]] = (f"{HUB_REPOSITORY} if path=null",)
    licence: ClassVar[tuple[str, ...]] = ("none stated by its authors",)
    default_max_length: ClassVar[int] = 128  # the published limit
    readout: ClassVar[str] = ChoiceReadout.name

    def __init__(
        self,
        name: str = "cosqa",
        path: str | None = None,
        template: str | None = None,
        max_length: int | None = None,
        validation_size: int = 974,
        **options: Any,
    ) -> None:
        super().__init__(name, path, template, max_length, **options)
        self.validation_size = validation_size
        self.n_choices = N_CHOICES
        self.label_names = choice_names(N_CHOICES)
        self.text_columns = ["question", "concept"]

    def templates(self) -> dict[str, str]:
        """`reference`."""
        return TEMPLATES

    def load_splits(self) -> dict[str, SourceRows]:
        """Read both files and set the validation questions aside."""
        train = read_files([self._file("train")], notes=self.notes)
        test = read_files([self._file("test")], notes=self.notes, need=self.need_of("test"))
        taken, left_out = parted_by_label([row.get("answerKey") for row in train.rows], self.label_names)
        n_train = len(taken)
        if not 0 < self.validation_size < n_train:
            raise UserError(
                f"data.validation_size={self.validation_size}, expected between 1 and {n_train - 1}, the labelled "
                f"questions of {train.name} less one: change it."
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
        rows = table.rows
        questions = [_question(table.where(row), rows[row]) for row in chosen]
        return SourceRows(
            source_index=chosen,
            columns={
                "question": [question["stem"] for question in questions],
                "concept": [question["question_concept"] for question in questions],
            },
            labels=label_numbers(
                table, chosen, [rows[row].get("answerKey") for row in chosen], self.label_names, allow_empty
            ),
            choices=[question["choices"] for question in questions],
        )

    def _file(self, split: str) -> Path:
        if self.path is not None:
            return named_file(user_path(self.path) / FILES[split])
        return fetch(HUB_REPOSITORY, HUB_FILES[split], "CommonsenseQA", " and ".join(FILES.values()))


def _question(where: str, example: Row) -> dict[str, Any]:
    """Stem, concept and the choices' texts in the order of their letters, of either schema."""
    nested = example.get("question")
    if isinstance(nested, dict):
        stem, concept, choices = nested.get("stem"), nested.get("question_concept"), nested.get("choices")
    else:
        stem, concept, choices = nested, example.get("question_concept"), _transposed(example.get("choices"))
    texts = _texts(choices)
    if not isinstance(stem, str) or not isinstance(concept, str) or texts is None:
        raise UserError(
            f"{where} has a question of another form, expected its text, its concept and choices labelled A, "
            "B, … as in the published CommonsenseQA: use its files, or mend that row."
        )
    return {"stem": stem, "question_concept": concept, "choices": texts}


def _transposed(choices: Any) -> Any:
    """The hub's {label: [...], text: [...]} as the published list of {label, text}."""
    if not isinstance(choices, dict):
        return choices
    labels, texts = choices.get("label"), choices.get("text")
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        return None
    return [{"label": label, "text": text} for label, text in zip(labels, texts, strict=True)]


def _texts(choices: Any) -> list[str] | None:
    """The texts of choices labelled A, B, …, in that order; None where they are not."""
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    by_letter = {str(choice.get("label")): choice.get("text") for choice in choices}
    texts = [by_letter.get(letter) for letter in choice_names(len(choices))]
    return [text for text in texts if isinstance(text, str)] if all(isinstance(t, str) for t in texts) else None
