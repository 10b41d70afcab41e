"""Refusals before the fit, of requests that data and architecture show to be impossible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.base_line import BASE_LINE
from twinlens.attribution.evaluation.controls import CONTROL as NEURON_CONTROL
from twinlens.attribution.evaluation.subsets import RANDOM as INSTANCE_CONTROL
from twinlens.attribution.method import Method
from twinlens.callbacks.attribute.dispatch import form_of, require_methods
from twinlens.callbacks.attribute.group_scores import refuse_ungrouped
from twinlens.callbacks.attribute.method_graph import require_sources
from twinlens.callbacks.attribute.neuron_texts import refuse_neuron_texts
from twinlens.callbacks.attribute.reference_activations import refuse_small_sample
from twinlens.callbacks.evaluate.damping import refuse_unknown_damping
from twinlens.callbacks.evaluate.faithfulness import reference_split, refuse_replaced_attention
from twinlens.callbacks.fit.early_stopping import require_validation
from twinlens.callbacks.fit.other_checkpoints import other_checkpoints, require_same_model
from twinlens.callbacks.fit.stage import n_processes, trains
from twinlens.callbacks.passes.explain import LENSES
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.launch import refuse_other_processes
from twinlens.callbacks.run.adapter_refusals import refuse_idle_adapter
from twinlens.callbacks.run.architecture import configured_architecture
from twinlens.callbacks.run.explain_refusals import refuse_what_cannot_be_explained
from twinlens.callbacks.run.fit_refusals import refuse_fits_without_steps
from twinlens.callbacks.run.number_refusals import refuse_numbers, require_precision
from twinlens.callbacks.run.parts import keeps_epochs, splits_needed
from twinlens.callbacks.run.room_refusals import refuse_what_has_no_room
from twinlens.models.footprint import footprint_of


def refuse_what_the_inputs_rule_out(
    session: Session,
    methods: Mapping[str, Any],
    evaluations: Mapping[str, Any],
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse, once data and configuration are read, what only a later stage would find.

    Args:
        session: of the run, its data prepared.
        methods, evaluations: of the run, by name.
        settings: the whole configuration as plain values.
        tokenizer: of the model.

    Raises:
        UserError: a split that the data do not have, a reference split that is missing or too small, too few train rows
            for an evaluation, lists that do not cover the train split where one reads every score, a head that is not
            convex, gold targets of a folded split, layers that the model does not have, a path through pre-activations
            on a gated model, or weights of a type that the run cannot use.
    """
    splits_needed(session.data.splits, session.split, methods)
    refuse_numbers(session, evaluations, settings)
    if any(method.names_neurons for method in methods.values()):
        for evaluation in evaluations.values():
            if evaluation.requires == "neuron":
                reference_split(session, evaluation)
                refuse_replaced_attention(evaluation, methods)

    refuse_idle_adapter(settings["model"], session.data.name, trains(session, settings["fit"]))
    refuse_unknown_damping(session, methods, trains(session, settings["fit"]))
    if trains(session, settings["fit"]):
        require_validation(settings.get("callbacks") or {}, session.data.monitored, session.data.name)
    others = other_checkpoints(settings.get("checkpoints"), settings.get("checkpoint_rates"))
    require_same_model(others, settings["model"], tokenizer)
    of_instances = {key: method for key, method in methods.items() if method.kind == "instance"}
    told = [session.explain.of(lens).told for lens in LENSES]
    for name, evaluation in evaluations.items() if of_instances else ():
        if hasattr(evaluation, "require_one_target"):
            evaluation.require_one_target(*told)
        n_train = len(session.data.splits["train"])
        if hasattr(evaluation, "require_rows"):
            evaluation.require_rows(n_train)
        for key, method in of_instances.items():
            if hasattr(evaluation, "require_coverage"):
                evaluation.require_coverage(name, key, method.top_k, n_train)

    @cache
    def architecture() -> Any:
        return configured_architecture(session.data, settings["model"], tokenizer)

    for evaluation in evaluations.values():
        if hasattr(evaluation, "require_head") and of_instances and not session.readout.of_vocabulary:
            evaluation.require_head(architecture().score, session.sequences.read)
        if hasattr(evaluation, "require_neurons") and evaluation.of in methods:
            footprint = footprint_of(architecture().base_model)
            for key, method in methods.items():
                if method.kind == "neuron" and method.ranks == methods[evaluation.of].ranks:
                    n_neurons = footprint.n_layers * footprint.units(method.ranks)
                    evaluation.require_neurons(key, method.top_k, n_neurons)
    refuse_what_cannot_be_explained(session, methods)
    refuse_neuron_texts(session, methods, settings.get("neuron_texts"))
    for name, method in methods.items():
        form_of(method).refuse(method, architecture)
        refuse_small_sample(session, name, method, session.split)
        if hasattr(method, "require_tests"):
            method.require_tests(name, len(session.data.splits[session.split]))
            refuse_short_lists(session, name, methods, evaluations)
        if method.lens == "instance":
            refuse_ungrouped(session, name, form_of(method).serves_groups)
    refuse_what_has_no_room(session, methods, architecture, int(settings["trainer"].get("max_epochs") or 1))


def refuse_short_lists(session: Session, name: str, methods: Mapping[str, Any], evaluations: Mapping[str, Any]) -> None:
    """Refuse lists of units, or of their predictions, of which an evaluation takes more rows away than they hold.

    Args:
        name: of a method that lists train rows for units.

    Raises:
        UserError: naming the method and both numbers.
    """
    n_train = len(session.data.splits["train"])
    for evaluation in evaluations.values():
        if hasattr(evaluation, "require_unit_lists"):
            for read in filter(None, (name, evaluation.beside)):
                evaluation.require_unit_lists(read, methods[read].top_k, n_train)


def refuse_what_cannot_run(
    methods: Mapping[str, Any],
    evaluations: Mapping[str, Any],
    trainer: Mapping[str, Any],
    fit: bool,
    checkpoints: Sequence[str] | None = None,
    model: Mapping[str, Any] | None = None,
) -> None:
    """Refuse, before anything is read or trained, what would fail later.

    Raises:
        UserError: what is no method, a name that controls have, lists too short, sources that a method cannot have,
            epochs of a fit that is none, a fit without steps whose steps are asked about, a precision that the device
            does not have, steps with weights that are spread over processes, or other processes than torchrun or SLURM
            has started.
    """
    require_methods(methods)
    require_free_names(methods)
    require_long_lists(methods, evaluations)
    require_sources(methods)
    if not fit and keeps_epochs(methods) and not checkpoints:
        name = next(name for name, method in methods.items() if keeps_epochs({name: method}))
        # the steps of somebody else's training are not known
        others = "" if form_of(methods[name]).needs_rate_sums else " or checkpoints=[DIR1,DIR2]"
        raise UserError(
            f"method={name} reads the weights at the end of every epoch, but fit=false trains none; expected a fit"
            f"{', or checkpoints of the training that led to the model' if others else ''}: set fit=true{others}, or "
            f"leave {name} out."
        )
    if checkpoints and (fit or not keeps_epochs(methods)):
        why = "fit=true keeps epochs of its own" if fit else "no method of the run reads them"
        raise UserError(
            f"checkpoints={list(checkpoints)} are of a training that is over, but {why}; expected fit=false with a "
            "method along the training: set fit=false method=[tracin], or leave checkpoints out."
        )
    unrolled = [name for name, method in methods.items() if form_of(method).needs_rate_sums]
    if checkpoints and unrolled:
        raise UserError(
            f"method={unrolled[0]} adds up the learning rates of all steps of an epoch, and checkpoints="
            f"{list(checkpoints)} tell those of a few; expected a fit of the run's own: set fit=true, or use "
            "method=[tracin] with checkpoints."
        )
    if fit:
        refuse_fits_without_steps(methods, evaluations, {"trainer": trainer, "model": model or {}})
    refuse_other_processes(n_processes({**trainer, "num_nodes": 1}), int(trainer.get("num_nodes", 1)))
    require_precision(trainer, fit)
    require_whole_weights(trainer, evaluations)


def require_free_names(methods: Mapping[str, Method]) -> None:
    """Refuse an ordinary method under a name that evaluations write their own controls under.

    Raises:
        UserError: naming the method.
    """
    for name in (NEURON_CONTROL, INSTANCE_CONTROL, BASE_LINE):
        if name in methods and not (methods[name].is_control and name != BASE_LINE):
            raise UserError(
                f"method.{name} is an ordinary method, but evaluations write their own controls under that name; "
                f"expected another one: rename it, e.g. to method.my_{name}."
            )


def require_long_lists(methods: Mapping[str, Any], evaluations: Mapping[str, Any]) -> None:
    """Refuse, before anything is trained, lists that would be empty or too short for an evaluation, and names in an
    evaluation that the run does not have.

    Raises:
        UserError: naming the method and what it lacks.
    """
    for name, method in methods.items():
        if method.top_k < 1:
            raise UserError(f"method.{name}.top_k={method.top_k}, expected at least 1: raise it.")
        if not method.seeds:
            raise UserError(f"method.{name}.seeds=[] draws nothing, expected at least one seed: write [0].")
    for evaluation in evaluations.values():
        if hasattr(evaluation, "require_methods"):
            drawless = (name for name, method in methods.items() if method.kind == "instance" and not method.draws)
            evaluation.require_methods(list(drawless))
        if hasattr(evaluation, "require_lists"):
            evaluation.require_lists(methods)
        for name, method in methods.items():
            of_instances = evaluation.requires in ("ground_truth", "tail_patch", "instance")
            asked = method.kind == "instance" if of_instances else method.names_neurons
            if hasattr(evaluation, "require_length") and asked:
                evaluation.require_length(name, method.top_k)


def require_whole_weights(trainer: Mapping[str, Any], evaluations: Mapping[str, Any]) -> None:
    """Refuse steps of a model whose weights are spread over processes.

    Raises:
        UserError: naming the evaluation.
    """
    strategy = trainer.get("strategy")
    named = str(strategy.get("_target_", "")) if isinstance(strategy, Mapping) else str(strategy)
    if "fsdp" not in named.lower():
        return
    for name, evaluation in evaluations.items():
        if evaluation.requires == "tail_patch":
            raise UserError(
                f"evaluation={name} takes a step with all weights at one place, and trainer=fsdp spreads them; "
                "expected another trainer: use trainer=ddp, or leave the evaluation out."
            )
