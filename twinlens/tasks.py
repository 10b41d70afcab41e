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

import twinlens.task_checks as checks
from twinlens.attribution.errors import UserError
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
from twinlens.caller_state import as_it_was, with_gradients
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.method_names import configured
from twinlens.models.given_models import twin_of
from twinlens.models.linear_layers import coverage
from twinlens.models.module_layers import module_layers
from twinlens.task_batches import (
    device_of,
    moved,
    of_each,
    outputs_of,
    refuse_infinite,
    refuse_overwritten,
    require_batches,
    without_overwriting,
)
from twinlens.task_proof import prove_rows

OfBatch = Callable[[Any, Any], Tensor]
"""(module, batch) → a number, or scores, of each example."""
Batches = Iterable[Any]
Likelihood = Literal["categorical", "gaussian"]
Fit = Callable[[list[int], int], nn.Module]
"""(train rows, seed) → a module trained on them."""
BUDGET = 4 * 2**30
"""Bytes that rows of gradients, and what is solved with them, may take."""


class Task:
    """What is asked of a module. The module is read through a twin over the same weights, in eval mode and without its
    hooks, and stays as it is. Layers that are frozen count like others.

    Args:
        module: any; its layers read examples along their first axis, and nothing else reads their weights. The first
            batch of every pass is compared with autograd.
        loss: (module, batch) → the training loss of each example, [examples], not a mean over them.
        measurement: (module, batch) → what is explained of each query, [examples], higher is more; None: less loss.
        modules: names of layers, or glob patterns over them; None: all linear layers and convolutions.
        outputs: (module, batch) → scores of each example before the softmax (logits), [examples, outputs], of which
            curvature methods take an expectation; None: those methods need `fisher="empirical"`.
        likelihood: of the outputs: `categorical`, the loss is cross-entropy over them; `gaussian`, it is
            ½ Σ (outputs − truth)².
        memory_budget: bytes, or words such as "4GiB".

    Raises:
        UserError: see `twinlens.models.module_layers.module_layers`; no module, or one without values; an unknown
            likelihood.

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
        memory_budget: int | str = BUDGET,
    ) -> None:
        if likelihood not in get_args(Likelihood):
            raise UserError(
                f"likelihood={likelihood!r} is none that is known; expected {' or '.join(get_args(Likelihood))}: "
                "choose categorical for classes, gaussian for regression."
            )
        given = {"loss": loss, "measurement": measurement, "outputs": outputs}
        checks.require_functions(**{name: each for name, each in given.items() if each is not None or name == "loss"})
        self.module = checks.require_module(module)
        self.loss = loss
        self.measurement = measurement
        self.modules = modules
        self.outputs = outputs
        self.likelihood = likelihood
        self.memory_budget = parse_bytes(memory_budget)
        self.layers = [layer.name for layer in module_layers(self.module, modules)]

    def coverage(self) -> str:
        """Which share of the module's parameters the layers hold, and what the rest is."""
        none = nn.Module()
        return coverage(self.module, none, module_layers(self.module, self.modules)).told()

    def scores(
        self,
        method: Any,
        train: Batches,
        queries: Batches,
        checkpoints: checks.Checkpoints = (),
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
                memory budget; losses that are no number of each example, or not of it alone.
        """
        method, checkpoints = configured(method), list(checkpoints)
        checks.require_method(method, checkpoints, self.outputs is not None)
        with as_it_was(), with_gradients():
            for name, batches in (("train", train), ("queries", queries)):
                require_batches(name, batches)
            return self._scores(method, train, queries, checks.steps_of(checkpoints))

    def _scores(self, method: Any, train: Batches, queries: Batches, checkpoints: checks.Checkpoints) -> Tensor:
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

        Raises:
            UserError: no batches, or none of the same order each time; what is measured is no number of each query.
        """
        with as_it_was(), with_gradients():
            require_batches("queries", queries)
            twin = twin_of(checks.require_module(self.module if module is None else module), dtype=None)
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
        n_queries, n_train = checks.shape_of(scores)
        held = {name: HeldScores(found.detach().cpu()[None]) for name, found in scores.items()}

        def measure(rows: Sequence[int], seed: int) -> Tensor:
            found = self.measure(queries, checks.require_module(fit(list(rows), seed))).double()
            if len(found) != n_queries:
                raise UserError(
                    f"the scores are of {n_queries} queries, and the batches hold {len(found)}; expected the same "
                    "queries for both: pass those that were scored."
                )
            return found

        evaluation = LinearDatamodelling(subsets=subsets, percent=percent, seeds=list(seeds))
        return evaluation.evaluate(TruthInputs(n_train, held, torch.arange(n_queries), measure))

    # -- one pass ---------------------------------------------------------------------------------------------------

    def _twin(self, state: Mapping[str, Tensor] | None = None) -> Any:
        twin = twin_of(self.module, dtype=None)
        if state is not None:
            checks.load_checkpoint(twin, state)
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
        rows = self._collected(twin, plan, batches, of).rows()
        refuse_infinite(rows.groups, f"the gradient of the {of} of the task", 0, rows.rank)
        return rows

    def _collected(self, twin: Any, plan: RowPass, batches: Batches, of: str) -> CollectedRows:
        found = CollectedRows(plan)
        proven: list[int] = []
        examples, each = 0, 4 * plan.layout.n_numbers
        with without_overwriting():
            for given in batches:
                batch = moved(given, device_of(twin))

                def differentiated(batch: Any = batch) -> tuple[Tensor, Tensor]:
                    return self._differentiated(twin, batch, of)

                if len(proven) < 2 and max(proven, default=0) < 2:  # one example alone depends on no other one
                    proven.append(prove_rows(plan.layers, differentiated, f"the {of} of the task"))
                with recording(plan.layers) as tape:
                    values, cotangents = differentiated()
                    if not len(values):
                        continue
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
                    refuse_infinite([values], f"the {of} of the task", examples - len(values))
                    found.add(tape, values, cotangents)
        return found

    def _differentiated(self, twin: Any, batch: Any, of: str) -> tuple[Tensor, Tensor]:
        if of == "expectation":
            assert self.outputs is not None
            outputs = outputs_of(self.outputs(twin, batch), batch, self.likelihood)
            if self.likelihood == "gaussian":
                unit = torch.eye(outputs.shape[1], dtype=torch.float64, device=outputs.device)
                return outputs, unit[:, None].expand(-1, len(outputs), -1)
            return outputs, fisher_cotangents(outputs, outputs.argmax(1), "expectation")
        values = of_each(self.loss(twin, batch), "loss", batch) if of == "loss" else self._measured(twin, batch)
        if not values.requires_grad:
            raise UserError(
                f"the {of} of the task depends on no layer that is differentiated; expected what is computed from what "
                "they give: leave out detach(), .item() and NumPy, and name in modules the layers that it comes from."
            )
        sign = 1.0 if of == "loss" else -1.0
        return values, torch.full_like(values, sign, dtype=torch.float64)[None]

    def _measured(self, twin: Any, batch: Any) -> Tensor:
        if self.measurement is None:
            return -of_each(self.loss(twin, batch), "loss", batch)
        return of_each(self.measurement(twin, batch), "measurement", batch)

    def _scored(self, method: Any, train: Any, queries: Any) -> Tensor:
        scorer = method.prepare(train, self.memory_budget)
        query = scorer.query(queries, torch.arange(len(queries)))
        found: Tensor = scorer.scores(query, 0, len(train))
        return found.float()


def _sides(layer: LinearLayer) -> tuple[int, int]:
    return layer.d_out, layer.d_in + layer.has_bias
