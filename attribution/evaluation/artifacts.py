"""Share of train instances with a dataset artifact among those put forward (first paper, Sec. 6.3, Table 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available, missing_methods
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import RANDOM

Measure = Literal["jaccard", "containment"]
Pair = tuple[str, str]
"""(premise, hypothesis)"""

_WORD = re.compile(r"\w+")


def lexical_overlap(pair: Pair, measure: Measure = "jaccard") -> float:
    """Share of common words of a pair, 0 where there is no word.

    `jaccard`: different words, separated by white space and taken as they stand, that both texts contain, over those
    that either contains. `containment`: different words of the hypothesis that the premise contains too, over those of
    the hypothesis, regardless of case and punctuation (the lexical overlap heuristic of McCoy et al. 2019).

    Example:
        >>> from twinlens.attribution.evaluation.artifacts import lexical_overlap
        >>> pair = ("The man runs fast.", "the man runs")
        >>> round(lexical_overlap(pair, "jaccard"), 2), lexical_overlap(pair, "containment")
        (0.4, 1.0)
    """
    if measure == "jaccard":
        premise, hypothesis = (set(text.split()) for text in pair)
        either = premise | hypothesis
    else:
        premise, hypothesis = (set(_WORD.findall(text.lower())) for text in pair)
        either = hypothesis
    return len(premise & hypothesis) / len(either) if either else 0.0


def mispredicted_as_entailed(prediction: Tensor, label: Tensor, entailed: int) -> Tensor:
    """Examples predicted as entailment that are labelled otherwise, bool [tests]; unlabelled ones are not.

    Args:
        prediction, label: classes, folded ones where the split has a fold, [tests]; label −1: none.
        entailed: the class of entailment among them.
    """
    return (prediction == entailed) & (label >= 0) & (label != entailed)


def own_artifacts(pairs: Sequence[Pair]) -> Tensor:
    """Examples all of whose hypothesis words stand in the premise, bool [tests]."""
    return torch.tensor([lexical_overlap(pair, "containment") == 1.0 for pair in pairs], dtype=torch.bool)


@dataclass(frozen=True)
class Artifacts:
    """Metric `lexical_overlap` of the train instances that are put forward for mispredictions as entailment.

    Group `challenge`: explained examples of a challenge set (a split whose labels are folded, HANS); group `own`:
    examples of the dataset itself all of whose hypothesis words stand in the premise. In both, those that are not
    entailed and predicted as entailment (the class that the data name so). Of each, the mean over its first k train
    instances; then mean and standard error over examples, of methods with seeds after the mean over seeds. A higher
    number means that the method points at instances with the artifact. The control is what random instances have on
    average.

    Args:
        measure: `jaccard | containment`, see `lexical_overlap`. The paper does not define its measure; jaccard is
            the one that gives its random figure (0.16 on the training set; 0.17 on MNLI's matched validation set,
            where containment gives 0.49).
        top: lengths of lists; the paper's 1 and 10.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.artifacts import Artifacts
        >>> train = [("a man runs", "a man runs"), ("a dog sleeps", "the cat eats")]
        >>> lists = {"gradsim": torch.tensor([[[0, 1], [1, 0]]])}  # [seeds, tests, k]
        >>> rows = Artifacts(top=[1]).evaluate(train, lists, asked=torch.tensor([True, False]), group="challenge")
        >>> [(row.method, row.value) for row in rows]  # test 0 is shown the pair with the artifact
        [('gradsim', 1.0), ('random_instances', 0.5)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified", "mccoy2019hans")
    measure: Measure = "jaccard"
    top: Sequence[int] = (1, 10)
    requires: ClassVar[str] = "pairs"

    def __post_init__(self) -> None:
        if any(n < 1 for n in self.top):
            raise UserError(
                f"evaluation.artifacts.top={list(self.top)} has an empty list, expected lengths of at least 1: "
                "set e.g. evaluation.artifacts.top=[1,10]."
            )

    def missing(self, available: Available) -> str:
        """Name what the run lacks, empty where nothing is missing."""
        if not available.pairs:
            return "data whose examples are pairs of texts (e.g. data=mnli)"
        return missing_methods(available, "instance")

    def evaluate(
        self, train: Sequence[Pair], lists: Mapping[str, Tensor], asked: Tensor, group: Literal["challenge", "own"]
    ) -> list[Result]:
        """Results of every method and of the random control, unless no example is asked about.

        Args:
            train: pairs of the train split, in row order.
            lists: method → best train rows, [seeds, tests, k].
            asked: mispredicted examples of the group, bool [tests].
        """
        n = int(asked.sum())
        if n == 0:
            return []
        overlap = torch.tensor([lexical_overlap(pair, self.measure) for pair in train], dtype=torch.float64)
        variant = "" if self.measure == "jaccard" else f"measure={self.measure}"
        results = []
        for k in self.top:
            for method, rows in lists.items():
                if k <= rows.shape[-1]:
                    of_lists = overlap[rows[:, asked, :k]].mean(-1).mean(0)
                    mean, error = mean_and_error(of_lists)
                    results.append(
                        Result(
                            "lexical_overlap", mean, error, n=n, k=k, group=group, variant=variant, method=method,
                            samples=of_lists,
                        )
                    )  # fmt: skip
            if RANDOM not in lists:  # the expectation of a random draw is known
                mean = float(overlap.mean())
                results.append(
                    Result(
                        "lexical_overlap", mean, None, n=n, k=k, group=group, variant=variant, method=RANDOM,
                        control=True, samples=torch.full((n,), mean, dtype=torch.float64),
                    )
                )  # fmt: skip
        return results
