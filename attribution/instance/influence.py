"""Influence functions over the head's parameters (Koh and Liang 2017; Eq. 4 of Yu, Atanasova and Augenstein 2024).

Score of train example i for test example t: +∇L_tᵀ(H + λI)⁻¹∇L_i. Positive: training on i more lowers the loss of t.
(Eq. 4 prints a minus; the project turns it so that high means helpful for every method.) Leaving i out raises the
loss of t by about score / n_train. H is the mean over the train split, solved exactly, so that neither recursion depth
nor scale has to be tuned as for LiSSA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from attribution.base import HeadInputs, UserError
from attribution.instance.curvature import exact_hessian, ggn_matrix, ggn_trace
from attribution.instance.head_gradients import DifferentiableHead, check_inputs, differentiable_head
from attribution.instance.protocol import HeadParameters, LabelSource
from attribution.instance.solve import DirectScorer, DualScorer, SolverPlan, direct_plan, dual_plan

Curvature = Literal["ggn", "hessian"]
Solver = Literal["auto", "direct", "dual"]


@dataclass(frozen=True)
class Influence:
    """Influence functions with an exact solve.

    Attributes:
        curvature: `ggn`, always positive semi-definite, or `hessian`, the exact one; equal for a linear head.
        solver: `direct` factorises P × P parameters, `dual` the rows of the GGN, n·(classes − 1) of them; `auto` takes
            the cheaper of those that fit the memory budget.
        damping: λ as a multiple of the mean eigenvalue of H, trace(H)/P; above 0.
        params: parameters of the head that are differentiated.
        labels: labels in all losses; callers pass them in `HeadInputs.labels`.
        top_k: length of the stored lists.
    """

    curvature: Curvature = "ggn"
    solver: Solver = "auto"
    damping: float = 0.1
    params: HeadParameters = "all"
    labels: LabelSource = "gold"
    top_k: int = 100

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise UserError(
                f"damping={self.damping:g} leaves the curvature singular; expected a number above 0, relative to the "
                "mean eigenvalue: use damping=0.1."
            )

    def prepare(self, train: HeadInputs, memory_budget: int) -> DirectScorer | DualScorer:
        """Build and factorise the curvature.

        Raises:
            UserError: if no solver fits the budget, the curvature vanishes or stays indefinite, or inputs are bad.
        """
        head = differentiable_head(train.head, self.params)
        check_inputs(train, head.n_classes, torch.arange(len(train)), "train")
        exact = self.curvature == "hessian" and not head.is_linear
        solver, plan = self.choose(head, len(train), memory_budget, exact)
        # Blocks are worked through beside one of the plan's two matrices, never beside both.
        workspace = memory_budget - plan.memory // 2
        if exact:
            matrix = exact_hessian(head, train, workspace)
            trace = float(matrix.trace())
        elif solver == "direct":
            matrix = ggn_matrix(head, train.features, workspace)
            trace = float(matrix.trace())
        else:
            trace = ggn_trace(head, train.features, workspace)
        damping = self._absolute_damping(trace, head.n_parameters)
        description = self._describe(head, solver, damping, trace)
        if solver == "direct":
            return DirectScorer(head, train, matrix, damping, description, workspace)
        return DualScorer(head, train, damping, description, workspace)

    def choose(
        self, head: DifferentiableHead, n_train: int, budget: int, exact: bool
    ) -> tuple[Literal["direct", "dual"], SolverPlan]:
        """The cheapest permitted solver that fits the budget, and its plan."""
        if exact and self.solver == "dual":
            raise UserError(
                "solver=dual needs a positive semi-definite curvature, which the exact Hessian of an MLP head is not; "
                "expected solver=direct or curvature=ggn."
            )
        plans: dict[Literal["direct", "dual"], SolverPlan] = {
            "direct": direct_plan(head, n_train),
            "dual": dual_plan(head, n_train),
        }
        permitted = {"direct"} if exact else set(plans) if self.solver == "auto" else {self.solver}
        fitting = [name for name, plan in plans.items() if name in permitted and plan.memory <= budget]
        if not fitting:
            needs = ", ".join(f"{name} needs {plan.memory / 2**30:.2f} GiB" for name, plan in plans.items())
            remark = " (dual does not serve the exact Hessian of an MLP head)" if exact else ""
            raise UserError(
                f"The influence solve with solver={self.solver} does not fit the memory budget of "
                f"{budget / 2**30:.2f} GiB: {needs}{remark} for {head.n_parameters} parameters and {n_train} train "
                "examples; expected one within it: raise the budget, use a smaller head, lower data.limit.train or use "
                "gradsim."
            )
        cheapest = min(fitting, key=lambda name: plans[name].operations)
        return cheapest, plans[cheapest]

    def _absolute_damping(self, trace: float, n_parameters: int) -> float:
        damping = self.damping * trace / n_parameters
        if not damping > 0:
            raise UserError(
                f"The curvature of the train loss has trace {trace:.4g}, so that relative damping cannot make it "
                "invertible; expected a positive trace: train less (trainer.max_epochs), use curvature=ggn or gradsim."
            )
        return damping

    def _describe(self, head: DifferentiableHead, solver: str, damping: float, trace: float) -> dict[str, object]:
        return {
            "curvature": self.curvature,
            "curvature_equals_ggn": self.curvature == "ggn" or head.is_linear,
            "solver": solver,
            "damping": self.damping,
            "damping_absolute": damping,
            "mean_eigenvalue": trace / head.n_parameters,
            "params": self.params,
            "labels": self.labels,
            "dtype": "float64",
            "n_parameters": head.n_parameters,
            "sign": "positive: training on the train example more lowers the test loss",
            "unit": "loss change per unit of weight in the mean train loss, nats; over n_train: leave one out",
        }
