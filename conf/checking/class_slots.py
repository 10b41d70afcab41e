"""Slots of the configuration and the kind of class each takes: a method is a method, a callback a callback."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.precision.precision import Precision
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO, LayerSync
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method


@dataclass(frozen=True)
class Slot:
    """A place of the configuration where a class is named.

    Attributes:
        pattern: its path; `*` stands for one name.
        what: what belongs there, in words.
        belongs: whether a class does.
    """

    pattern: str
    what: str
    belongs: Callable[[type], bool]


def _kind(*bases: type, offers: tuple[str, ...] = ()) -> Callable[[type], bool]:
    return lambda found: issubclass(found, bases) and all(hasattr(found, name) for name in offers)


def _is_method(found: type) -> bool:
    """Whether a class is a method, and none of the classes that methods extend."""
    return issubclass(found, Method) and found.__module__ not in METHOD_BASES


METHOD_BASES = (
    Method.__module__,
    "twinlens.attribution.instance.protocol",
    "twinlens.attribution.instance.over_layers",
    "twinlens.attribution.instance.layer_curvature",
    "twinlens.attribution.neuron.protocol",
)
"""Modules of the classes to extend."""
SLOTS = (
    Slot("model", "a model (a LightningModule with `save`)", _kind(LightningModule, offers=("save",))),
    Slot(
        "data", "a data module (a LightningDataModule with `prepare`)", _kind(LightningDataModule, offers=("prepare",))
    ),
    Slot("trainer", "Lightning's Trainer", _kind(Trainer)),
    Slot("callbacks.*", "a callback of Lightning", _kind(Callback)),
    Slot("logger.*", "a logger of Lightning", _kind(Logger)),
    Slot("method.*", "a method (a class that extends `InstanceMethod` or `NeuronMethod`)", _is_method),
    Slot(
        "evaluation.*",
        "an evaluation (a class with `evaluate` and `requires`)",
        _kind(object, offers=("evaluate", "requires")),
    ),
)
INSIDE = Slot(
    "*",
    "a strategy, plugin, profiler, accelerator, callback or logger of Lightning",
    _kind(Strategy, Precision, ClusterEnvironment, CheckpointIO, LayerSync, Accelerator, Profiler, Callback, Logger),
)
"""What may stand inside another class's arguments."""


def check_slot(target: type, path: str, name: object, slots: tuple[Slot, ...] = SLOTS) -> None:
    """Refuse a class in a place that it does not belong to.

    Args:
        target: the class.
        path: of the node.
        name: what the node names.
        slots: the places; a path that is none of theirs is inside another class's arguments.

    Raises:
        UserError: naming what belongs there.
    """
    fitting = (slot for slot in slots if _is_at(path, slot.pattern))
    slot = next(fitting, INSIDE)
    if not slot.belongs(target) or inspect.isabstract(target) or getattr(target, "_is_protocol", False):
        raise UserError(f"{path}._target_={name} is not {slot.what}; expected one: name such a class.")


def _is_at(path: str, pattern: str) -> bool:
    """Whether a path has the pattern, in which `*` stands for one name."""
    group, _, rest = pattern.partition(".")
    first, _, name = path.partition(".")
    if not rest:
        return path == pattern
    return first == group and bool(name) and not set(name) & set(".[")
