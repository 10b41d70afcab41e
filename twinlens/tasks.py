"""Task of one's own: any module, a loss of each example and a measurement of each query, for all gradient methods.

Score of train example i for query t, without curvature: ⟨∇ measurement_t, −∇ loss_i⟩. Positive: a step on i raises what
is measured. Methods are those of `twinlens.attribution`, over rows of gradients that are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.evaluation.ground_truth.lds import LinearDatamodelling
from twinlens.attribution.evaluation.ground_truth.truth_inputs import HeldScores, TruthInputs
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.gradients.blocks import UNPROJECTED, TwoSided
from twinlens.attribution.gradients.collected import CollectedRows
from twinlens.attribution.gradients.fisher import fisher_cotangents
from twinlens.attribution.gradients.projection import Projection
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.tracin_rows import CheckpointRows
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.protocols import LinearLayer
from twinlens.method_names import configured
from twinlens.models.given_models import twin_of
from twinlens.models.linear_layers import coverage
from twinlens.models.module_layers import module_layers
from twinlens.task_batches import device_of, moved, of_each, refuse_overwritten, require_order, without_overwriting

OfBatch = Callable[[Any, Any], Tensor]
"""(module, batch) → a number, or scores, of each example."""
Batches = Iterable[Any]
Likelihood = Literal["categorical", "gaussian"]
Fit = Callable[[list[int], int], nn.Module]
"""(train rows, seed) → a module trained on them."""
BUDGET = 4 * 2**30
"""Bytes that rows of gradients, and what is solved with them, may take."""


class Task:
    """What is asked of a module. The module is read through a twin over the same weights, in eval mode, and stays as
    it is.

    Args:
        module: any; its layers read examples along their first axis.
        loss: (module, batch) → the training loss of each example, [examples], not a mean over them.
        measurement: (module, batch) → what is explained of each query, [examples], higher is more; None: less loss.
        modules: names of layers, or glob patterns over them; None: all linear layers and convolutions.
        outputs: (module, batch) → scores of each example, [examples, outputs], of which curvature methods take an
            expectation; None: those methods need `fisher="empirical"`.
        likelihood: of the outputs: `categorical`, the loss is cross-entropy over them; `gaussian`, it is
            ½ Σ (outputs − truth)².
        memory_budget: bytes.

    Raises:
        UserError: see `twinlens.models.module_layers.module_layers`; an unknown likelihood.

    Example:
        >>> import torch, twinlens
        >>> module = torch.nn.Linear(2, 1, bias=False)
        >>> def loss(module, batch):
        ...     return 0.5 * (module(batch[0]) - batch[1]).square().sum(1)
        >>> rows = [(torch.eye(2), torch.ones(2, 1))]
        >>> twinlens.Task(module, loss).scores("gradsim", rows, rows).shape  # [queries, train]
        torch.Size([2, 2])
    """

    def __init__(
        self,
        module: nn.Module,
        loss: OfBatch,
        measurement: OfBatch | None = None,
        modules: Sequence[str] | None = None,
        outputs: OfBatch | None = None,
        likelihood: Likelihood = "categorical",
        memory_budget: int = BUDGET,
    ) -> None:
        if likelihood not in get_args(Likelihood):
            raise UserError(
                f"likelihood={likelihood!r} is none that is known; expected {' or '.join(get_args(Likelihood))}: "
                "choose categorical for classes, gaussian for regression."
            )
        self.module = module
        self.loss = loss
        self.measurement = measurement
        self.modules = modules
        self.outputs = outputs
        self.likelihood = likelihood
        self.memory_budget = memory_budget
        self.layers = [layer.name for layer in module_layers(module, modules)]

    def coverage(self) -> str:
        """Which share of the module's parameters the layers hold, and what the rest is."""
        none = nn.Module()
        return coverage(self.module, none, module_layers(self.module, self.modules)).told()

    def scores(
        self,
        method: Any,
        train: Batches,
        queries: Batches,
        checkpoints: Sequence[tuple[Mapping[str, Tensor], float]] = (),
    ) -> Tensor:
        """Score of every train example for every query.

        Args:
            method: a configured method over gradients, e.g. Influence(curvature="ekfac"), or its name. The task's
                modules take the place of its `params`; its projection holds.
            train, queries: DataLoaders or lists of batches, always in the same order.
            checkpoints: of TracIn: a state_dict along the training with the learning rate that led to it, in order.

        Returns:
            [queries, train], float32. Positive: the train example raises the measurement.

        Raises:
            UserError: a method that is not over gradients, or asks for what the task does not have; rows beyond the
                memory budget; losses that are no number of each example.
        """
        method = configured(method)
        self._check(method, checkpoints)
        for name, batches in (("train", train), ("queries", queries)):
            require_order(name, batches)
        if method.reads in ("checkpoints", "checkpoint_rows"):
            steps = [(self._twin(state), rate) for state, rate in checkpoints]
            projections = self._projections(steps[-1][0], method, train)
            sides = [
                CheckpointRows(
                    tuple((self._rows(twin, projections, method, batches, of), rate) for twin, rate in steps)
                )
                for batches, of in ((train, "loss"), (queries, "measurement"))
            ]
            return self._scored(method, *sides)
        twin = self._twin()
        projections = self._projections(twin, method, train)
        rows = self._rows(twin, projections, method, train, "loss")
        if method.curvature_losses == "expectation":
            rows = replace(rows, fisher=self._rows(twin, projections, method, train, "expectation"))
        return self._scored(method, rows, self._rows(twin, projections, method, queries, "measurement"))

    def measure(self, queries: Batches, module: nn.Module | None = None) -> Tensor:
        """What is measured of every query, [queries], float32.

        Args:
            queries: batches.
            module: another one than the task's, e.g. trained on other rows.
        """
        twin = twin_of(self.module if module is None else module, dtype=None)
        with torch.no_grad():
            parts = [self._measured(twin, moved(batch, device_of(twin))).float().cpu() for batch in queries]
        return torch.cat(parts)

    def lds(
        self,
        scores: Mapping[str, Tensor],
        queries: Batches,
        fit: Fit,
        subsets: int = 40,
        percent: float = 50,
        seeds: Sequence[int] = (0,),
    ) -> list[Result]:
        """Linear datamodelling score: how well sums of scores predict modules that are trained on random subsets.

        Args:
            scores: by method, [queries, train].
            queries: batches.
            fit: trains a new module on some train rows, by their numbers, with a seed.
            subsets, percent, seeds: see `LinearDatamodelling`.

        Returns:
            A result for each method: `value` with `low` and `high`, from −1 to 1.

        Raises:
            UserError: no scores, or of different sizes; see `LinearDatamodelling`.
        """
        shapes = {name: tuple(found.shape) for name, found in scores.items()}
        if not shapes or len(set(shapes.values())) > 1:
            raise UserError(
                f"lds was given the scores {shapes or 'of no method'}; expected some of one shape, [queries, train]: "
                "score all with the same rows."
            )
        n_queries, n_train = next(iter(shapes.values()))
        held = {name: HeldScores(found.detach().cpu()[None]) for name, found in scores.items()}

        def measure(rows: Sequence[int], seed: int) -> Tensor:
            return self.measure(queries, fit(list(rows), seed)).double()

        evaluation = LinearDatamodelling(subsets=subsets, percent=percent, seeds=list(seeds))
        return evaluation.evaluate(TruthInputs(n_train, held, torch.arange(n_queries), measure))

    # -- one pass ---------------------------------------------------------------------------------------------------

    def _check(self, method: Any, checkpoints: Sequence[Any]) -> None:
        name = type(method).__name__
        if not hasattr(method, "curvature_losses") or not hasattr(method, "gradients"):
            raise UserError(
                f"{name} is not over the gradients of layers; expected GradientSimilarity, Influence or TracIn: "
                "choose one, or twinlens.explain for the others."
            )
        along = method.reads in ("checkpoints", "checkpoint_rows")
        if along != bool(checkpoints):
            why = "reads weights along the training" if along else "reads one set of weights"
            raise UserError(
                f"{name} {why}, and scores was given {len(checkpoints)} checkpoints; expected "
                f"{'at least one' if along else 'none'}: {'pass' if along else 'leave out'} "
                "checkpoints=[(state_dict, learning_rate), …]."
            )
        if getattr(method, "curvature", None) == "hessian":
            raise UserError(
                "curvature=hessian is of a classifier's head, and a task's gradients are of layers; expected ggn, "
                "ekfac, kfac, datainf or identity: use curvature='ggn', which is positive semi-definite."
            )
        if method.curvature_losses == "expectation" and self.outputs is None:
            raise UserError(
                f"{name} takes an expectation over the module's outputs, and the task says none; expected both: pass "
                "outputs=… to Task, or use Influence(curvature='ekfac', fisher='empirical')."
            )
        if isinstance(getattr(method, "damping", 0.0), str):
            raise UserError(f"damping={method.damping} is chosen by a run; expected a number here: write damping=0.1.")

    def _twin(self, state: Mapping[str, Tensor] | None = None) -> Any:
        twin = twin_of(self.module, dtype=None)
        if state is not None:
            try:
                twin.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
            except RuntimeError as error:
                raise UserError(
                    f"a checkpoint does not fit the module ({' '.join(str(error).split())[:200]}); expected a "
                    "state_dict of the same module: keep module.state_dict() while it is trained."
                ) from error
        for part in twin.modules():
            if getattr(part, "inplace", False) is True:
                part.inplace = False  # what is recorded must not be overwritten
        return twin.requires_grad_(False)

    def _projections(self, twin: Any, method: Any, train: Batches) -> tuple[Projection, list[TwoSided]]:
        """Settings of the projection, and that of each layer."""
        projection: Projection = method.gradients.projection
        layers = module_layers(twin, self.modules)
        if projection.kind != "pca":
            return projection, [projection.random(layer) for layer in layers]
        plan = RowPass(layers, [UNPROJECTED] * len(layers), [_sides(layer) for layer in layers], per="nothing")
        found = self._collected(twin, plan, train, "loss").covariances()
        return projection, [projection.leading(layer, *sides) for layer, sides in zip(layers, found, strict=True)]

    def _rows(
        self, twin: Any, projections: tuple[Projection, list[TwoSided]], method: Any, batches: Batches, of: str
    ) -> GradientRows:
        """Gradients of a split: of its losses, of what is measured less its sign, or those that an expectation is
        made of."""
        layers = module_layers(twin, self.modules)
        plan = RowPass(layers, projections[1], [projections[0].sides(layer) for layer in layers])
        return self._collected(twin, plan, batches, of).rows()

    def _collected(self, twin: Any, plan: RowPass, batches: Batches, of: str) -> CollectedRows:
        found = CollectedRows(plan)
        examples, each = 0, 4 * plan.layout.n_numbers
        with without_overwriting():
            for batch in batches:
                batch = moved(batch, device_of(twin))
                with recording(plan.layers) as tape:
                    values, cotangents = self._differentiated(twin, batch, of)
                    refuse_overwritten(tape.overwritten())
                    examples += len(values)
                    needed = 0 if plan.per == "nothing" else each * examples * len(cotangents)
                    if needed > self.memory_budget:
                        raise UserError(
                            f"rows of {plan.layout.n_numbers} numbers need more than {bytes_in_words(needed)} for "
                            f"{examples} examples; expected them within memory_budget="
                            f"{bytes_in_words(self.memory_budget)}: raise it, name fewer modules, or use projection="
                            "'random' in the method."
                        )
                    index = torch.arange(examples - len(values), examples)
                    require_finite(values.detach().cpu(), f"A {of} of the task", index)
                    found.add(tape, values, cotangents)
        return found

    def _differentiated(self, twin: Any, batch: Any, of: str) -> tuple[Tensor, Tensor]:
        if of == "expectation":
            assert self.outputs is not None
            outputs = self.outputs(twin, batch)
            if outputs.dim() != 2:
                raise UserError(
                    f"outputs gives the shape {tuple(outputs.shape)}; expected [examples, outputs]: flatten the rest."
                )
            if self.likelihood == "gaussian":
                unit = torch.eye(outputs.shape[1], dtype=torch.float64, device=outputs.device)
                return outputs, unit[:, None].expand(-1, len(outputs), -1)
            return outputs, fisher_cotangents(outputs, outputs.argmax(1), "expectation")
        values = of_each(self.loss(twin, batch), "loss") if of == "loss" else self._measured(twin, batch)
        sign = 1.0 if of == "loss" else -1.0
        return values, torch.full_like(values, sign, dtype=torch.float64)[None]

    def _measured(self, twin: Any, batch: Any) -> Tensor:
        if self.measurement is None:
            return -of_each(self.loss(twin, batch), "loss")
        return of_each(self.measurement(twin, batch), "measurement")

    def _scored(self, method: Any, train: Any, queries: Any) -> Tensor:
        scorer = method.prepare(train, self.memory_budget)
        query = scorer.query(queries, torch.arange(len(queries)))
        found: Tensor = scorer.scores(query, 0, len(train))
        return found.float()


def _sides(layer: LinearLayer) -> tuple[int, int]:
    return layer.d_out, layer.d_in + layer.has_bias
