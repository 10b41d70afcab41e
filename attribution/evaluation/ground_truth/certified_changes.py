"""Changes of predictions whose first instances and neurons are taken away: what scores predict, and what came about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.evaluation.conformal import Intervals, Known
from twinlens.attribution.evaluation.ground_truth.correlation import pearson
from twinlens.attribution.evaluation.resampling import DRAWS, interval
from twinlens.attribution.targets import Targets

PARTS = ("instances", "neurons", "sum", "joint")
"""What is taken away: the instances alone, the neurons alone, each by itself with both changes added, both at once."""
REFIT, RETRAINED = "refit", "retrained"
"""How instances are taken away: the head fitted exactly without them, or the whole model trained without them."""
LEAST_SHARE = 0.001
"""Of its probability that a target keeps at least, as predicted: scores may add up to more than there is."""


@dataclass(frozen=True)
class Removed:
    """What is taken away from each test, and what the scores say of it.

    Attributes:
        rows: first train rows of the instance list, [tests, k].
        scores: sum of their scores, in the method's own unit, [tests].
        off: predicted change of φ with the first neurons switched off, in nats up to a factor, [tests].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import Removed
        >>> Removed(torch.tensor([[4, 1]]), torch.tensor([0.3]), torch.tensor([-0.1])).rows.shape
        torch.Size([1, 2])
    """

    rows: Tensor
    scores: Tensor
    off: Tensor

    def at(self, tests: Tensor) -> Removed:
        """Of some tests."""
        return Removed(self.rows[tests], self.scores[tests], self.off[tests])


@dataclass(frozen=True)
class Certified:
    """Predicted and realised changes of one part under one kind of removal.

    Attributes:
        part: one of `PARTS`.
        truth: `refit` or `retrained`.
        tests: places of the tests, [n].
        intervals: of the changes of φ, in nats.
        known: what they were predicted from, with the realised changes as outcome.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.conformal import Intervals, Known
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import Certified
        >>> ends = torch.zeros(2), torch.tensor([-0.2, -0.2]), torch.tensor([0.1, 0.1])
        >>> known = Known(torch.rand(2, 2), torch.empty(2, 0), torch.tensor([-0.1, -0.5]))
        >>> one = Certified("joint", "refit", torch.arange(2), Intervals(*ends), known)
        >>> one.intervals.hold(one.realised).tolist()
        [True, False]
    """

    part: str
    truth: str
    tests: Tensor
    intervals: Intervals
    known: Known

    @property
    def realised(self) -> Tensor:
        """Change of φ of each, in nats, [n], float64."""
        return self.known.outcome


def change_with_neurons_off(scores: Tensor, target_prob: Tensor | None) -> Tensor:
    """Predicted change of φ when neurons are switched off, [tests], float64.

    Args:
        scores: sum of their scores, [tests].
        target_prob: probability of the target, [tests], where the scores are shares of it; None: they are nats.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import change_with_neurons_off
        >>> change_with_neurons_off(torch.tensor([0.3]), torch.tensor([0.6])).exp()  # half of the probability is left
        tensor([0.5000], dtype=torch.float64)
    """
    scores = scores.double()
    if target_prob is None:
        return -scores
    prob = target_prob.double().clamp(min=torch.finfo(torch.float32).tiny)
    return (1 - scores / prob).clamp(min=LEAST_SHARE, max=1 / LEAST_SHARE).log()


def changes_of_parts(
    before: Tensor, after: Tensor, taken: Removed, targets: Targets
) -> Iterator[tuple[str, Known, Tensor | None]]:
    """Each part, with what predicts its changes and the changes themselves, and what those cannot exceed.

    Args:
        before: φ, [tests].
        after: without instances, without neurons, without both, [3, tests].
        taken: what is taken away of these tests.
        targets: of these tests.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import Removed, changes_of_parts
        >>> from twinlens.attribution.targets import Targets
        >>> taken = Removed(torch.tensor([[0]]), torch.tensor([0.2]), torch.tensor([-0.1]))
        >>> before, after = torch.tensor([-0.1]), torch.tensor([[-0.3], [-0.2], [-0.6]])
        >>> parts = changes_of_parts(before, after, taken, Targets(torch.tensor([1])))
        >>> [(part, round(float(known.outcome), 2)) for part, known, _ in parts]
        [('instances', -0.2), ('neurons', -0.1), ('sum', -0.3), ('joint', -0.5)]
    """
    without_instances, without_neurons, without_both = (after - before).double()
    instances, neurons = taken.scores.double()[:, None], taken.off.double()[:, None]
    both = torch.cat([instances, neurons], 1)
    is_log_prob = targets.against is None
    # a confident prediction has little to lose by a small change, whatever the scores say
    spread = (1 - before.double().exp()).clamp(min=0)[:, None] if is_log_prob else both[:, :0]
    highest = -before.double() if is_log_prob else None
    yield "instances", Known(instances, spread, without_instances), highest
    yield "neurons", Known(neurons, spread, without_neurons), highest
    yield "sum", Known(both, spread, without_instances + without_neurons), None
    yield "joint", Known(both, spread, without_both), highest


def correlated(predicted: Tensor, realised: Tensor) -> tuple[float, float, float]:
    """Pearson's correlation with a 95 % bootstrap interval over examples.

    Args:
        predicted, realised: [examples], float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.certified_changes import correlated
        >>> value, low, high = correlated(torch.arange(20.0), torch.arange(20.0) ** 2)
        >>> round(value, 3), low < value < high
        (0.965, True)
    """
    drawn = torch.randint(len(realised), (DRAWS, len(realised)), generator=torch.Generator().manual_seed(0))
    low, high = interval(pearson(predicted[drawn].double(), realised[drawn].double()))
    return float(pearson(predicted.double(), realised.double())), low, high
