"""Plan of evaluations that compute: faithfulness, retraining, and those of the second paper."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth
from twinlens.attribution.evaluation.refits import Refits
from twinlens.attribution.evaluation.site_ablation import CELLS, SiteAblation
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.callbacks.evaluate.evaluation_inputs import of_kind
from twinlens.callbacks.evaluate.faithfulness import (
    control_names,
    control_sites,
    controls_of,
    faithfulness_inputs,
    list_names,
    neuron_lists,
    reference_split,
    site_of,
    uniform_name,
)
from twinlens.callbacks.evaluate.neuron_level import neuron_level_inputs, neuron_level_need, types_in, value_lists
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.site_ablation import site_ablation_inputs
from twinlens.callbacks.passes import costs
from twinlens.callbacks.plan.fits import ranked_methods, retraining_line
from twinlens.callbacks.plan.line_inputs import PlanBase
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.store.fingerprints import fingerprint_of

METRIC_BYTES = 3 * 4
"""Of one intervention on one sentence."""


def evaluation_lines(plan: PlanBase, name: str, evaluation: Any) -> list[Line]:
    """Lines of one evaluation, none where it only reads what other stages leave."""
    methods = plan.parts.methods
    of_neurons = {k: m for k, m in methods.items() if m.names_neurons}
    if evaluation.requires == "neuron" and of_neurons:
        return [faithfulness_line(plan, name, evaluation, of_neurons)]
    if evaluation.requires == "sites":
        return [site_ablation_line(plan, name, evaluation)]
    fits = evaluation.requires == "rankings" or getattr(evaluation, "refits", False)
    if fits and plan.parts.settings["fit"] and ranked_methods(methods):
        return [fits_line(plan, name, evaluation)]
    if evaluation.requires == "neuron_level" and not plan.session.readout.of_sequences:
        return neuron_level_lines(plan, name, evaluation, of_kind(methods, "neuron", "ia_neurons"))
    return []


def neuron_level_lines(plan: PlanBase, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Line]:
    """The pass over the explained sentences, and the second one of an evaluation whose interventions follow from it."""
    session = plan.session
    reads_lists = getattr(evaluation, "reads_lists", False)
    if reads_lists and not methods:
        return []
    inputs: dict[str, Any] | None = None
    with suppress(KeyError):  # of predictions or scores that are still to be computed no fingerprint is known
        lists = value_lists(session, evaluation, methods) if reads_lists else {}
        inputs = neuron_level_inputs(session, evaluation, plan.parts.settings["evaluation"][name], lists)
    n_lists = sum(len(method.seeds) for method in methods.values()) * reads_lists
    types = [kind for kind in dict.fromkeys(types_in(session.data.splits[session.split])) if kind]
    found = None if inputs is None else session.store.peek("evaluate", inputs)
    lines = [_pass(plan, name, evaluation, found, n_lists, len(types))]
    if hasattr(evaluation, "second") and types:
        second = None
        if found is not None and inputs is not None:
            second = session.store.peek("evaluate", {**inputs, "first": fingerprint_of(inputs)})
        lines.append(_pass(plan, name, evaluation, second, n_lists, len(types), is_second=True))
    return lines


def _pass(
    plan: PlanBase, name: str, evaluation: Any, found: Path | None, n_lists: int, n_types: int, is_second: bool = False
) -> Line:
    lengths, model = plan.lengths[plan.session.split], plan.shape.residual
    if model is None:  # a family without adapter: the run refuses it, and so nothing is known of the pass
        need = costs.prediction_need(plan.shape.footprint, plan.session.sequences)
        return plan.model_line(name, plan.session.split, found, need, None, 0)
    forward = plan.shape.forward_operations
    if is_second:
        total = sum(evaluation.second_operations(forward(length), n_types) for length in lengths)
    else:
        by_length = {n: evaluation.operations(model, n, forward(n), n_lists) for n in set(lengths)}
        total = sum(by_length[length] for length in lengths)
    # metrics of every intervention, in shards and as a whole
    disk = 2 * METRIC_BYTES * (1 + n_lists + n_types) * len(lengths)
    title = f"{name}, second pass" if is_second else name
    return plan.model_line(
        title, plan.session.split, found, neuron_level_need(model, evaluation), plan.times.forward(total), disk
    )


def faithfulness_line(plan: PlanBase, name: str, evaluation: Any, methods: Mapping[str, Any]) -> Line:
    """All questions of faithfulness as one line."""
    session = plan.session
    uniform, matched = controls_of(evaluation, methods)
    titles = [key for method, configured in methods.items() for key in list_names(method, configured)]
    found = None
    if all((title, session.split) in session.scores for title in titles):
        lists = neuron_lists(session, evaluation, methods)
        settings = plan.parts.settings["evaluation"][name]
        found = session.store.peek("evaluate", faithfulness_inputs(session, evaluation, settings, lists))
    controls = control_names(uniform, matched)
    sites = {
        key: site
        for name in methods
        if (site := site_of(name, methods)) != "ffn"
        for key in list_names(name, methods[name])
    }
    others = {uniform_name(site, seed): site for site, seeds in uniform.items() if site != "ffn" for seed in seeds}
    questions = evaluation.n_edits([*titles, *controls], {**sites, **others})
    lengths = plan.lengths[session.split]
    sizes = EngineSizes(plan.shape.footprint, session.tested_sequences, plan.shape.residual)
    drawn = RandomNeurons(list(range(len(controls)))).work(sizes, plan.shape, 1)
    total = sum(evaluation.work(sizes, plan.shape, length, questions) + drawn for length in lengths)
    split = reference_split(session, evaluation)
    if split is not None:
        sample = sorted(plan.lengths[split])[-evaluation.reference_size :]
        total += sum(evaluation.work(sizes, plan.shape, length, 0) for length in sample)
    need = evaluation.need(sizes, questions, control_sites(uniform, matched, sites))
    # a byte and a probability of every question, in shards and as a whole
    return plan.model_line(
        name, session.split, found, need, plan.times.forward(total), 2 * 5 * questions * len(lengths)
    )


def site_ablation_line(plan: PlanBase, name: str, evaluation: SiteAblation) -> Line:
    """The edited forwards of the four cells."""
    session, lengths, found = plan.session, plan.lengths[plan.session.split], None
    with suppress(KeyError):  # of predictions that are still to be computed no fingerprint is known
        inputs = site_ablation_inputs(session, evaluation, plan.parts.settings["evaluation"][name])
        found = session.store.peek("evaluate", inputs)
    sizes = plan.engine_sizes
    seconds = plan.times.forward(sum(evaluation.work(sizes, plan.shape, length) for length in lengths))
    # a byte and a probability of every cell, in shards and as a whole
    disk = 2 * 5 * len(CELLS) * len(lengths)
    return plan.model_line(name, session.split, found, evaluation.need(sizes), seconds, disk)


def fits_line(plan: PlanBase, name: str, evaluation: Refits | GroundTruth) -> Line:
    """All fits of an evaluation as one line."""
    settings, parts = plan.parts.settings, plan.parts
    recipe = Recipe(
        parts.make_model, settings["model"], settings["trainer"], settings["callbacks"], parts.make_callbacks
    )
    return retraining_line(
        plan.session, name, evaluation, parts.methods, recipe, plan.source(settings["model"]["path"]),
        plan.shape, plan.lengths, plan.times, plan.device.type,
    )  # fmt: skip
