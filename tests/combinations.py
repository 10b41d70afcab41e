"""Combinations of parameters, shared out between the short and the long series."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def half_long(*values: Sequence[Any]) -> list[Any]:
    """All combinations of values of several parameters, every second one in the long series.

    Two that differ in one value alone lie on either side, so that `make test` tries each value with half of the others.
    """
    found = []
    for places in itertools.product(*(range(len(each)) for each in values)):
        marks = [pytest.mark.long] if sum(places) % 2 else []
        found.append(pytest.param(*(each[at] for each, at in zip(values, places, strict=True)), marks=marks))
    return found
