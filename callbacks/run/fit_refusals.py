"""Refusals of a fit that takes no step, where something of the run asks what its steps have done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.callbacks.attribute.dispatch import form_of
from twinlens.callbacks.evaluate.damping import chooses_damping

NO_STEPS = {
    "trainer.max_epochs": "at least 1",
    "trainer.max_steps": "at least 1, or -1 for no bound",
    "trainer.limit_train_batches": "a number above 0",
    "model.learning_rate": "a number above 0",
}
"""Settings with which a fit leaves the weights as they are where they are 0, and what was expected of each."""


def refuse_fits_without_steps(
    methods: Mapping[str, Any], evaluations: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Refuse a fit that changes nothing, where a method follows its steps or an evaluation fits the model again.

    A head is often wanted as it begins, so that such a fit is served wherever nothing asks what it has learned.

    Args:
        methods, evaluations: of the run, by name.
        settings: groups `trainer` and `model`, plain values.

    Raises:
        UserError: naming the setting and who asks.
    """
    nothing = idle_setting(settings)
    if nothing is None:
        return
    said, expected = nothing
    asking = [
        (f"method={name} reads what the steps have done", f"leave {name} out")
        for name, method in methods.items()
        if form_of(method).needs_epochs
    ]
    asking += [
        (f"method.{name}.damping=auto is chosen by models fitted on halves of the train split", "write damping=0.1")
        for name, method in methods.items()
        if chooses_damping(method)
    ]
    asking += [
        (f"evaluation={name} compares models that were fitted on other rows", f"leave {name} out")
        for name, evaluation in evaluations.items()
        if fits_again(evaluation)
    ]
    for asks, otherwise in asking:
        raise UserError(f"{said} takes no step of training, and {asks}; expected {expected}: raise it, or {otherwise}.")


def idle_setting(settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """The setting that keeps the weights as they are, as it is written, and what was expected; None: there is none."""
    for key, expected in NO_STEPS.items():
        group, _, name = key.partition(".")
        value = (settings.get(group) or {}).get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
            own = (settings.get("model") or {}).get(name) if group == "trainer" else None
            said = f"model.{name}={value} (trainer.{name})" if own == 0 else f"{key}={value}"
            return said, expected
    return None


def fits_again(evaluation: Any) -> bool:
    """Whether an evaluation trains models of its own."""
    return evaluation.requires == "rankings" or bool(getattr(evaluation, "refits", False))
