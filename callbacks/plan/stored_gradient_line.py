"""The plan's line of a method over stored gradients."""

from __future__ import annotations

from typing import Any, Protocol

from twinlens.callbacks.attribute.stored_gradient_costs import rows_cost
from twinlens.callbacks.passes.costs import Shape
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import rows_per_shard
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.plan.times import Times


class Planned(Protocol):
    """What a plan knows: the session, the model's sizes, tokens of each example by split, how long work takes."""

    session: Session
    shape: Shape
    lengths: dict[str, list[int]]
    times: Times


def rows_line(plan: Planned, name: str, title: str, method: Any, stored: str) -> Line:
    """The plan's line: passes that store gradients, then products with them on the host.

    Args:
        name: of the method.
        stored: whether the scores are in the store, in words.
    """
    session, shape, lengths = plan.session, plan.shape, plan.lengths
    test = lengths[session.split]
    classes, tests = len(session.data.label_names), rows_per_shard(len(test))
    cost = rows_cost(method, shape, lengths["train"], test, classes, tests, session.memory_budget)
    read, times = session.sequences.read, plan.times
    seconds = times.rows(name, method, 1, read * cost.gradient_operations) + cost.host_operations / times.host
    if cost.fisher_operations:
        seconds += times.rows(name, method, cost.rank, read * cost.fisher_operations)
    peak = cost.memory + 4 * shape.parameters
    return Line(title, len(test), stored, seconds, cost.disk, cost.memory, peak, "cpu", cost.remark)
