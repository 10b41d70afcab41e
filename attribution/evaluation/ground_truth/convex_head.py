"""Exact refits of a linear softmax head over fixed features: Newton steps with all rows, then without some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import MOST_DAMPING
from twinlens.attribution.gradients.linear_solve import factorised

Centre = Literal["trained", "zero"]
NEWTON_STEPS = 200
CHORD_STEPS = 40
"""Steps with the curvature of the full solution before left-out rows get Newton steps of their own."""
TOLERANCE = 1e-9
"""Largest gradient of a solution, as a share of the largest gradient of a row that was left out."""


def require_refittable(head: nn.Module, sequences: int, evaluation: str) -> None:
    """Refuse a head that cannot be refitted exactly.

    Args:
        head: of the model, with or without values.
        sequences: of an example; several in multiple choice.
        evaluation: that refits it, its name in the configuration.

    Raises:
        UserError: a head that is not linear, or questions of several sequences.
    """
    if sequences > 1:
        raise UserError(
            f"evaluation={evaluation} refits a head that reads one sequence per example, and these data have "
            f"{sequences} choices; expected data with classes: leave {evaluation} out, or take evaluation=removal."
        )
    require_linear(head, evaluation)


def require_penalty(damping: float, evaluation: str) -> None:
    """Refuse a penalty with which there is no single best head, or none but the centre.

    Args:
        damping: relative to the mean eigenvalue of the curvature.
        evaluation: that refits, its name in the configuration.

    Raises:
        UserError: naming what to write.
    """
    if not 0 < damping <= MOST_DAMPING:
        why = "no head but its centre" if damping > 0 else "the head without a single best solution"
        raise UserError(
            f"evaluation.{evaluation}.damping={damping:g} leaves {why}; expected a number above 0 and at most "
            f"{MOST_DAMPING:g}, relative to the mean eigenvalue of the curvature: write 0.1."
        )


def require_linear(head: nn.Module, evaluation: str) -> nn.Linear:
    """The head, which has to be convex in its weights.

    Args:
        head: of the model.
        evaluation: that refits it, its name in the configuration.

    Raises:
        UserError: naming what to use.
    """
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"evaluation={evaluation} refits the head exactly, which only a linear one allows, and this model's has "
            "several layers; expected a convex loss: use model.head=linear, or evaluation=removal, which trains the "
            "model."
        )
    return head


@dataclass(frozen=True)
class ConvexHead:
    """Σ_i loss_i / n + λ/2 ‖W − W₀‖² in the weights W of a linear head, strictly convex for λ > 0.

    Attributes:
        inputs: what the head multiplies, a 1 behind the features where it has a bias, [n, inputs], float64.
        labels: [n], int64.
        centre: W₀, which the penalty draws to, [classes, inputs], float64.
        penalty: λ.
        evaluation: that refits, its name in the configuration.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.ground_truth.convex_head import ConvexHead
        >>> inputs = torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]], dtype=torch.float64)
        >>> head = ConvexHead(inputs, torch.tensor([0, 1, 1]), torch.zeros(2, 2, dtype=torch.float64), penalty=0.1)
        >>> solution = head.solve()
        >>> without = head.without(solution, torch.tensor([[0]]), memory_budget=2**20)
        >>> bool((inputs[:1] @ without[0].T)[0, 0] < (inputs[:1] @ solution.T)[0, 0])  # its class lost its only row
        True
    """

    inputs: Tensor
    labels: Tensor
    centre: Tensor
    penalty: float
    evaluation: str = "loo"

    @staticmethod
    def of(
        head: nn.Module, features: Tensor, labels: Tensor, damping: float, centre: Centre, evaluation: str = "loo"
    ) -> ConvexHead:
        """The problem of a trained head.

        Args:
            head: an `nn.Linear`.
            features: of the train split, [n, hidden].
            labels: [n].
            damping: λ as a multiple of the mean eigenvalue of the Hessian at the trained head, as in `influence`.
            centre: whether the penalty draws to the `trained` weights or to `zero`.
            evaluation: that asks, its name in the configuration.

        Raises:
            UserError: a head that is not convex in its weights.
        """
        linear = require_linear(head, evaluation)
        weights = linear.weight.detach().double().cpu()
        inputs = features.double()
        if linear.bias is not None:
            weights = torch.cat([weights, linear.bias.detach().double().cpu()[:, None]], 1)
            inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        prob = (inputs @ weights.T).softmax(-1)
        trace = ((1 - prob.square().sum(1)) * inputs.square().sum(1)).mean()
        start = weights if centre == "trained" else torch.zeros_like(weights)
        return ConvexHead(inputs, labels, start, damping * float(trace) / weights.numel(), evaluation)

    def solve(self, left_out: Tensor | None = None, start: Tensor | None = None) -> Tensor:
        """Weights with the lowest objective, by Newton steps, halved where they overshoot, [classes, inputs].

        Args:
            left_out: rows whose losses do not count, [rows]; n stays what it was.
            start: of the steps; the centre, where none is given.

        Raises:
            UserError: no solution was reached.
        """
        weight = torch.ones(len(self.labels), dtype=torch.float64)
        if left_out is not None:
            weight[left_out] = 0
        found = self.centre if start is None else start
        largest = self._residual(found[None])[0].abs().amax(0) * self.inputs.abs().amax(1)  # of each row's gradient
        smallest = TOLERANCE * float(largest.max())
        for _ in range(NEWTON_STEPS):
            gradient = self._gradient(found[None], weight[None])[0]
            if float(gradient.abs().max()) <= smallest:
                return found
            step = torch.cholesky_solve(gradient.reshape(-1, 1), self.factor(found, weight)).view_as(found)
            size, before = 1.0, self._objective(found, weight)
            while size > 1e-6 and self._objective(found - size * step, weight) > before:
                size /= 2
            found = found - size * step
        raise UserError(
            f"evaluation={self.evaluation} has reached no solution of the head within {NEWTON_STEPS} Newton steps with "
            f"penalty {self.penalty:.3g}; expected one: raise evaluation.{self.evaluation}.damping."
        )

    def without(self, solution: Tensor, left_out: Tensor, memory_budget: int) -> Tensor:
        """Solutions without each of some sets of rows in turn, [sets, classes, inputs].

        All of a block take steps with the curvature of the full solution at once, which converge by about the rows'
        leverage a step; what has not converged then gets Newton steps of its own.

        Args:
            solution: of all rows, [classes, inputs].
            left_out: different train rows of each set, [sets, rows].
            memory_budget: bytes of working memory; results do not depend on it.
        """
        factor = self.factor(solution, torch.ones(len(self.labels), dtype=torch.float64))
        each = 8 * (4 * len(self.labels) * len(solution) + 6 * solution.numel())
        step = max(1, memory_budget // each)
        return torch.cat(
            [self._block(solution, factor, left_out[start : start + step]) for start in range(0, len(left_out), step)]
        )

    def row_gradients(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Gradient of the loss of some rows, [rows, classes, inputs]."""
        return self._residual(weights[None])[0].T[rows, :, None] * self.inputs[rows, None]

    def factor(self, weights: Tensor, weight: Tensor) -> Tensor:
        """Cholesky factor of the Hessian, [classes · inputs, classes · inputs].

        Args:
            weights: [classes, inputs].
            weight: how much each row counts, [n].
        """
        prob = (self.inputs @ weights.T).softmax(-1)
        classes, width = weights.shape
        hessian = torch.zeros(classes, width, classes, width, dtype=torch.float64)
        for a in range(classes):
            for b in range(classes):
                scale = weight * prob[:, a] * (float(a == b) - prob[:, b]) / len(weight)
                hessian[a, :, b] = self.inputs.T @ (scale[:, None] * self.inputs)
        flat = hessian.reshape(classes * width, classes * width)
        flat.diagonal().add_(self.penalty)
        return factorised(flat, self.penalty, f"evaluation.{self.evaluation}.damping")

    def _block(self, solution: Tensor, factor: Tensor, left_out: Tensor) -> Tensor:
        each = self.row_gradients(solution, left_out.flatten()).unflatten(0, left_out.shape) / len(self.labels)
        weight = torch.ones(len(left_out), len(self.labels), dtype=torch.float64).scatter_(1, left_out, 0)
        smallest = TOLERANCE * each.flatten(1).abs().amax(1)
        gradients = each.sum(1)
        found = solution + torch.cholesky_solve(gradients.flatten(1).T, factor).T.view_as(gradients)
        for _ in range(CHORD_STEPS):
            gradient = self._gradient(found, weight)
            if bool((gradient.flatten(1).abs().amax(1) <= smallest).all()):
                return found
            found = found - torch.cholesky_solve(gradient.flatten(1).T, factor).T.view_as(found)
        left = self._gradient(found, weight).flatten(1).abs().amax(1)
        for place in torch.nonzero(~(left <= smallest))[:, 0].tolist():  # NaN of steps that diverged is left too
            found[place] = self.solve(left_out[place], solution)
        return found

    def _residual(self, weights: Tensor) -> Tensor:
        """Probabilities less the labels', [batch, classes, n], of weights [batch, classes, inputs]."""
        found = (weights @ self.inputs.T).softmax(1)
        found[:, self.labels, torch.arange(len(self.labels))] -= 1
        return found

    def _gradient(self, weights: Tensor, weight: Tensor) -> Tensor:
        residual = self._residual(weights).mul_(weight[:, None])
        return residual @ self.inputs / len(self.labels) + self.penalty * (weights - self.centre)

    def _objective(self, weights: Tensor, weight: Tensor) -> float:
        loss = nn.functional.cross_entropy(self.inputs @ weights.T, self.labels, reduction="none")
        return float((weight * loss).sum() / len(loss) + self.penalty / 2 * (weights - self.centre).square().sum())
