"""Concepts that the retrieved train instances cover (first paper, Sec. 5.1, on CommonsenseQA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error, wilson

COLUMN = "concept"


@dataclass(frozen=True)
class Concepts:
    """Numbers of concepts and how far the two splits share them; the same of what each method retrieves.

    Of the data: `concepts_train` and `concepts_test`, different concepts; `concepts_shared`, those of the explained
    split that occur in train (most likely what the paper prints as its test split's 725); `concept_coverage`, per cent
    of the explained split's concepts that occur in train; `concept_use`, per cent of the train split's that occur in
    the explained split. Per method (k = top): `concepts_retrieved`, different concepts among the first k train
    instances of all examples; `concept_match`, per cent of an example's first k train instances that have its concept.
    Of methods with seeds, means over seeds; the error of `concepts_retrieved` is over seeds, that of `concept_match`
    over examples. Case and surrounding white space do not count.

    Args:
        top: entries of each list that count.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.concepts import Concepts
        >>> lists = {"gradsim": torch.tensor([[[0, 1]]])}  # [seeds, tests, k]
        >>> rows = Concepts(top=2).evaluate(["river", "chair", "river"], ["River"], lists)
        >>> {row.metric: round(row.value) for row in rows if row.method}  # concepts; per cent of the list
        {'concepts_retrieved': 2, 'concept_match': 50}
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    top: int = 10
    requires: ClassVar[str] = "concepts"

    def __post_init__(self) -> None:
        if self.top < 1:
            raise UserError(f"evaluation.concepts.top={self.top} counts nothing, expected at least 1: raise it.")

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        return "" if COLUMN in available.columns else f"data with a column {COLUMN} (e.g. data=cosqa)"

    def evaluate(self, train: Sequence[str], test: Sequence[str], lists: Mapping[str, Tensor]) -> list[Result]:
        """Five results of the data and two per method.

        Args:
            train, test: concept of every example of the train and the explained split.
            lists: method → best train rows, [seeds, tests, k].
        """
        number: dict[str, int] = {}
        of_train, of_test = (
            torch.tensor([number.setdefault(text.strip().lower(), len(number)) for text in texts], dtype=torch.int64)
            for texts in (train, test)
        )
        in_train, in_test = torch.unique(of_train), torch.unique(of_test)
        shared = int(torch.isin(in_test, in_train).sum())
        results = [
            Result("concepts_train", float(len(in_train)), n=len(of_train)),
            Result("concepts_test", float(len(in_test)), n=len(of_test)),
            Result("concepts_shared", float(shared), n=len(in_test)),
            share("concept_coverage", shared, len(in_test)),
            share("concept_use", shared, len(in_train)),
        ]
        for method, rows in lists.items():
            retrieved = of_train[rows[..., : self.top]]
            count, count_error = mean_and_error([float(len(torch.unique(run))) for run in retrieved])
            match = 100 * (retrieved == of_test[:, None]).double().mean(-1).mean(0)
            mean, error = mean_and_error(match)
            results += [
                Result("concepts_retrieved", count, count_error, n=len(match), k=self.top, method=method),
                Result("concept_match", mean, error, n=len(match), k=self.top, method=method, samples=match),
            ]
        return results


def share(metric: str, count: int, n: int) -> Result:
    """`count` of n in per cent, with Wilson's interval."""
    low, high = wilson(count / n, n, 100)
    return Result(metric, 100 * count / n, n=n, low=low, high=high)
