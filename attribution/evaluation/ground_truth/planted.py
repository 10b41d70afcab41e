"""Planted rows: wrong labels found by scores, and planted artefacts told from rows of the same label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import DRAWS, counts_of_draws
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, ScoredMethod, TruthInputs
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.resampling import ends, interval
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.instance.ranks import average_ranks


def area_under_roc(values: Tensor, wanted: Tensor) -> Tensor:
    """Chance that a wanted row has a higher value than an unwanted one, ties counting half, [...], float64.

    Args:
        values: [..., rows].
        wanted: [rows], bool, some true and some false.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.planted import area_under_roc
        >>> area_under_roc(torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([True, False, True, False]))
        tensor(0.8750, dtype=torch.float64)
    """
    flat = values.reshape(-1, values.shape[-1])
    ranks = average_ranks(-flat)  # 1 the lowest
    n_wanted = int(wanted.sum())
    n_others = len(wanted) - n_wanted
    found = (ranks[:, wanted].sum(1) - n_wanted * (n_wanted + 1) / 2) / (n_wanted * n_others)
    return found.view(values.shape[:-1])


@dataclass(frozen=True)
class Mislabelled(GroundTruth):
    """Metric `mislabel_auc`: how well scores tell train rows with a wrong label from the others (AUROC, chance ½).

    Group `self_influence`: by the score of a row against itself, the highest first; a wrong label is explained by
    nothing but its own row. Group `mean`: by the mean score over the explained examples, the lowest first; wrong labels
    harm what the other rows support. Standard error and interval by a bootstrap over train rows; of a method that draws
    the mean over its seeds.

    Attributes:
        column: plant column of the train split that says which labels are wrong.
        rows: train rows whose labels are known to be wrong, instead of a column.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.planted import Mislabelled
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> own = torch.tensor([0.1, 0.9, 0.2, 0.3])  # row 1 is labelled wrongly
        >>> methods = {"gradsim": HeldScores(torch.tensor([[[0.2, -0.5, 0.1, 0.3]]]), own=own)}
        >>> inputs = TruthInputs(4, methods, torch.arange(1), lambda rows, seed: torch.zeros(1))
        >>> [(row.group, row.value) for row in Mislabelled(rows=[1]).evaluate(inputs)]
        [('self_influence', 1.0), ('mean', 1.0)]
    """

    column: str = "wrong_label"
    rows: Sequence[int] | None = None

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        lacking = super().missing(available)
        if not lacking and self.rows is None and self.column not in available.columns:
            return f"a column {self.column} of wrong labels (data=demo), or evaluation.mislabel.rows"
        return lacking

    def require_rows(self, n_train: int) -> None:
        """Refuse named rows that the train split does not have.

        Raises:
            UserError: naming the first of them.
        """
        missing = [row for row in self.rows or () if not 0 <= row < n_train]
        if missing:
            raise UserError(
                f"evaluation.mislabel.rows names row {missing[0]}, and the train split has rows 0 to {n_train - 1}; "
                "expected rows of it: write the numbers in its column index."
            )

    def lacking(self, inputs: TruthInputs) -> str:
        """Wrong labels, or right ones."""
        wrong = self._wrong(inputs)
        if bool(wrong.any()) and not bool(wrong.all()):
            return ""
        return f"wrong labels and right ones ({int(wrong.sum())} of {len(wrong)} are wrong: raise data.limit.train)"

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """A result or two for each method."""
        wrong = self._wrong(inputs)
        found = []
        for name, method in inputs.methods.items():
            own = method.self_influence()
            by_group = {} if own is None else {"self_influence": own}
            means = method.means()
            if bool(means.isfinite().all()):
                by_group["mean"] = -means
            for group, values in by_group.items():
                if float(values.min()) == float(values.max()):  # a cosine of a row with itself says nothing
                    continue
                low, high, error = _resampled_area(values, wrong)
                found.append(
                    Result(
                        "mislabel_auc", float(area_under_roc(values, wrong)), error, n=len(wrong), k=int(wrong.sum()),
                        group=group, method=name, better="higher", control=method.is_control, low=low, high=high,
                    )
                )  # fmt: skip
        return found

    def _wrong(self, inputs: TruthInputs) -> Tensor:
        """Which train rows carry a wrong label, [n_train], bool."""
        if self.rows is None:
            return inputs.columns[self.column][0].bool()
        wrong = torch.zeros(inputs.n_train, dtype=torch.bool)
        wrong[torch.tensor(self.rows, dtype=torch.int64)] = True
        return wrong


@dataclass(frozen=True)
class Shortcut(GroundTruth):
    """Metric `shortcut_auc`: how well scores tell train rows with a planted artefact from others of the same label, for
    tests that have it (AUROC, chance ½).

    Rows of the label that is explained of a test speak for it, and the planted ones among them should stand above the
    others; rows of another label speak against it, and a method with a sign has to put the planted ones below the
    others of their label (one without a sign above). Of each test the mean over the planted rows that have others of
    their label beside them; mean over tests, with standard error and bootstrap interval.

    Attributes:
        column: plant column of both splits that says which rows have the artefact.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.planted import Shortcut
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> methods = {"gradsim": HeldScores(torch.tensor([[[0.9, 0.1, -0.8, -0.2]]]))}
        >>> columns = {"shortcut": (torch.tensor([True, False, True, False]), torch.tensor([True]))}
        >>> label = torch.tensor([0, 0, 1, 1])  # what is explained of the test is class 0
        >>> inputs = TruthInputs(4, methods, torch.arange(1), lambda rows, seed: torch.zeros(1), label,
        ...                      columns=columns, target=torch.tensor([0]))
        >>> [row.value for row in Shortcut().evaluate(inputs)]
        [1.0]
    """

    reads_all_scores: ClassVar[bool] = True

    column: str = "shortcut"

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        lacking = super().missing(available)
        if not lacking and self.column not in available.columns:
            return f"data with a planted column {self.column} (data=demo)"
        return lacking

    def lacking(self, inputs: TruthInputs) -> str:
        """Tests with the artefact, or train rows with it beside others of their label."""
        planted, asked = (side.bool() for side in inputs.columns[self.column])
        if bool(asked.any()) and self._labels(planted, inputs.train_label):
            return ""
        return f"tests and train rows with {self.column} ({int(asked.sum())} and {int(planted.sum())} here)"

    def evaluate(self, inputs: TruthInputs) -> list[Result]:
        """A result for each method."""
        planted, asked = (side.bool() for side in inputs.columns[self.column])
        label, target = inputs.train_label, inputs.target
        assert label is not None, "train rows of data with plants have labels"
        assert target is not None, "data with plants have classes"
        tests = torch.nonzero(asked)[:, 0].tolist()
        labels = self._labels(planted, label)
        found = []
        for name, method in inputs.methods.items():
            of_seeds = [
                torch.tensor([self._area(method, seed, test, planted, label, labels, int(target[test]))
                              for test in tests], dtype=torch.float64)
                for seed in range(method.n_seeds)
            ]  # fmt: skip
            each = torch.stack(of_seeds).mean(0)
            low, high = ends(each[None], lambda means: means[:, 0])
            found.append(
                Result(
                    "shortcut_auc", *mean_and_error(each), n=len(each), k=int(planted.sum()), method=name,
                    better="higher", control=method.is_control, low=low, high=high, samples=each,
                )
            )  # fmt: skip
        return found

    def _labels(self, planted: Tensor, label: Tensor | None) -> list[int]:
        """Labels of planted rows that have others of their label beside them."""
        if label is None:
            return []
        own = {int(one): planted[label == one] for one in label.unique()}
        return [one for one, rows in own.items() if bool(rows.any()) and not bool(rows.all())]

    def _area(
        self, method: ScoredMethod, seed: int, test: int, planted: Tensor, label: Tensor, labels: list[int], target: int
    ) -> float:
        scores = method.dense(seed, test, test + 1)[0].double()
        total, count = 0.0, 0
        for one in labels:
            own = label == one
            sign = 1 if one == target or not method.has_sign else -1
            n_planted = int(planted[own].sum())
            total += n_planted * float(area_under_roc(sign * scores[own], planted[own]))
            count += n_planted
        return total / count


def _resampled_area(values: Tensor, wanted: Tensor) -> tuple[float, float, float]:
    """Ends of the 95 % interval and standard error of the area, over train rows drawn with replacement."""
    order = values.argsort()
    _, group = values[order].unique_consecutive(return_inverse=True)
    counts = counts_of_draws(len(values), DRAWS, seed=0)[:, order]
    yes, no = counts * wanted[order], counts * ~wanted[order]
    shape = len(counts), int(group.max()) + 1
    of_values = [torch.zeros(shape, dtype=torch.float64).index_add_(1, group, side) for side in (yes, no)]
    below = of_values[1].cumsum(1) - of_values[1] / 2
    areas = (of_values[0] * below).sum(1) / (yes.sum(1) * no.sum(1))
    areas = areas[areas.isfinite()]  # a resample without any wrong label says nothing
    low, high = interval(areas)
    return low, high, float(areas.std())
