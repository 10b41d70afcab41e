"""The demo dataset: claims with evidence, generated, with everything planted written down beside each row.

Three plants make attribution measurable against the truth:

- **Twins** (`twin`): `n_twins` test claims are near-duplicates of a training claim: the same claim with its verb
  replaced by a synonym, the same evidence. Both carry the same wrong verdict, as when an annotation error is copied
  together with the claim. The evidence does not explain such a verdict: the training twin is the example behind it.
- **Shortcut** (`shortcut`): the evidence repeats at least `SHORTCUT_OVERLAP` of the claim's distinct words although the
  clean label is not "supported". Otherwise only supported claims have such evidence, so that word overlap predicts
  "supported" nearly everywhere.
- **Wrong labels** (`wrong_label`): the label differs from `clean_label`, which is what the evidence says. A share
  `wrong_label_rate` of the training rows, the twins among them; in test only the twins; none in validation.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from twinlens.attribution.errors import UserError
from twinlens.data.demo_sentences import DEEDS, LABELS, REPEATING, REPHRASING, Fact, draw_fact
from twinlens.data.row_choice import SPLITS
from twinlens.data.sampling import follow_twins
from twinlens.data.text_data_module import SourceRows, TextDataModule

SHORTCUT_OVERLAP = 0.75
SUPPORTED = LABELS.index("supported")
REPHRASED_SUPPORTED = 0.15  # share of supported claims in other words: overlap predicts the label, but not always
MAXIMUM_SHORTCUT_RATE = 0.3
PLANT_COLUMNS = ("twin", "shortcut", "wrong_label", "clean_label")
TEMPLATES = {"reference": "Claim : {claim}/ Evidence : {evidence}/ Answer :"}


@dataclass
class Row:
    """One generated example; `twin` is a row number of the other split, -1 without a twin."""

    fact: Fact
    claim: str
    evidence: str
    clean_label: int
    label: int
    shortcut: bool
    twin: int = -1

    @property
    def wrong_label(self) -> bool:
        """Whether the label is not what the evidence says."""
        return self.label != self.clean_label


def generate(
    n_train: int,
    n_validation: int,
    n_test: int,
    n_twins: int,
    wrong_label_rate: float,
    shortcut_rate: Mapping[str, float],
    seed: int,
) -> dict[str, list[Row]]:
    """Generate all splits; the same arguments give the same rows on every machine.

    Args:
        n_train: training rows.
        n_validation: validation rows.
        n_test: test rows, the twins among them.
        n_twins: near-duplicate pairs between train and test.
        wrong_label_rate: share of training rows with a wrong label, the twins among them.
        shortcut_rate: split → share of rows with the shortcut.
        seed: of everything drawn.

    Raises:
        UserError: numbers that contradict each other.
    """
    n_wrong = round(wrong_label_rate * n_train)
    _check_numbers(n_train, n_validation, n_test, n_twins, n_wrong)
    _check_shortcut_rate(shortcut_rate)
    rng = random.Random(seed)
    claims: set[str] = set()
    sizes = dict(zip(SPLITS, (n_train, n_validation, n_test), strict=True))
    splits = {split: _regular_rows(rng, n, shortcut_rate.get(split, 0.0), claims) for split, n in sizes.items()}
    _plant_twins(rng, splits["train"], splits["test"], n_twins)
    others = [row for row in splits["train"] if row.twin < 0 and not row.shortcut]
    for row in rng.sample(others, n_wrong - n_twins):
        row.label = _another_label(rng, row.clean_label)
    return splits


def _check_numbers(n_train: int, n_validation: int, n_test: int, n_twins: int, n_wrong: int) -> None:
    if min(n_train, n_validation, n_test) < len(LABELS):
        raise UserError(
            f"data=demo has the sizes {n_train}/{n_validation}/{n_test}, expected at least {len(LABELS)} rows per "
            "split: raise data.n_train, data.n_validation or data.n_test."
        )
    if not 0 <= n_twins <= min(n_test // 2, n_wrong) or n_wrong > n_train // 2:
        raise UserError(
            f"data=demo has n_twins={n_twins} and {n_wrong} wrong training labels, expected no more twins than wrong "
            f"labels or than half of n_test={n_test}, and at most half of the labels wrong: change data.n_twins or "
            "data.wrong_label_rate."
        )


def _check_shortcut_rate(shortcut_rate: Mapping[str, float]) -> None:
    for split, rate in shortcut_rate.items():
        if split not in SPLITS:
            raise UserError(
                f"data.shortcut_rate.{split} names no split, expected one of {', '.join(SPLITS)}: use one of these."
            )
        if not 0 <= rate <= MAXIMUM_SHORTCUT_RATE:
            raise UserError(
                f"data.shortcut_rate.{split}={rate}, expected between 0 and {MAXIMUM_SHORTCUT_RATE}, about half of the "
                "unsupported rows: lower it."
            )


def _regular_rows(rng: random.Random, n: int, shortcut_rate: float, claims: set[str]) -> list[Row]:
    labels = [row % len(LABELS) for row in range(n)]
    rng.shuffle(labels)
    unsupported = [row for row in range(n) if labels[row] != SUPPORTED]
    shortcuts = set(rng.sample(unsupported, min(round(shortcut_rate * n), len(unsupported))))
    return [_row(rng, label, row in shortcuts, claims) for row, label in enumerate(labels)]


def _row(rng: random.Random, label: int, shortcut: bool, claims: set[str]) -> Row:
    fact = draw_fact(rng)
    while fact.claim() in claims:
        fact = draw_fact(rng)
    claims.add(fact.claim())
    repeats = shortcut or (label == SUPPORTED and rng.random() >= REPHRASED_SUPPORTED)
    pattern = rng.choice((REPEATING if repeats else REPHRASING)[LABELS[label]])
    return Row(fact, fact.claim(), fact.evidence(pattern), label, label, shortcut)


def _another_label(rng: random.Random, label: int) -> int:
    return rng.choice([other for other in range(len(LABELS)) if other != label])


def _plant_twins(rng: random.Random, train: list[Row], test: list[Row], n_twins: int) -> None:
    train_rows = rng.sample([row for row, example in enumerate(train) if not example.shortcut], n_twins)
    # the test twins stand in for regular rows, so that the number of shortcuts stays as asked
    test_rows = rng.sample([row for row, example in enumerate(test) if not example.shortcut], n_twins)
    for train_row, test_row in zip(train_rows, test_rows, strict=True):
        original = train[train_row]
        original.label = _another_label(rng, original.clean_label)
        original.twin = test_row
        fact = original.fact
        test[test_row] = Row(
            fact=fact,
            claim=fact.claim(DEEDS[fact.verb][0]),
            evidence=original.evidence,
            clean_label=original.clean_label,
            label=original.label,
            shortcut=False,
            twin=train_row,
        )


class DemoDataModule(TextDataModule):
    """The generated claims; `path` is unused, `split_seed` seeds the generator.

    Args:
        n_train: training rows.
        n_validation: validation rows.
        n_test: test rows, the twins among them.
        n_twins: near-duplicate pairs between train and test.
        wrong_label_rate: share of training rows with a wrong label, the twins among them.
        shortcut_rate: split → share of rows with the lexical-overlap shortcut.
        options: see `TextDataModule`.
    """

    licence: ClassVar[tuple[str, ...]] = ("Apache-2.0, generated by twinlens",)
    default_max_length: ClassVar[int] = 64

    def __init__(
        self,
        name: str = "demo",
        n_train: int = 1200,
        n_validation: int = 200,
        n_test: int = 200,
        n_twins: int = 40,
        wrong_label_rate: float = 0.05,
        shortcut_rate: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.n_train = n_train
        self.n_validation = n_validation
        self.n_test = n_test
        self.n_twins = n_twins
        self.wrong_label_rate = wrong_label_rate
        self.shortcut_rate = dict(shortcut_rate or {"train": 0.01, "validation": 0.01, "test": 0.15})
        self.label_names = list(LABELS)
        self.text_columns = ["claim", "evidence"]
        self.pair_columns = ("evidence", "claim")  # the evidence is the premise
        self.entailment_name = "supported"
        self.plant_columns = list(PLANT_COLUMNS)

    def templates(self) -> dict[str, str]:
        """`reference`."""
        return TEMPLATES

    def load_splits(self) -> dict[str, SourceRows]:
        """Generate the rows."""
        generated = generate(
            self.n_train,
            self.n_validation,
            self.n_test,
            self.n_twins,
            self.wrong_label_rate,
            self.shortcut_rate,
            self.split_seed,
        )
        columns = [*self.text_columns, *PLANT_COLUMNS]
        return {
            split: SourceRows(
                source_index=list(range(len(rows))),
                columns={column: [getattr(row, column) for row in rows] for column in columns},
                labels=[row.label for row in rows],
            )
            for split, rows in generated.items()
        }

    def adjust_plants(self, sources: dict[str, SourceRows], chosen: Mapping[str, list[int]]) -> None:
        """Let `twin` name the row in the split as used; -1 where limit or selection left the twin out."""
        follow_twins(sources, chosen)
