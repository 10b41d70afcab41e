"""Refusals before the fit, of requests that data and architecture show to be impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.neuron.ig import PRESETS, IntegratedGradients
from twinlens.callbacks.attribute.method_graph import (
    names_neurons,
    reads_of,
    require_sources,
)
from twinlens.callbacks.evaluate.faithfulness import reference_split
from twinlens.callbacks.fit.stage import n_processes
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.launch import refuse_other_processes
from twinlens.callbacks.run.architecture import configured_architecture
from twinlens.callbacks.run.parts import keeps_epochs, splits_needed
from twinlens.models.footprint import footprint_of
from twinlens.models.linear_layers import linear_layers


def refuse_what_the_inputs_rule_out(
    session: Session,
    methods: Mapping[str, Any],
    evaluations: Mapping[str, Any],
    model: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse, once data and configuration are read, what only a later stage would find.

    Args:
        session: of the run, its data prepared.
        methods, evaluations: of the run, by name.
        model: settings of the model.
        tokenizer: of the model.

    Raises:
        UserError: a split that the data do not have, a reference split that is missing or too small, gold targets of a
            folded split, layers that the model does not have, or a path through pre-activations on a gated model.
    """
    splits_needed(session.data.splits, session.split, methods)
    if any(isinstance(method, IntegratedGradients) for method in methods.values()):
        for evaluation in evaluations.values():
            if isinstance(evaluation, Faithfulness):
                reference_split(session, evaluation)
    for name, method in methods.items():
        if isinstance(method, IntegratedGradients):
            _require_target(session, name, method)
    beyond_head = [method for method in methods.values() if reads_of(method) in ("layers", "rows")]
    if beyond_head:
        lm = configured_architecture(session.data, model, tokenizer)
        for method in beyond_head:
            linear_layers(lm, lm.score if hasattr(lm, "score") else lm.get_output_embeddings(), method.params)
    before_activation = [
        method
        for method in methods.values()
        if isinstance(method, IntegratedGradients) and PRESETS[method.preset].site == "pre_activation"
    ]
    if before_activation:
        footprint = footprint_of(configured_architecture(session.data, model, tokenizer).base_model)
        for method in before_activation:
            method.path(footprint)


def _require_target(session: Session, name: str, method: IntegratedGradients) -> None:
    """A folded label is no class of the model, so that there is no probability of it to attribute."""
    if method.target == "gold" and session.split in session.data.folds:
        names = session.data.folds[session.split].names
        raise UserError(
            f"method.{name}.target=gold attributes the probability of the label, but the {session.split} split has the "
            f"labels {', '.join(names)}, which join several of the model's classes; expected classes of the model: set "
            f"method.{name}.target=predicted."
        )


def refuse_what_cannot_run(
    methods: Mapping[str, Any], evaluations: Mapping[str, Any], trainer: Mapping[str, Any], fit: bool
) -> None:
    """Refuse, before anything is read or trained, what would fail later.

    Raises:
        UserError: lists too short, sources that a method cannot have, epochs of a fit that is none, a precision that
            the device does not have, or other processes than torchrun or SLURM has started.
    """
    require_long_lists(methods, evaluations)
    require_sources(methods)
    if not fit and keeps_epochs(methods):
        name = next(name for name, method in methods.items() if keeps_epochs({name: method}))
        raise UserError(
            f"method={name} reads the weights at the end of every epoch, but fit=false trains none; expected a fit: "
            f"set fit=true or leave {name} out."
        )
    refuse_other_processes(n_processes({**trainer, "num_nodes": 1}), int(trainer.get("num_nodes", 1)))
    require_precision(trainer)


def require_long_lists(methods: Mapping[str, Any], evaluations: Mapping[str, Any]) -> None:
    """Refuse, before anything is trained, lists that would be empty, and neuron lists too short for an evaluation.

    Raises:
        UserError: naming the method and what it lacks.
    """
    for name, method in methods.items():
        if method.top_k < 1:
            raise UserError(f"method.{name}.top_k={method.top_k}, expected at least 1: raise it.")
        if not getattr(method, "seeds", [None]):
            raise UserError(f"method.{name}.seeds=[] draws nothing, expected at least one seed: write [0].")
    for evaluation in evaluations.values():
        for name, method in methods.items():
            if hasattr(evaluation, "require_length") and names_neurons(method):
                evaluation.require_length(name, method.top_k)


def require_precision(trainer: Mapping[str, Any]) -> None:
    """Refuse 16-bit mixed precision on a CPU, where Lightning would silently use another type.

    Raises:
        UserError: naming what to use.
    """
    on_cpu = trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    if str(trainer.get("precision")) in ("16", "16-mixed") and on_cpu:
        raise UserError(
            f"trainer.precision={trainer['precision']} needs a GPU, and this run is on a CPU; expected 32-true or "
            "bf16-mixed there: set trainer.precision=bf16-mixed."
        )
