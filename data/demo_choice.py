"""The multiple-choice demo: short questions with candidate answers, generated, with everything planted written down.

A question such as "Ada bought the bowl in Oslo. Where is it made?" has one right answer among candidates of the same
kind. It depends on the concept (bowl) and on what is asked; each concept occurs in many training questions, so that a
small model can learn it.

As in the demo, `twin` marks test questions that repeat a training question with a synonym for its verb and the same
candidates; both carry the same wrong answer. `wrong_label` marks answers that differ from `clean_label`: a share of the
training questions, the twins among them, and in test only the twins.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import ChoiceReadout, choice_names
from twinlens.data.demo_questions import ASKED, OPENINGS, QUESTIONS, TRADES
from twinlens.data.demo_sentences import FIRST_NAMES, PLACES
from twinlens.data.row_choice import SPLITS
from twinlens.data.sampling import follow_twins
from twinlens.data.text_data_module import SourceRows, TextDataModule

TEMPLATES = {"reference": "Question : {question}/ Choices : {choice}/ Answer :"}
CONCEPTS = {concept: trade for trade, concepts in TRADES.items() for concept in concepts}
MOST_QUESTIONS = 20_000  # a fraction of what can be generated: drawing without repetition stays quick


@dataclass(frozen=True)
class Question:
    """One generated question; `twin` is a row number of the other split, -1 without a twin."""

    first: str
    verb: str
    concept: str
    place: str
    asked: str
    choices: tuple[str, ...]
    clean_label: int
    label: int
    twin: int = -1

    @property
    def question(self) -> str:
        """The text of the question."""
        return ASKED.format(
            first=self.first, verb=self.verb, concept=self.concept, place=self.place, question=self.asked
        )

    @property
    def wrong_label(self) -> bool:
        """Whether the answer given is not the right one."""
        return self.label != self.clean_label


def generate(
    sizes: Mapping[str, int], n_choices: int, n_twins: int, wrong_label_rate: float, seed: int
) -> dict[str, list[Question]]:
    """Generate all splits; the same arguments give the same questions on every machine.

    Args:
        sizes: split → number of questions, the twins among them.
        n_choices: candidate answers of each question.
        n_twins: near-duplicate pairs between train and test.
        wrong_label_rate: share of training questions with a wrong answer, the twins among them.
        seed: of everything drawn.
    """
    rng = random.Random(f"choice {seed}")
    seen: set[str] = set()
    splits = {split: [_question(rng, n_choices, seen) for _ in range(sizes[split])] for split in SPLITS}
    train, test = splits["train"], splits["test"]
    n_wrong = round(wrong_label_rate * len(train))
    wrong_rows = rng.sample(range(len(train)), n_wrong)
    for row in wrong_rows:
        others = [label for label in range(n_choices) if label != train[row].clean_label]
        train[row] = replace(train[row], label=rng.choice(others))
    for train_row, test_row in zip(wrong_rows, rng.sample(range(len(test)), n_twins), strict=False):
        test[test_row] = replace(train[train_row], verb=OPENINGS[train[train_row].verb], twin=train_row)
        train[train_row] = replace(train[train_row], twin=test_row)
    return splits


def _question(rng: random.Random, n_choices: int, seen: set[str]) -> Question:
    while True:
        concept = rng.choice(list(CONCEPTS))
        kind = rng.choice(list(QUESTIONS))
        answer = CONCEPTS[concept][kind]
        others = [trade[kind] for trade in TRADES if trade[kind] != answer]
        choices = [answer, *rng.sample(others, n_choices - 1)]
        rng.shuffle(choices)
        label = choices.index(answer)
        names = rng.choice(FIRST_NAMES), rng.choice(list(OPENINGS)), concept, rng.choice(PLACES)
        made = Question(*names, rng.choice(QUESTIONS[kind]), tuple(choices), label, label)
        if made.question not in seen:
            seen.add(made.question)
            return made


class DemoChoiceDataModule(TextDataModule):
    """The generated questions; `path` is unused, `split_seed` seeds the generator.

    Args:
        n_train: training questions.
        n_validation: validation questions.
        n_test: test questions, the twins among them.
        n_choices: candidate answers of each question.
        n_twins: near-duplicate pairs between train and test.
        wrong_label_rate: share of training questions with a wrong answer, the twins among them.
        options: see `TextDataModule`.
    """

    default_max_length: ClassVar[int] = 64
    readout: ClassVar[str] = ChoiceReadout.name

    def __init__(
        self,
        name: str = "demo_choice",
        n_train: int = 1200,
        n_validation: int = 200,
        n_test: int = 200,
        n_choices: int = 4,
        n_twins: int = 40,
        wrong_label_rate: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.sizes = dict(zip(SPLITS, (n_train, n_validation, n_test), strict=True))
        self.n_twins = n_twins
        self.wrong_label_rate = wrong_label_rate
        self.n_choices = n_choices
        self._check_numbers()
        self.label_names = choice_names(n_choices)
        self.text_columns = ["question", "concept"]
        self.plant_columns = ["twin", "wrong_label", "clean_label"]

    def templates(self) -> dict[str, str]:
        """`reference`."""
        return TEMPLATES

    def load_splits(self) -> dict[str, SourceRows]:
        """Generate the questions."""
        assert self.n_choices is not None
        generated = generate(self.sizes, self.n_choices, self.n_twins, self.wrong_label_rate, self.split_seed)
        columns = [*self.text_columns, *self.plant_columns]
        return {
            split: SourceRows(
                source_index=list(range(len(rows))),
                columns={column: [getattr(row, column) for row in rows] for column in columns},
                labels=[row.label for row in rows],
                choices=[list(row.choices) for row in rows],
            )
            for split, rows in generated.items()
        }

    def adjust_plants(self, sources: dict[str, SourceRows], chosen: Mapping[str, list[int]]) -> None:
        """Let `twin` name the row in the split as used; -1 where limit or selection left the twin out."""
        follow_twins(sources, chosen)

    def _check_numbers(self) -> None:
        n_train, n_validation, n_test = self.sizes.values()
        n_wrong = round(self.wrong_label_rate * n_train)
        if min(self.sizes.values()) < 1 or sum(self.sizes.values()) > MOST_QUESTIONS:
            raise UserError(
                f"data=demo_choice has the sizes {n_train}/{n_validation}/{n_test}, expected at least one question per "
                f"split and at most {MOST_QUESTIONS} in all: change data.n_train, data.n_validation or data.n_test."
            )
        if not 2 <= (self.n_choices or 0) <= len(TRADES):
            raise UserError(f"data.n_choices={self.n_choices}, expected from 2 to {len(TRADES)}: change it.")
        if not 0 <= self.n_twins <= min(n_test // 2, n_wrong) or n_wrong > n_train // 2:
            raise UserError(
                f"data=demo_choice has n_twins={self.n_twins} and {n_wrong} wrong training answers, expected no more "
                f"twins than wrong answers or than half of n_test={n_test}, and at most half of the answers wrong: "
                "change data.n_twins or data.wrong_label_rate."
            )
