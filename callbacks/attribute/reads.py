"""The forms in which a split comes to a method: each is loaded, identified, scored and planned by one class.

A method names its form in `reads`; `twinlens.callbacks.attribute.dispatch` finds the class. All else asks the object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.method import Method
from twinlens.attribution.needed_memory import Need
from twinlens.callbacks.passes.costs import Shape
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.store import Finish


@dataclass(frozen=True)
class PassCost:
    """What a method's pass over a split takes.

    Attributes:
        seconds: None where the method does not say what it computes.
        disk: bytes at the highest.
        memory: bytes that `memory_budget` bounds.
        held: bytes beside these and the model's weights.
        on_host: whether the memory is the host's, wherever the model is.
        remark: a choice that was made.
    """

    seconds: float | None
    disk: int
    memory: int
    held: int = 0
    on_host: bool = False
    remark: str = ""


class Rates(Protocol):
    """How long operations take; `twinlens.callbacks.plan.times.Times` provides it.

    Attributes:
        host: operations per second in float64 on the host.
    """

    host: float

    def neurons(self, name: str, method: Any, operations: float) -> float:
        """Seconds of a neuron method's pass."""

    def rows(self, name: str, method: Any, rank: int, operations: float) -> float:
        """Seconds of a pass that stores `rank` gradients of each example."""

    def whole(self, name: str, method: Any, n_classes: int, work: Any) -> float:
        """Seconds of passes over whole gradients."""


class Planned(Protocol):
    """What a plan knows; `twinlens.callbacks.plan.line_inputs.PlanBase` provides it.

    Attributes:
        shape: of the model.
        lengths: tokens of each example, by split.
        times: how long operations take.
        n_epochs: of the run's fit.
        engine_sizes: of the model.
    """

    shape: Shape

    @property
    def lengths(self) -> dict[str, list[int]]: ...

    @property
    def times(self) -> Rates: ...

    @property
    def n_epochs(self) -> int: ...

    @property
    def engine_sizes(self) -> EngineSizes: ...

    def pass_memory(self, split: str, need: Need) -> int:
        """Peak of a pass over the model, beside its weights."""


class Reads(ABC):
    """One form, for one method of a run with one of its seeds.

    Args:
        session: of the run.
        name: of the method in the configuration.
        method: with one seed, or none.
        methods: all of the run by name.

    Attributes:
        needs_train: whether the train split has to be predicted.
        needs_epochs: whether the weights at the end of every epoch of the fit are read.
        needs_rate_sums: whether it needs to know of each epoch what its learning rates add up to.
        covers_layers: whether it is about linear layers that the method's `params` choose.
        serves_groups: whether tests can be put together, so that groups of them are scored too.
        counts_room: whether `cost` may find that a method of this form does not fit the memory budget.
    """

    needs_train: ClassVar[bool] = True
    needs_epochs: ClassVar[bool] = False
    needs_rate_sums: ClassVar[bool] = False
    covers_layers: ClassVar[bool] = False
    serves_groups: ClassVar[bool] = False
    counts_room: ClassVar[bool] = False

    def __init__(self, session: Session, name: str, method: Any, methods: Mapping[str, Method]) -> None:
        self.session = session
        self.name = name
        self.method = method
        self.methods = methods

    @classmethod  # noqa: B027 - most forms serve any model
    def refuse(cls, method: Any, architecture: Callable[[], Any]) -> None:
        """Refuse, before anything is trained, a method that the model cannot serve.

        Args:
            method: of this form.
            architecture: gives the model of the run without values.

        Raises:
            UserError: naming the setting.
        """

    @abstractmethod
    def inputs(self, split: str) -> dict[str, Any]:
        """Everything that the scores of a split depend on, beside method and code, plain values."""

    @abstractmethod
    def build(self, split: str, folder: Path) -> Finish:
        """Score a split; what is returned writes `<split>/`, what else the form has beside it, and `method.yaml`."""

    @abstractmethod
    def cost(self, plan: Planned, split: str) -> PassCost:
        """What `build` takes, from shapes alone.

        Raises:
            UserError: the method does not fit the budget.
        """
