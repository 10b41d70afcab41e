"""Influence functions over the head's parameters (Koh and Liang 2017; Eq. 4 of Yu, Atanasova and Augenstein 2024).

Score of train example i for test example t: +∇L_tᵀ(H + λI)⁻¹∇L_i. Positive: training on i more lowers the loss of t.
(Eq. 4 prints a minus; the project turns it so that high means helpful for every method.) Leaving i out raises the
loss of t by about score / n_train. H is the mean over the train split. The default solve is exact, so that neither
recursion depth nor scale has to be tuned as for LiSSA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, overload

import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.datainf import DataInfInverse
from twinlens.attribution.gradients.fisher import Fisher
from twinlens.attribution.gradients.options import KRONECKER_PAPERS, PROJECTION_PAPERS, LabelSource, Per
from twinlens.attribution.gradients.projected import Inverse, RowScorer
from twinlens.attribution.gradients.projected_curvature import (
    GGNInverse,
    IdentityInverse,
    KroneckerInverse,
)
from twinlens.attribution.gradients.projection import ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.cg import ConjugateGradientScorer, iterative_plan
from twinlens.attribution.instance.costs import InstanceCost, PassSizes
from twinlens.attribution.instance.curvature import ggn_matrix, ggn_trace
from twinlens.attribution.instance.direct import DirectScorer, direct_plan
from twinlens.attribution.instance.dual import DualScorer, dual_plan
from twinlens.attribution.instance.gradsim import similarity_cost
from twinlens.attribution.instance.head_gradients import DifferentiableHead, check_inputs, differentiable_head
from twinlens.attribution.instance.hessian import exact_hessian
from twinlens.attribution.instance.identity import IdentityScorer
from twinlens.attribution.instance.influence_costs import kronecker_cost, solver_cost
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.kronecker import KroneckerScorer, kronecker_plan, layer_bases
from twinlens.attribution.instance.layer_curvature import CurvedLayers, Damping, Preconditioner
from twinlens.attribution.instance.lissa import LissaScorer, Recursion
from twinlens.attribution.instance.products import CurvatureProducts
from twinlens.attribution.instance.solve import SolvedScorer, SolverPlan
from twinlens.attribution.memory_amounts import bytes_in_words

Curvature = Literal["ggn", "hessian", "kfac", "ekfac", "datainf", "identity"]
Solver = Literal["auto", "direct", "dual", "cg", "lissa"]
ChosenSolver = Literal["direct", "dual", "cg", "lissa"]


@dataclass(frozen=True)
class Influence(CurvedLayers):
    """Influence functions.

    Attributes:
        curvature: `ggn`, always positive semi-definite, or `hessian`, the exact one; equal for a linear head. `kfac`
            and `ekfac` approximate the Fisher matrix layer by layer, `datainf` averages inverses over train examples
            (stored rows alone), `identity` leaves the curvature out.
        solver: `direct` factorises P × P parameters (or decomposes the factors of (EK-)FAC), `dual` the rows of the
            GGN, n·(classes − 1) of them, `cg` iterates to `cg_tolerance`, `lissa` runs a stochastic recursion. `auto`
            takes the cheaper of direct and dual that fits the memory budget, else cg. Over whole layers `cg` alone
            serves `ggn`; it is preconditioned by EK-FAC and takes a pass over the train split for each step.
        damping: λ as a multiple of the mean eigenvalue of H, trace(H)/P, above 0; for `kfac`, `ekfac`, `datainf` and
            all curvatures of whole layers of each layer's own mean. Absolute for `identity`. For `lissa` the
            recursion's own, between 0 and 1, which acts as an absolute λ of damping · lissa_scale. `auto`: chosen by
            the run, see `CurvedLayers`.
        fisher: labels in the Fisher matrix of `kfac`, `ekfac` and, over whole layers, `ggn`: exact `expectation` over
            the model's distribution, or `empirical`, the train labels.
        params: `weight` or `head`, of the head; `all` linear layers, or patterns over their names.
        labels: labels in the losses of train rows; callers pass them in `HeadInputs.labels`.
        top_k: length of the stored lists.
        cg_tolerance: relative residual at which `cg` accepts a solution.
        cg_max_steps: curvature products per solution at most.
        preconditioner: of `cg` over whole layers: `ekfac`'s inverse, or `none` but each layer's own λ.
        lissa_depth: steps as a share of the batches in the train split.
        lissa_scale: what curvature products are divided by.
        lissa_batch: train examples per step.
        lissa_repeats: recursions that are averaged.
        lissa_seed: draws the order of the train examples.
        projection: `none`, `random` or `pca`: gradients of layers beyond the head are projected before they are stored.
        projection_dim: numbers per side of a projected layer.
        projection_seed: draws the random projection.
        storage, storage_rank: how stored rows are kept, see `twinlens.attribution.gradients.row_forms`.
        per: train rows are examples, or for language models the tokens of the training text.
        damping_chosen: how the run came to its damping, where that was `auto`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()  # row 1 is labelled wrongly
        >>> scorer = Influence(curvature="ggn", damping=0.1).prepare(train, BUDGET)
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).round(decimals=1)  # row 1 harms both tests
        tensor([[ 0.4000, -1.1000, -0.1000,  0.1000],
                [-0.1000, -1.1000,  0.4000,  0.1000]], dtype=torch.float64)
    """

    papers: ClassVar[tuple[str, ...]] = (
        "koh2017influence",
        "yu2024unified",
        "agarwal2017lissa if solver=lissa",
        *KRONECKER_PAPERS,
        "grosse2023influence if curvature=ekfac",
        "george2018ekfac if solver=cg and preconditioner=ekfac and params=all",
        "kwon2024datainf if curvature=datainf",
        *PROJECTION_PAPERS,
    )
    sign: ClassVar[str] = "positive: towards the target; more training on the train example raises its log-probability"
    unit: ClassVar[str] = "loss change per unit of weight in the mean train loss, nats; over n_train: leave one out"

    curvature: Curvature = "ggn"
    solver: Solver = "auto"
    damping: Damping = 0.1
    fisher: Fisher = "expectation"
    params: str = "head"
    labels: LabelSource = "gold"
    top_k: int = 100
    cg_tolerance: float = 1e-6
    cg_max_steps: int = 1000
    preconditioner: Preconditioner = "ekfac"
    lissa_depth: float = 0.3
    lissa_scale: float = 1e4
    lissa_batch: int = 8
    lissa_repeats: int = 1
    lissa_seed: int = 0
    projection: ProjectionKind = "none"
    projection_dim: int = 16
    projection_seed: int = 0
    storage: Storage = "dense"
    storage_rank: int = 3
    per: Per = "example"
    damping_chosen: str = ""

    def __post_init__(self) -> None:
        self.check_damping()
        if self.solver == "lissa":
            self.recursion()
        self.gradients.check()
        self.check_curvature()

    def recursion(self) -> Recursion:
        """The constants of LiSSA."""
        return Recursion(
            self.relative_damping,
            self.lissa_depth,
            self.lissa_scale,
            self.lissa_batch,
            self.lissa_repeats,
            self.lissa_seed,
        )  # fmt: skip

    def cost(self, sizes: PassSizes) -> InstanceCost:
        """The curvature's matrix and its factor beside each other while factorising, then the factor beside the blocks.

        An iterative solver takes what it is given.
        """
        head = differentiable_head(sizes.head, self.gradients.head_parameters, sizes.sequences)
        if self.curvature == "identity":
            return similarity_cost(sizes, self.gradients.head_parameters)
        if self.curvature in ("kfac", "ekfac"):
            return kronecker_cost(head, sizes)
        solver, plan = self.choose(head, sizes.n_train, sizes.budget, self.is_exact(head))
        if solver in ("cg", "lissa"):
            return InstanceCost(sizes.budget, None, f"solver {solver}")
        return solver_cost(head, solver, plan, sizes)

    @overload
    def prepare(self, train: HeadInputs, memory_budget: int) -> SolvedScorer: ...

    @overload
    def prepare(self, train: GradientRows, memory_budget: int) -> RowScorer: ...

    def prepare(self, train: HeadInputs | GradientRows, memory_budget: int) -> SolvedScorer | RowScorer:
        """Build and factorise the curvature.

        Raises:
            UserError: if no solver fits the budget, the curvature vanishes or stays indefinite, an iteration does not
                converge, or inputs are bad.
        """
        if isinstance(train, GradientRows):
            return self._over_rows(train, memory_budget)
        head = differentiable_head(train.head, self.gradients.head_parameters, train.sequences)
        check_inputs(train, head, torch.arange(len(train)), "train")
        if self.curvature == "identity":
            description = {**self._describe(head, "direct"), "damping_absolute": self.damping}
            return IdentityScorer(head, train, self.relative_damping, description, memory_budget)
        if self.curvature == "kfac" or self.curvature == "ekfac":
            return self._kronecker(head, train, memory_budget)
        exact = self.is_exact(head)
        solver, plan = self.choose(head, len(train), memory_budget, exact)
        if solver == "cg" or solver == "lissa":
            return self._iterative(solver, CurvatureProducts(head, train, exact, memory_budget // 2), memory_budget)
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
        description = self._describe(head, solver, trace)
        damping = self._absolute_damping(trace, head.n_parameters)
        if solver == "direct":
            return DirectScorer(head, train, matrix, damping, description, workspace)
        return DualScorer(head, train, damping, description, workspace)

    def is_exact(self, head: DifferentiableHead) -> bool:
        """Whether the curvature is a Hessian that differs from the GGN."""
        return self.curvature == "hessian" and not head.is_linear

    def choose(
        self, head: DifferentiableHead, n_train: int, budget: int, exact: bool
    ) -> tuple[ChosenSolver, SolverPlan]:
        """The cheapest permitted solver that fits the budget, and its plan."""
        if exact and self.solver == "dual":
            raise UserError(
                "solver=dual needs a positive semi-definite curvature, which the exact Hessian of an MLP head is not; "
                "expected solver=direct or curvature=ggn."
            )
        plans: dict[ChosenSolver, SolverPlan] = {
            "direct": direct_plan(head, n_train),
            "dual": dual_plan(head, n_train),
            "cg": iterative_plan(head),
            "lissa": iterative_plan(head),
        }
        permitted = (
            {"direct", "dual", "cg"} - ({"dual"} if exact else set()) if self.solver == "auto" else {self.solver}
        )
        fitting = [name for name, plan in plans.items() if name in permitted and plan.memory <= budget]
        if not fitting:
            needs = ", ".join(f"{name} needs {bytes_in_words(plan.memory)}" for name, plan in plans.items())
            remark = " (dual does not serve the exact Hessian of an MLP head)" if exact else ""
            raise UserError(
                f"The influence solve with solver={self.solver} does not fit the memory budget of "
                f"{bytes_in_words(budget)}: {needs}{remark} for {head.n_parameters} parameters and {n_train} train "
                "examples; expected one within it: raise the budget, use a smaller head, lower data.limit.train or use "
                "gradsim."
            )
        cheapest = min(fitting, key=lambda name: plans[name].operations)
        return cheapest, plans[cheapest]

    def _iterative(self, solver: ChosenSolver, products: CurvatureProducts, budget: int) -> SolvedScorer:
        trace = products.trace()
        description = self._describe(products.head, solver, trace)
        if solver == "lissa":
            recursion = self.recursion()
            description |= {
                "damping_absolute": recursion.damping * recursion.scale,
                "lissa_depth": recursion.depth,
                "lissa_scale": recursion.scale,
                "lissa_batch": recursion.batch_size,
                "lissa_repeats": recursion.repeats,
                "lissa_seed": recursion.seed,
                "steps": recursion.n_steps(len(products.train)),
            }
            return LissaScorer(products, recursion, description, budget)
        damping = self._absolute_damping(trace, products.head.n_parameters)
        description["cg_tolerance"] = self.cg_tolerance
        return ConjugateGradientScorer(products, damping, self.cg_tolerance, self.cg_max_steps, description, budget)

    def _over_rows(self, train: GradientRows, budget: int) -> RowScorer:
        fisher = train.curvature_rows
        inverse: Inverse
        if self.curvature == "identity":
            inverse = IdentityInverse(self.relative_damping)
        elif self.curvature == "datainf":
            inverse = DataInfInverse(fisher, self.relative_damping, budget)
        elif self.curvature == "kfac" or self.curvature == "ekfac":
            inverse = KroneckerInverse(fisher, self.relative_damping, self.curvature == "ekfac")
        else:
            inverse = GGNInverse(fisher, self.relative_damping, self.solver, budget)
        said = {"curvature": self.curvature, "solver": "direct", "damping": self.damping}
        if self.curvature in ("kfac", "ekfac"):
            said["fisher"] = self.fisher
        return RowScorer(train, {**said, "sign": self.sign, "unit": self.unit}, budget, inverse)

    def _kronecker(self, head: DifferentiableHead, train: HeadInputs, budget: int) -> SolvedScorer:
        plan = kronecker_plan(head)
        if plan.memory > budget:
            raise UserError(
                f"curvature={self.curvature} does not fit the memory budget of {bytes_in_words(budget)}: its "
                f"factors need {bytes_in_words(plan.memory)}; expected them within it: raise "
                "the budget, use a smaller head or gradsim."
            )
        bases = layer_bases(head, train, self.curvature == "ekfac", self.fisher, budget - plan.memory // 2)
        description = {**self._describe(head, "direct"), "fisher": self.fisher}
        return KroneckerScorer(head, train, bases, self.relative_damping, description, budget)

    def _describe(self, head: DifferentiableHead, solver: str, trace: float | None = None) -> dict[str, object]:
        mean = None if trace is None else trace / head.n_parameters
        return {
            "curvature": self.curvature,
            "curvature_equals_ggn": self.curvature == "ggn" or (self.curvature == "hessian" and head.is_linear),
            "solver": solver,
            "damping": self.damping,
            "damping_absolute": None if mean is None else self.relative_damping * mean,
            "mean_eigenvalue": mean,
            "params": self.params,
            "labels": self.labels,
            "dtype": "float64",
            "n_parameters": head.n_parameters,
            "sign": self.sign,
            "unit": self.unit,
        }
