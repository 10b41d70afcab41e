"""dattri's logistic-regression setting on scikit-learn's digits: twinlens beside dattri, on one set of exact refits.

    python -m benchmarks.digits

Logistic regression with a bias on 64 pixels, solved exactly on all train rows, on random halves of them and without
each row. Scores of both projects for the same head, held against both truths with both projects' own measures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.head_peers import dattri_gradient_scores, dattri_influence_scores
from benchmarks.instance import MEMORY_BUDGET, Splits
from twinlens.attribution.evaluation.ground_truth.convex_head import ConvexHead
from twinlens.attribution.evaluation.ground_truth.correlation import pearson, spearman
from twinlens.attribution.evaluation.train_ranking import random_ranking
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod
from twinlens.data.digits import COLUMN, DigitsDataModule

PENALTY = 1e-3
"""λ of the refits, the usual weight decay of logistic regression."""
DAMPING = 0.1
"""Of influence, relative to the mean eigenvalue; dattri is told the absolute value."""


@dataclass(frozen=True)
class Compared:
    """One method, scored by both projects.

    Attributes:
        name: of the method.
        scores, peer: by twinlens and by dattri, [tests, n_train] each, float64.
    """

    name: str
    scores: Tensor
    peer: Tensor

    @property
    def difference(self) -> float:
        """Largest difference of two scores, as a share of the largest score."""
        return float((self.scores - self.peer).abs().max() / self.scores.abs().max())


@dataclass(frozen=True)
class Truth:
    """What exact refits say of the tests' log-probability of their predicted class.

    Attributes:
        halves: train rows of each half, [halves, rows].
        of_halves: under the head of each half, [tests, halves].
        left_out: with all rows less without each of them, [tests, n_train].
    """

    halves: Tensor
    of_halves: Tensor
    left_out: Tensor


def digits(n_train: int, n_test: int) -> Splits:
    """Pixels from 0 to 1 with a 1 behind them, the exactly solved head, and its predictions as labels of the tests."""
    source = DigitsDataModule(n_train=n_train, n_validation=1, n_test=n_test).load_splits()
    features, labels = {}, {}
    for split in ("train", "test"):
        numbers = [[float(number) / 16 for number in text.split()] for text in source[split].columns[COLUMN]]
        features[split] = torch.cat([torch.tensor(numbers), torch.ones(len(numbers), 1)], 1).double()
        labels[split] = torch.tensor(source[split].labels)
    solved = problem(features["train"], labels["train"]).solve()
    head = nn.Linear(65, 10, bias=False).double()
    head.weight.data.copy_(solved)
    predicted = (features["test"] @ solved.T).argmax(1)
    train, test = HeadInputs(features["train"], labels["train"], head), HeadInputs(features["test"], predicted, head)
    return Splits(train, test, n_train)


def problem(features: Tensor, labels: Tensor) -> ConvexHead:
    """Logistic regression of ten classes over the mean loss."""
    return ConvexHead(features, labels, torch.zeros(10, features.shape[1], dtype=torch.float64), PENALTY)


def compared(splits: Splits) -> list[Compared]:
    """Gradient similarity and influence by both."""
    influence = Influence(damping=DAMPING)
    absolute = influence.prepare(splits.train, MEMORY_BUDGET).describe()["damping_absolute"]
    assert isinstance(absolute, float)
    return [
        Compared("gradsim", own(GradientSimilarity(), splits), dattri_gradient_scores(splits).double()),
        Compared("influence", own(influence, splits), dattri_influence_scores(splits, absolute).double()),
    ]


def own(method: InstanceMethod, splits: Splits) -> Tensor:
    """All scores by twinlens, [tests, n_train]."""
    scorer = method.prepare(splits.train, MEMORY_BUDGET)
    return scorer.scores(scorer.query(splits.test, torch.arange(len(splits.test))), 0, len(splits.train))


def truth_of(splits: Splits, n_halves: int) -> Truth:
    """Exact refits on random halves and without each row."""
    train, test = splits.train, splits.test

    def log_prob(weights: Tensor) -> Tensor:  # [..., classes, inputs] → [..., tests]
        found = (test.features @ weights.mT).log_softmax(-1)
        return found[..., torch.arange(len(test)), test.labels]

    halves = torch.stack([random_ranking(len(train), draw)[: len(train) // 2] for draw in range(n_halves)])
    of_halves = [log_prob(problem(train.features[rows], train.labels[rows]).solve()) for rows in halves]
    whole = problem(train.features, train.labels)
    solved = whole.solve()
    without = whole.without_each(solved, torch.arange(len(train)), MEMORY_BUDGET)
    return Truth(halves, torch.stack(of_halves, 1), log_prob(solved)[:, None] - log_prob(without).T)


def measures(scores: Tensor, truth: Truth) -> tuple[float, float]:
    """LDS and Pearson's correlation with leaving out, by twinlens."""
    taken = torch.zeros(scores.shape[1], len(truth.halves), dtype=torch.float64)
    for number, rows in enumerate(truth.halves):
        taken[rows, number] = 1
    return float(spearman(scores @ taken, truth.of_halves).mean()), float(pearson(scores, truth.left_out).mean())


def peer_measures(scores: Tensor, truth: Truth) -> tuple[float, float]:
    """The same by dattri."""
    from dattri.metric import lds, loo_corr

    rows = torch.arange(scores.shape[1])
    of_halves = lds(scores.T, (truth.of_halves.T, truth.halves))[0]
    return float(of_halves.mean()), float(loo_corr(scores.T, (truth.left_out.T, rows))[0].mean())


def table(n_train: int = 1000, n_test: int = 200, n_halves: int = 50) -> list[list[str]]:
    """One line for each method and project: LDS and leave one out by both projects' measures, largest difference."""
    splits = digits(n_train, n_test)
    truth = truth_of(splits, n_halves)
    lines = []
    for pair in compared(splits):
        for by, scores in (("twinlens", pair.scores), ("dattri", pair.peer)):
            mine, theirs = measures(scores, truth), peer_measures(scores, truth)
            shown = [f"{value:.4f}" for both in zip(mine, theirs, strict=True) for value in both]
            lines.append([pair.name, by, *shown, f"{pair.difference:.1e}"])
    return lines


HEADER = ("method", "scores by", "LDS", "LDS by dattri", "leave one out", "leave one out by dattri", "difference")


def main() -> int:
    """Print the table."""
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for line in table():
        print(f"| {' | '.join(line)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
