"""Sanity check of scores: the same method on a model whose weights have lost what they learnt."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import spearman
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, ScoredMethod, TruthInputs
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error

Model = TypeVar("Model", bound=nn.Module)
READS_THE_MODEL = ("head", "layers", "rows")
"""Forms of reading (`reads` of a method) that hold nothing but what the model makes of the examples."""


def with_shuffled_weights(model: Model, seed: int) -> Model:
    """A copy of a model with the entries of every parameter in a random order: their sizes stay, what they say is lost.

    Args:
        model: of any kind.
        seed: of the order.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.randomised import with_shuffled_weights
        >>> layer = torch.nn.Linear(3, 8)
        >>> other = with_shuffled_weights(layer, seed=0)
        >>> torch.equal(other.bias, layer.bias), torch.equal(other.bias.sort().values, layer.bias.sort().values)
        (False, True)
    """
    found = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return found


@dataclass(frozen=True)
class Randomised(GroundTruth):
    """Metric `randomised_spearman`: correlation of scores with those of the same method on a model with shuffled
    weights.

    What it is above 0 was not learnt: it comes from the labels of the rows, or from the texts. For every test
    Spearman's correlation over train rows; group `within_label`: over the rows of each label by itself, mean over
    labels by their rows. Mean over tests and seeds, with standard error and bootstrap interval over tests. Methods that
    do not read the model are left out.

    Attributes:
        seeds: of the shuffled weights.

    Raises:
        UserError: no seed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.randomised import Randomised
        >>> from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
        >>> before = HeldScores(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]))
        >>> after = HeldScores(torch.tensor([[[4.0, 5.0, 6.0, 1.0, 2.0, 3.0]]]))  # the same order within labels
        >>> inputs = TruthInputs(6, {"gradsim": before}, torch.arange(1), lambda rows, seed: torch.zeros(1),
        ...                      train_label=torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> rows = Randomised(seeds=[0]).compare(inputs, {"gradsim": [after]})
        >>> [(row.group, round(row.value, 2)) for row in rows]
        [('', -0.54), ('within_label', 1.0)]
    """

    requires: ClassVar[str] = "randomised"
    reads_all_scores: ClassVar[bool] = True

    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UserError("evaluation.randomised.seeds=[] shuffles nothing, expected at least one seed: write [0].")

    def compare(self, inputs: TruthInputs, after: dict[str, list[ScoredMethod]]) -> list[Result]:
        """Two results for each method.

        Args:
            inputs: of the run.
            after: method → its scores with the weights of each seed.
        """
        found = []
        for name, others in after.items():
            own = inputs.methods[name]
            pairs = [self._correlations(inputs, own, other) for other in others]
            for place, group in enumerate(("", "within_label")):
                each = torch.stack([pair[place] for pair in pairs]).mean(0)
                low, high = ends(each[None], lambda means: means[:, 0])
                found.append(
                    Result(
                        "randomised_spearman", *mean_and_error(each), n=len(each), group=group, method=name,
                        better="lower", control=own.is_control, low=low, high=high, samples=each,
                    )
                )  # fmt: skip
        return found

    def _correlations(self, inputs: TruthInputs, own: ScoredMethod, other: ScoredMethod) -> tuple[Tensor, Tensor]:
        """Over all rows, and within labels, [tests] each."""
        label = inputs.train_label
        over_all, within = [], []
        for test in range(inputs.tests):
            before, after = (side.dense(0, test, test + 1)[0].double() for side in (own, other))
            over_all.append(spearman(before, after))
            groups = [] if label is None else [label == one for one in label.unique()]
            of_groups = [
                int(rows.sum()) * spearman(before[rows], after[rows]) for rows in groups if int(rows.sum()) > 2
            ]
            counted = sum(int(rows.sum()) for rows in groups if int(rows.sum()) > 2)
            within.append(torch.stack(of_groups).sum() / counted if of_groups else torch.zeros((), dtype=torch.float64))
        return torch.stack(over_all), torch.stack(within)
