"""Refusals of a task before it computes: modules, methods, checkpoints and scores that it cannot read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.tracin import TracIn
from twinlens.models.given_models import require_values
from twinlens.task_batches import refuse_infinite
from twinlens.value_words import kind_in_words

OF_A_RUN = ("labels", "per", "storage")
"""Settings that say how a run reads and stores rows."""
Checkpoints = Sequence[tuple[Mapping[str, Tensor], float]]


def require_module(module: Any) -> nn.Module:
    """The module itself, without what torch.compile puts around it.

    Raises:
        UserError: no module, or one whose weights have no values or lie in several places.
    """
    module = getattr(module, "_orig_mod", module)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{kind_in_words(module)} stands where a module should; expected an nn.Module with weights: pass the "
            "module itself; lds needs a fit that returns one."
        )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise UserError(
            f"the module is {kind_in_words(module)}, which spreads batches over devices; expected the module inside: "
            "pass module.module."
        )
    lazy = [name for name, weight in module.named_parameters() if is_lazy(weight)]
    if lazy:
        raise UserError(
            f"the module's weight {lazy[0]} has no shape yet; expected a module that ran once: call it on a batch."
        )
    require_values("module", module)
    return module


def require_functions(**given: Any) -> None:
    """Refuse what cannot be called.

    Raises:
        UserError: naming the argument.
    """
    for name, function in given.items():
        if not callable(function):
            raise UserError(
                f"{name} is {kind_in_words(function)}; expected a function of the module and a batch: write "
                f"def {name}(module, batch): …"
            )


def require_method(method: Any, checkpoints: Checkpoints, has_outputs: bool) -> None:
    """Refuse a method that is not over gradients, or asks for what a task does not have.

    Raises:
        UserError: naming what to write.
    """
    name = type(method).__name__
    if not isinstance(method, GradientSimilarity | Influence | TracIn):
        raise UserError(
            f"{name} is not over the gradients of layers under one set of weights or some; expected "
            "GradientSimilarity, Influence or TracIn: choose one, or twinlens.explain for the others."
        )
    defaults = {field.name: field.default for field in fields(method)}
    own = [key for key in OF_A_RUN if key in defaults and getattr(method, key) != defaults[key]]
    if own:
        raise UserError(
            f"{name} has {own[0]}={getattr(method, own[0])}, which says how a run reads and stores rows, and a task "
            f"has a row of each example's loss; expected {own[0]}={defaults[own[0]]}: leave it out."
        )
    along = isinstance(method, TracIn)
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
    if method.curvature_losses == "expectation" and not has_outputs:
        raise UserError(
            f"{name} takes an expectation over the module's outputs, and the task says none; expected both: pass "
            "outputs=… to Task, or use Influence(curvature='ekfac', fisher='empirical')."
        )
    if isinstance(damping := getattr(method, "damping", 0.0), str):
        raise UserError(f"damping={damping} is chosen by a run; expected a number here: write damping=0.1.")


def steps_of(checkpoints: Any) -> list[tuple[Mapping[str, Tensor], float]]:
    """Checkpoints as pairs.

    Raises:
        UserError: one that is no state_dict with a learning rate.
    """
    found: list[tuple[Mapping[str, Tensor], float]] = []
    for number, pair in enumerate(checkpoints):
        state, rate = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (None, None)
        named = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
        if state is None or not named or isinstance(rate, bool) or not isinstance(rate, int | float):
            raise UserError(
                f"checkpoints[{number}] is no pair of a state_dict and a learning rate; expected tensors by name and a "
                "number: pass checkpoints=[(module.state_dict(), 0.1)], of a file torch.load(file)."
            )
        found.append((state, float(rate)))
    return found


def load_checkpoint(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put a copy of a state into a module, in the types that its own has.

    Raises:
        UserError: the state of another module.
    """
    own = module.state_dict()
    copied = {name: value.detach().clone().to(own.get(name, value)) for name, value in state.items()}
    try:
        module.load_state_dict(copied, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"a checkpoint does not fit the module ({' '.join(str(error).split())[:200]}); expected a "
            "state_dict of the same module: keep module.state_dict() while it is trained."
        ) from error


def shape_of(scores: Any) -> tuple[int, int]:
    """Numbers of queries and of train examples.

    Raises:
        UserError: no scores, of different shapes, or NaN.
    """
    given = scores if isinstance(scores, Mapping) else {}
    shapes = {name: tuple(found.shape) if isinstance(found, Tensor) else () for name, found in given.items()}
    every = set(shapes.values())
    if len(every) != 1 or len(first := every.pop()) != 2:
        raise UserError(
            f"lds was given the scores {shapes or 'of no method'}; expected a dict with some of one shape, [queries, "
            "train], by method: pass {'gradsim': task.scores('gradsim', train, queries)}."
        )
    for name, found in given.items():
        refuse_infinite([found], f"the score of {name}", 0)
    return first[0], first[1]
