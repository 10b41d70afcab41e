"""Plan of the search for the texts that activate listed neurons most."""

from __future__ import annotations

from contextlib import suppress

from twinlens.callbacks.attribute.neuron_texts import (
    CORPUS,
    STAGE,
    corpus_need,
    listed_neurons,
    lists_neurons,
    search_inputs,
    texts_kept,
)
from twinlens.callbacks.passes.shards import FACTOR_SEGMENTS
from twinlens.callbacks.plan.line_inputs import PlanBase
from twinlens.callbacks.plan.table import Line


def neuron_text_lines(plan: PlanBase) -> list[Line]:
    """One line, none where no texts are kept.

    How many neurons the lists will name is bounded by their entries and by the model's neurons.
    """
    session, footprint = plan.session, plan.shape.footprint
    kept = texts_kept(session.data, plan.parts.settings.get("neuron_texts"))
    listed = [method for method in plan.parts.methods.values() if lists_neurons(method)]
    if not kept or not listed or session.readout.of_sequences:
        return []
    of_model = footprint.n_layers * (footprint.n_neurons + footprint.query_width)
    entries = sum(method.top_k * len(plan.lengths[session.split]) for method in listed)
    n_units = min(of_model, entries)
    widest = min(footprint.n_neurons + footprint.query_width, n_units)
    lengths = plan.lengths[CORPUS]
    seconds = plan.times.forward(sum(map(plan.shape.forward_operations, lengths)))
    lists = 2 * n_units * kept * 16  # both ends: text, position and activation
    need = corpus_need(footprint, widest, n_units)
    found = None
    with suppress(KeyError):  # lists that are still to be computed name no neurons yet
        inputs = search_inputs(session, listed_neurons(session, plan.parts.methods), kept)
        found = session.store.peek(STAGE, inputs)
    line = plan.model_line("texts of neurons", CORPUS, found, need, seconds, lists * (FACTOR_SEGMENTS + 2))
    return [line]
