"""Plan of evaluations that compute, and of choosing a damping; those of the second paper are `neuron_level`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.ground_truth.certificate import Certificate
from twinlens.attribution.evaluation.ground_truth.damping import GRID, HALVES, halves_of, held_out
from twinlens.attribution.evaluation.ground_truth.tail_patch import TailPatch
from twinlens.attribution.evaluation.ground_truth.truth_inputs import GroundTruth
from twinlens.attribution.evaluation.refits import Refits
from twinlens.attribution.evaluation.site_ablation import CELLS, SiteAblation
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.callbacks.attribute.dispatch import reads_of
from twinlens.callbacks.evaluate.damping import SPLIT
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
from twinlens.callbacks.evaluate.neurons_off import NeuronsOff
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.site_ablation import site_ablation_inputs
from twinlens.callbacks.plan.fits import fit_memory, fit_seconds, ranked_methods, retraining_line
from twinlens.callbacks.plan.line_inputs import PlanBase
from twinlens.callbacks.plan.neuron_level import neuron_level_lines
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.run.fit_refusals import fits_again


def evaluation_lines(plan: PlanBase, name: str, evaluation: Any) -> list[Line]:
    """Lines of one evaluation, none where it only reads what other stages leave."""
    methods = plan.parts.methods
    of_neurons = {k: m for k, m in methods.items() if m.names_neurons}
    if evaluation.requires == "neuron" and of_neurons:
        return [faithfulness_line(plan, name, evaluation, of_neurons)]
    if evaluation.requires == "tail_patch" and ranked_methods(methods):
        return [tail_patch_line(plan, name, evaluation)]
    if evaluation.requires == "sites":
        return [site_ablation_line(plan, name, evaluation)]
    if evaluation.requires == "certificate":
        return certificate_lines(plan, name, evaluation)
    fits = fits_again(evaluation)
    read = ranked_methods(methods) or (
        evaluation.requires == "units" and any(m.reads == "units" for m in methods.values())
    )
    if fits and plan.parts.settings["fit"] and read:
        return [fits_line(plan, name, evaluation)]
    if evaluation.requires == "neuron_level" and not plan.session.readout.of_sequences:
        return neuron_level_lines(plan, name, evaluation, of_kind(methods, "neuron", "ia_neurons"))
    return []


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
    every, all_sites = [*titles, *controls], {**sites, **others}
    questions = evaluation.n_edits(every, all_sites)
    lengths = plan.lengths[session.split]
    sizes = EngineSizes(plan.shape.footprint, session.tested_sequences, plan.shape.residual)
    total = sum(evaluation.work(sizes, plan.shape, length, questions) for length in lengths)
    seconds = plan.times.edits(name, evaluation, every, all_sites, total)
    if controls:
        drawing = RandomNeurons([0])
        drawn = len(controls) * len(lengths) * drawing.work(sizes, plan.shape, 1)
        seconds += plan.times.neurons(f"controls of {name}", drawing, drawn)
    split = reference_split(session, evaluation)
    if split is not None:
        sample = sorted(plan.lengths[split])[-evaluation.reference_size :]
        seconds += plan.times.forward(sum(evaluation.work(sizes, plan.shape, length, 0) for length in sample))
    need = evaluation.need(sizes, questions, control_sites(uniform, matched, sites))
    # a byte and a probability of every question, in shards and as a whole
    return plan.model_line(name, session.split, found, need, seconds, 2 * 5 * questions * len(lengths))


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


def certificate_lines(plan: PlanBase, name: str, evaluation: Certificate) -> list[Line]:
    """A forward and one edited token of each example, with seconds of refits of the head; then the fits, if any."""
    session, methods, found = plan.session, plan.parts.methods, None
    instances, neurons = evaluation.chosen(methods)
    if not instances or not neurons or session.readout.of_vocabulary or session.readout.of_sequences:
        return []
    with suppress(KeyError):  # lists that are still to be computed name no neurons yet
        off = NeuronsOff.of_lists(session, neurons, methods[neurons], evaluation.ablated)
        found = session.store.peek("evaluate", off.features_inputs(session))
    lengths, sizes, one = plan.lengths[session.split], plan.engine_sizes, Faithfulness()
    seconds = plan.times.forward(sum(one.work(sizes, plan.shape, length, 1) for length in lengths))
    width = 4 * plan.shape.footprint.hidden_size
    lines = [plan.model_line(name, session.split, found, one.need(sizes, 1, ()), seconds, 2 * width * len(lengths))]
    if evaluation.retrained and plan.parts.settings["fit"]:
        lines.append(replace(fits_line(plan, name, evaluation), name=f"{name}, fits"))
    return lines


def tail_patch_line(plan: PlanBase, name: str, evaluation: TailPatch) -> Line:
    """A forward and backward of every row that a step is taken on, and a forward of the test after it."""
    session, shape = plan.session, plan.shape
    train, tests = plan.lengths["train"], plan.lengths[session.split]
    n_tests = min(evaluation.tests, len(tests))
    n_sets = len(ranked_methods(plan.parts.methods)) * (1 + len(evaluation.seeds))  # beside each list its controls
    row = shape.forward_operations(round(sum(train) / len(train)))
    test = shape.forward_operations(round(sum(tests) / len(tests)))
    operations = n_sets * n_tests * sum(3 * k * row + test for k in evaluation.first)
    working = fit_memory(shape, session, sorted(train)[-max(evaluation.first) :], plan.device.type)
    return Line(
        name, n_tests, plan.said(bool(session.weights), None), plan.times.forward(session.sequences.read * operations),
        8 * n_sets * n_tests * len(evaluation.first), working, plan.model_bytes + working, plan.device.type,
        f"{n_sets * n_tests * len(evaluation.first)} steps",
    )  # fmt: skip


def damping_line(plan: PlanBase, name: str) -> Line:
    """What choosing the damping of a method adds to its pass: fits on halves, and a pass for every damping."""
    session, shape = plan.session, plan.shape
    train, held = list(plan.lengths["train"]), list(plan.lengths[SPLIT])
    half = len(halves_of(len(train))[0])
    rows = [round(sum(train) / len(train))] * half
    fit = fit_seconds(plan.times, shape, session, plan.parts.settings["trainer"], rows, held)
    predicted = plan.times.forward(session.sequences.read * sum(map(shape.forward_operations, held)))
    cost = reads_of(session, name, plan.parts.methods).cost(plan, SPLIT)
    seconds = None if cost.seconds is None else HALVES * (fit + predicted) + len(GRID) * cost.seconds
    working = max(cost.memory + cost.held, fit_memory(shape, session, sorted(train)[-half:], plan.device.type))
    return Line(
        f"damping of {name}", len(held_out(len(held))), "no", seconds, len(GRID) * cost.disk, working,
        plan.model_bytes + working, plan.device.type, f"{HALVES} fits, {len(GRID)} dampings",
    )  # fmt: skip


def fits_line(plan: PlanBase, name: str, evaluation: Refits | GroundTruth | Certificate) -> Line:
    """All fits of an evaluation as one line."""
    settings, parts = plan.parts.settings, plan.parts
    recipe = Recipe(
        parts.make_model, settings["model"], settings["trainer"], settings["callbacks"], parts.make_callbacks
    )
    return retraining_line(
        plan.session, name, evaluation, parts.methods, recipe, plan.source(settings["model"]["path"]),
        plan.shape, plan.lengths, plan.times, plan.device.type,
    )  # fmt: skip
