"""Plan of the second paper's evaluations, whose pass over the sentences is one: what several read counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

from twinlens.attribution.evaluation.neuron_level.reads import Reads, reads_of
from twinlens.attribution.evaluation.neuron_level.value_neurons import shared_operations
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.evaluate.neuron_level import lists_of
from twinlens.callbacks.evaluate.neuron_level_pass import (
    neuron_level_inputs,
    neuron_level_need,
    part_need,
    scores_every_neuron,
    sentences_at_once,
    types_in,
)
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.plan.line_inputs import PlanBase
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.store.fingerprints import fingerprint_of

METRIC_BYTES = 3 * 4
"""Of one intervention on one sentence."""


def neuron_level_lines(plan: PlanBase, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Line]:
    """What the evaluation adds to the pass over the sentences, and the second one of an evaluation whose interventions
    follow from it."""
    session = plan.session
    reads_lists = getattr(evaluation, "reads_lists", False)
    if reads_lists and not methods:
        return []
    inputs: dict[str, Any] | None = None
    with suppress(KeyError):  # of predictions or scores that are still to be computed no fingerprint is known
        lists = lists_of(session, evaluation, methods)
        inputs = neuron_level_inputs(session, evaluation, plan.parts.settings["evaluation"][name], lists)
    n_lists = sum(len(method.seeds) for method in methods.values()) * reads_lists
    types = [kind for kind in dict.fromkeys(types_in(session.data.splits[session.split])) if kind]
    found = None if inputs is None else session.store.peek("evaluate", inputs)
    model, lengths = plan.shape.residual, plan.lengths[session.split]
    first = 0.0
    if model is not None:
        first = _own_operations(plan, model, evaluation, n_lists) + _shared(plan, model, evaluation, found is not None)
    lines = [_line(plan, name, evaluation, found, first, n_lists + len(types))]
    if hasattr(evaluation, "second") and types:
        second = None
        if found is not None and inputs is not None:
            second = session.store.peek("evaluate", {**inputs, "first": fingerprint_of(inputs)})
        again = sum(
            evaluation.second_operations(plan.shape.forward_operations(length), len(types)) for length in lengths
        )
        lines.append(_line(plan, f"{name}, second pass", evaluation, second, again, n_lists + len(types)))
    return lines


def _own_operations(plan: PlanBase, model: ResidualModel, evaluation: Any, n_lists: int) -> float:
    """What the evaluation alone takes of all sentences."""
    forward, lengths = plan.shape.forward_operations, Counter(plan.lengths[plan.session.split])
    total = sum(count * evaluation.operations(model, n, forward(n), n_lists) for n, count in lengths.items())
    if hasattr(evaluation, "operations_of_shown"):
        whole = plan.session.explain.neuron.target == COMPLETION
        longest = max(map(len, plan.session.data.splits[plan.session.split]["answer_ids"][:])) if whole else 1
        total += evaluation.operations_of_shown(forward(max(lengths)), lengths.total(), longest)
    if scores_every_neuron(evaluation):
        at_once = sentences_at_once(evaluation, model, max(lengths), plan.session.memory_budget)
        total += ceil(lengths.total() / at_once) * evaluation.operations_together(model)
    return total


def _shared(plan: PlanBase, model: ResidualModel, evaluation: Any, is_stored: bool) -> float:
    """What the evaluation reads of all sentences and no earlier line has counted."""
    alone = is_stored or scores_every_neuron(evaluation)
    before = Reads() if alone else plan.shared_reads
    after = before.joined(reads_of([evaluation], model))
    if not alone:
        plan.shared_reads = after
    forward = plan.shape.forward_operations
    return sum(
        count * (shared_operations(after, model, n, forward(n)) - shared_operations(before, model, n, forward(n)))
        for n, count in Counter(plan.lengths[plan.session.split]).items()
    )


def _line(plan: PlanBase, title: str, evaluation: Any, found: Path | None, operations: float, n_metrics: int) -> Line:
    session, model, lengths = plan.session, plan.shape.residual, plan.lengths[plan.session.split]
    if model is None:  # a family without adapter: the run refuses it, and so nothing is known of the pass
        need = costs.prediction_need(plan.shape.footprint, session.sequences)
        return plan.model_line(title, session.split, found, need, None, 0)
    if scores_every_neuron(evaluation):
        need = part_need(evaluation, model, max(lengths))
    else:
        need = neuron_level_need(model, evaluation)
    # metrics of every intervention, in shards and as a whole
    disk = 2 * METRIC_BYTES * (1 + n_metrics) * len(lengths)
    return plan.model_line(title, session.split, found, need, plan.times.forward(operations), disk)
