"""Tail patch: one more training step on the first rows of a list, against as many random rows of the same labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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


class _Asked(nn.Module):
    """A model as a part of something that can be called with other weights."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ask: Callable[[Any], Any]) -> Any:
        """What is asked of it."""
        return ask(self.model)


def with_weights(model: nn.Module, weights: Mapping[str, Tensor], ask: Callable[[Any], Any]) -> Any:
    """What a model says under other weights than its own, which stay as they are.

    Args:
        weights: by name; of parameters that share one tensor, either name.
        ask: of the model, any of its methods.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.tail_patch import with_weights
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> with_weights(model, {"weight": torch.tensor([[2.0]])}, lambda model: model(torch.ones(1, 1))).tolist()
        [[2.0]]
    """
    named = {f"model.{name}": weight for name, weight in weights.items()}
    return functional_call(_Asked(model), named, (ask,))


def stepped(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    losses_of: Callable[[Any, Batch], Tensor],
    batches: Iterable[Batch],
    size: float,
) -> dict[str, Tensor]:
    """Weights after one step of plain gradient descent, w − size · ∇(mean loss over all that the batches hold).

    Args:
        model: called with other weights than its own, which stay as they are.
        weights: those that take the step, by name.
        losses_of: (model, batch) → losses whose mean over all batches is lowered: of each row, [rows], or of texts of
            each token, [tokens].
        batches: of rows; how they are cut has no effect beyond rounding.
        size: of the step, the learning rate.

    Returns:
        The names of `weights` with their new values.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.tail_patch import stepped
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> weights = {"weight": torch.tensor([[2.0]])}
        >>> square = lambda model, batch: model(batch)[:, 0].square()
        >>> stepped(model, weights, square, [torch.tensor([[1.0]])], size=0.25)["weight"]  # 2 - 0.25 · 2 · 2
        tensor([[1.]])
    """
    asked = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight) for name, weight in asked.items()}
    count = 0
    with torch.enable_grad():
        for batch in batches:
            losses = with_weights(model, asked, partial(_of_batch, losses_of, batch))
            gradients = torch.autograd.grad(losses.sum(), list(asked.values()), allow_unused=True)
            for name, gradient in zip(asked, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
            count += len(losses)
    return {name: (weight - size * total[name] / count).detach() for name, weight in asked.items()}


def _of_batch(losses_of: Callable[[Any, Batch], Tensor], batch: Batch, model: Any) -> Tensor:
    return losses_of(model, batch)


@dataclass(frozen=True)
class TailPatch(GroundTruth):
    """Metric `tail_patch`: how far φ rises when the trained model takes one more step on the first k rows of a list.

    For every one of some tests: one step of plain gradient descent on the mean loss of the first k rows of its list (of
    documents over their tokens, as in training), in evaluation mode, over all weights that the fit has trained; φ
    afterwards less φ before, in nats. Mean over these tests, with standard error and bootstrap interval, and over those
    of each kind (`group`). Beside every method stands the control, rows of `random_instances` with the method as
    `reference_group`: as many random rows of every label, or of documents as many random ones, mean over `seeds`.

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

    papers: ClassVar[tuple[str, ...]] = ("chang2025trackstar",)
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

    def results(
        self, rises: Mapping[tuple[Any, ...], Tensor], groups: Mapping[str, Tensor] = {}, labelled: bool = True
    ) -> list[Result]:
        """A result for each method and k, with its control, and one for each group of tests.

        Args:
            rises: (method, k) or (method, k, "control") → rise of φ, [seeds, chosen], nats.
            groups: bool [chosen] by name.
            labelled: whether train rows have labels, which the control's rows share.
        """
        found = []
        for (name, k, *control), outcomes in rises.items():
            said: dict[str, Any] = {"method": name}
            if control:
                said = {"method": RANDOM, "control": True, "reference_group": name}
            same = [SAME_LABELS] if control and labelled else []
            said["variant"] = ";".join([*([f"step={self.step:g}"] if self.step != 0.001 else []), *same])
            for group, chosen in {"": torch.ones(outcomes.shape[1], dtype=torch.bool), **groups}.items():
                some = outcomes[:, chosen]
                if not some.shape[1]:
                    continue
                each = some.mean(0)
                low, high = ends(each[None], lambda means: means[:, 0])
                found.append(
                    Result(
                        "tail_patch", *mean_and_error(each), n=len(each), k=k, better="higher", low=low, high=high,
                        samples=some, group=group, **said,
                    )
                )  # fmt: skip
        return found
