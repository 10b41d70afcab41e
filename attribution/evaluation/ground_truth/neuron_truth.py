"""Scores of all neurons against exact ablation: correlations and recall, over all neurons and layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.correlation import pearson, spearman
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error


@dataclass(frozen=True)
class Agreement:
    """How well a method's scores of some tests agree with the truth.

    Attributes:
        pearson, spearman: over all neurons, [tests].
        of_layers: the same within each layer, [2, tests, layers].
        recall: of the truth's first k neurons those among the method's first k, a share, [counts, tests].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.neuron_truth import agreement
        >>> truth = torch.tensor([[[0.1, 0.3], [0.2, -0.4]]])  # [tests, layers, neurons]
        >>> found = agreement(2 * truth, truth, counts=[1])
        >>> float(found.pearson), found.recall.tolist(), found.of_layers.shape
        (1.0, [[1.0]], torch.Size([2, 1, 2]))
    """

    pearson: Tensor
    spearman: Tensor
    of_layers: Tensor
    recall: Tensor


def agreement(scores: Tensor, truth: Tensor, counts: Sequence[int]) -> Agreement:
    """Agreement of scores with the truth, test by test.

    Args:
        scores, truth: [tests, layers, neurons].
        counts: k of the recall.
    """
    flat, true = scores.flatten(1), truth.flatten(1)
    order, first = (side.argsort(dim=1, descending=True, stable=True) for side in (flat, true))
    recall = []
    for k in counts:
        listed = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order[:, :k], True)
        recall.append(listed.gather(1, first[:, :k]).double().mean(1))
    layers = torch.stack([pearson(scores, truth), spearman(scores, truth)])
    return Agreement(pearson(flat, true), spearman(flat, true), layers, torch.stack(recall))


@dataclass(frozen=True)
class NeuronTruth:
    """Metrics `neuron_pearson`, `neuron_spearman` and `neuron_recall` @k: neuron methods against exact ablation.

    The truth is the score of another method of the run, by default that of switching every neuron off alone. For every
    explained example: Pearson's and Spearman's correlation over all neurons of the site, and how many of the truth's
    first k neurons are among the method's first k (chance: k over all neurons). Mean over examples, for a method that
    draws over its seeds first; standard error and bootstrap interval over examples. The correlations are also given
    within each layer (`group`). Where a list leaves neurons out (`preset: reference`), these count as 0.

    Attributes:
        of: the method whose scores are the truth.
        recall: values of k.

    Raises:
        UserError: no k, or one below 1.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.neuron_truth import NeuronTruth
        >>> truth = torch.tensor([[[0.1, 0.3], [0.2, -0.4]]])  # [tests, layers, neurons]
        >>> test = NeuronTruth(recall=[1])
        >>> rows = test.evaluate({"ig": [test.compare(truth.exp(), truth)]}, controls=[])
        >>> {row.metric: round(row.value, 2) for row in rows if not row.group}
        {'neuron_pearson': 1.0, 'neuron_spearman': 1.0, 'neuron_recall': 1.0}
    """

    requires: ClassVar[str] = "neuron_truth"

    of: str = "ablation"
    recall: Sequence[int] = (10, 100)

    def __post_init__(self) -> None:
        if not self.recall or any(k < 1 for k in self.recall):
            raise UserError(
                f"evaluation.neuron_truth.recall={list(self.recall)} asks for no neuron; expected numbers from 1 on: "
                "write recall=[10]."
            )

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        if self.of not in available.neuron:
            return f"the method whose scores are the truth (method={self.of})"
        return "" if len(available.neuron) > 1 else f"a neuron method beside {self.of} (e.g. method=ig)"

    def require_neurons(self, name: str, top_k: int, n_neurons: int) -> None:
        """Refuse lists that do not hold every neuron of their site.

        Args:
            name, top_k: of the method.
            n_neurons: of all layers.

        Raises:
            UserError: naming the setting.
        """
        if top_k < n_neurons:
            raise UserError(
                f"evaluation=neuron_truth reads the scores of all {n_neurons} neurons, but method.{name}.top_k={top_k} "
                f"keeps the best alone; expected lists of all: set method.{name}.top_k={n_neurons}."
            )

    def compare(self, scores: Tensor, truth: Tensor) -> Agreement:
        """Agreement of some tests, [tests, layers, neurons] each."""
        return agreement(scores, truth, self.recall)

    def evaluate(self, found: Mapping[str, Sequence[Agreement]], controls: Sequence[str]) -> list[Result]:
        """Results of each method.

        Args:
            found: method → agreement of all tests for each of its seeds.
            controls: names of the methods that are controls.
        """
        results = []
        for name, of_seeds in found.items():
            said: dict[str, Any] = {"method": name, "better": "higher", "control": name in controls}
            said["variant"] = "" if self.of == "ablation" else f"of={self.of}"
            for metric in ("pearson", "spearman"):
                each = torch.stack([getattr(one, metric) for one in of_seeds]).mean(0)
                results.append(_mean(f"neuron_{metric}", each, **said))
            recall = torch.stack([one.recall for one in of_seeds]).mean(0)
            for k, each in zip(self.recall, recall, strict=True):
                results.append(_mean("neuron_recall", each, k=k, **said))
            layers = torch.stack([one.of_layers for one in of_seeds]).mean(0)
            for metric, of_layers in zip(("pearson", "spearman"), layers, strict=True):
                for layer, each in enumerate(of_layers.T):
                    results.append(_mean(f"neuron_{metric}", each, group=f"layer={layer}", **said))
        return results


def _mean(metric: str, each: Tensor, **said: Any) -> Result:
    low, high = ends(each[None], lambda means: means[:, 0])
    return Result(metric, *mean_and_error(each), n=len(each), low=low, high=high, samples=each, **said)
