"""Tail patch: one more training step on the first rows of a list, against as many random rows of the same labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth, TruthInputs
from twinlens.attribution.evaluation.needs import Available, missing_rankings
from twinlens.attribution.evaluation.resampling import ends
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.evaluation.subsets import RANDOM, SAME_LABELS, same_labels
from twinlens.attribution.evaluation.train_ranking import random_ranking
from twinlens.attribution.protocols import Batch


def stepped(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    losses_of: Callable[[Any, Batch], Tensor],
    batches: Iterable[Batch],
    size: float,
) -> dict[str, Tensor]:
    """Weights after one step of plain gradient descent, w − size · ∇(mean loss over all rows of the batches).

    Args:
        model: called with other weights than its own, which stay as they are.
        weights: those that take the step, by name.
        losses_of: (scores, batch) → loss of each row, [rows].
        batches: of rows; how they are cut has no effect beyond rounding.
        size: of the step, the learning rate.

    Returns:
        The names of `weights` with their new values.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.tail_patch import stepped
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> weights = {"weight": torch.tensor([[2.0]])}
        >>> square = lambda scores, batch: scores[:, 0].square()
        >>> stepped(model, weights, square, [torch.tensor([[1.0]])], size=0.25)["weight"]  # 2 - 0.25 · 2 · 2
        tensor([[1.]])
    """
    asked = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight) for name, weight in asked.items()}
    rows = 0
    with torch.enable_grad():
        for batch in batches:
            losses = losses_of(functional_call(model, asked, (batch,)), batch)
            gradients = torch.autograd.grad(losses.sum(), list(asked.values()), allow_unused=True)
            for name, gradient in zip(asked, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
            rows += len(losses)
    return {name: (weight - size * total[name] / rows).detach() for name, weight in asked.items()}


@dataclass(frozen=True)
class TailPatch(GroundTruth):
    """Metric `tail_patch`: how far φ rises when the trained model takes one more step on the first k rows of a list.

    For every one of some tests: one step of plain gradient descent on the mean loss of the first k rows of its list, in
    evaluation mode, over all weights that the fit has trained; φ afterwards less φ before, in nats. Mean over these
    tests, with standard error and bootstrap interval. Beside every method stands the control, rows of
    `random_instances` with the method as `reference_group`: as many random rows of every label, mean over `seeds`.

    Attributes:
        first: k, numbers of rows that the step is taken on.
        tests: random explained examples, each with steps of its own.
        step: size of the step, a learning rate.
        seeds: of the random rows.

    Raises:
        UserError: no rows, no test, a step of nothing, or no seed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.tail_patch import TailPatch
        >>> rises = {("gradsim", 5): torch.tensor([[0.2, 0.4]]), ("gradsim", 5, "control"): torch.zeros(1, 2)}
        >>> rows = TailPatch(first=[5], tests=2).results(rises)
        >>> [(row.method, row.reference_group, round(row.value, 2)) for row in rows]
        [('gradsim', '', 0.3), ('random_instances', 'gradsim', 0.0)]
    """

    requires: ClassVar[str] = "tail_patch"

    first: Sequence[int] = (10,)
    tests: int = 20
    step: float = 0.001
    seeds: Sequence[int] = (0,)

    def __post_init__(self) -> None:
        if not self.first or any(k < 1 for k in self.first) or self.tests < 1 or not self.step > 0:
            raise UserError(
                f"evaluation.tail_patch.first={list(self.first)} with tests={self.tests} and step={self.step:g} takes "
                "no step; expected numbers of rows from 1 on, at least one test and a step above 0: write first=[10] "
                "tests=20 step=0.001."
            )
        if not self.seeds:
            raise UserError("evaluation.tail_patch.seeds=[] draws no rows, expected at least one seed: write [0].")

    def missing(self, available: Available) -> str:
        """What the run lacks."""
        return super().missing(available) or missing_rankings(available)

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than what the step is taken on.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < max(self.first):
            raise UserError(
                f"evaluation.tail_patch takes a step on the first {max(self.first)} train rows of a list, but "
                f"method.{name}.top_k={top_k} keeps fewer: raise method.{name}.top_k."
            )

    def chosen(self, tests: int) -> Tensor:
        """Places of the explained examples that are looked at, rising."""
        return random_ranking(tests, seed=0)[: self.tests].sort().values

    def rows_of(self, inputs: TruthInputs, name: str) -> dict[tuple[int, int | None], Tensor]:
        """(k, seed; None: the list itself) → train rows of each chosen test, [chosen, k]."""
        chosen = self.chosen(inputs.tests)
        found: dict[tuple[int, int | None], Tensor] = {}
        for k in self.first:
            rows = inputs.methods[name].first(0, k)[0][chosen]
            found[k, None] = rows
            if inputs.train_label is not None:
                for seed in self.seeds:
                    drawn = [
                        same_labels(of_test, inputs.train_label, seed * len(chosen) + number)
                        for number, of_test in enumerate(rows)
                    ]
                    found[k, seed] = torch.stack(drawn)
        return found

    def results(self, rises: Mapping[tuple[Any, ...], Tensor]) -> list[Result]:
        """A result for each method and k, with its control.

        Args:
            rises: (method, k) or (method, k, "control") → rise of φ, [seeds, chosen], nats.
        """
        found = []
        for (name, k, *control), outcomes in rises.items():
            each = outcomes.mean(0)
            low, high = ends(each[None], lambda means: means[:, 0])
            said: dict[str, Any] = {"method": name}
            if control:
                said = {"method": RANDOM, "control": True, "reference_group": name}
            said["variant"] = ";".join([*([f"step={self.step:g}"] if self.step != 0.001 else []),
                                        *([SAME_LABELS] if control else [])])  # fmt: skip
            found.append(
                Result(
                    "tail_patch", *mean_and_error(each), n=len(each), k=k, better="higher", low=low, high=high,
                    samples=outcomes, **said,
                )
            )  # fmt: skip
        return found
