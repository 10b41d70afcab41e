"""Classes with typed signatures for configurations to name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from twinlens.attribution.instance.protocol import InstanceMethod

if TYPE_CHECKING:
    from decimal import Decimal

system = os.system


class Limit(TypedDict):
    train: NotRequired[int]
    test: int


@dataclasses.dataclass
class Window:
    start: int
    stop: int = 10


class Inner(InstanceMethod):
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def prepare(self, train: Any, memory_budget: int) -> None:
        """As an instance method has it."""


class SpecialInner(Inner):
    pass


class Method(InstanceMethod):
    def __init__(
        self,
        n_steps: int = 20,
        preset: Literal["right", "left", "midpoint"] = "right",
        damping: float = 0.1,
        layers: list[int] | None = None,
        path: Path | None = None,
        weights: dict[str, float] | None = None,
        exact: bool = False,
        names: Sequence[str] = (),
        window: Window | None = None,
        limit: Limit | None = None,
        inner: Inner | None = None,
        act: Callable[[int], int] | None = None,
        pair: tuple[int, str] = (0, ""),
        anything: Any = None,
        hidden: Decimal | None = None,
    ) -> None:
        self.n_steps = n_steps

    def prepare(self, train: Any, memory_budget: int) -> None:
        """As an instance method has it."""


class Needs:
    def __init__(self, path: str, size: int = 1) -> None:
        self.path = path


class Open:
    def __init__(self, size: int = 1, **settings: Any) -> None:
        self.size = size


def build_inner(size: int) -> Inner:
    return Inner(size)


class Base:
    def __init__(self, name: str, size: int = 1, *, limit: dict[str, int] | None = None, fixed: int = 0) -> None:
        self.size = size


class HandsOn(Base):
    def __init__(self, name: str = "x", extra: float = 0.5, **options: Any) -> None:
        super().__init__(name, fixed=3, **options)


class HandsOnTwice(HandsOn):
    def __init__(self, depth: int = 1, **options: Any) -> None:
        super().__init__(extra=1.0, **options)


class KeepsOptions(Base):
    def __init__(self, **options: Any) -> None:
        super().__init__("x", size=len(options))
