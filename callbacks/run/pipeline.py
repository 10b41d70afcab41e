"""The stages of a run in their order, timed; everything they need is built before the first one starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.protocols import UserError
from twinlens.callbacks.attribute.method_graph import (
    in_order,
    kind_of,
    names_neurons,
    reads_of,
    require_sources,
    train_lists_of,
)
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.evaluate.retraining import Recipe
from twinlens.callbacks.evaluate.stage import evaluate_stage, evaluations_in_order
from twinlens.callbacks.fit.stage import MakeModel, fit_stage, load_stage, n_processes, trains
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.batch_size import batch_size_stage
from twinlens.callbacks.predict.known_prompts import filters, known_stage
from twinlens.callbacks.predict.stage import epochs_stage, examples_stage
from twinlens.callbacks.processes.launch import refuse_other_processes
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import printed_results
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.run.wandb_logger import log_run
from twinlens.callbacks.store.files import is_first_process


@dataclass(frozen=True)
class Parts:
    """What the configuration describes, built or ready to be built.

    Attributes:
        settings: the whole configuration as plain values.
        make_model: builds the classifier or language model; keyword `path` replaces the checkpoint.
        make_callbacks: builds the callbacks of the fit.
        methods, evaluations: by name.
        loggers: of the fit and the final results.
    """

    settings: Mapping[str, Any]
    make_model: MakeModel
    make_callbacks: Callable[[], list[Callback]]
    methods: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    loggers: Sequence[Logger]


def splits_needed(splits: Mapping[str, Any], explained: str, methods: Mapping[str, Any]) -> list[str]:
    """Splits to predict: the explained one, validation for its accuracy, train for instance methods and bridges.

    Raises:
        UserError: a split that the data do not have.
    """
    need_train = [name for name, method in methods.items() if kind_of(method) == "instance" or train_lists_of(method)]
    for split, reason in ((explained, f"attribute_split={explained}"), ("train", f"method={need_train}")):
        if split not in splits and (split != "train" or need_train):
            raise UserError(
                f"{reason} needs a {split} split, but the data have only {', '.join(splits)}; expected that split: "
                "add it to data.path or choose otherwise."
            )
    wanted = ["train"] if need_train else []
    wanted += [explained, *(["validation"] if "validation" in splits else [])]
    return list(dict.fromkeys(wanted))


def keeps_epochs(methods: Mapping[str, Any]) -> bool:
    """Whether a method reads the weights of every epoch of the fit."""
    return any(kind_of(method) == "instance" and reads_of(method) == "checkpoints" for method in methods.values())


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


def run_stages(session: Session, run: RunFolder, parts: Parts) -> None:
    """Fit → predict → attribute → evaluate → report; prints the results table and the report's path."""

    def timed(stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        result = work(session, *arguments)
        run.metrics[f"time/{stage}"] = run.metrics.get(f"time/{stage}", 0.0) + time.monotonic() - start
        return result

    settings = parts.settings
    fits = trains(session, settings["fit"])
    if fits:
        timed("fit", fit_stage, parts.make_model, settings["model"], settings["trainer"],
              settings["callbacks"], parts.make_callbacks, parts.loggers, keeps_epochs(parts.methods))  # fmt: skip
    else:
        timed("fit", load_stage, parts.make_model, settings["model"])
    splits = splits_needed(session.data.splits, session.split, parts.methods)
    timed("predict", batch_size_stage, splits)
    for split in splits:
        predicted = timed("predict", examples_stage, split)
        if split == session.split and filters(session):
            run.metrics.update(timed("predict", known_stage, split, predicted))
    for split in dict.fromkeys(("train", session.split)) if session.epochs else ():
        timed("predict", epochs_stage, parts.make_model, split)
    for name in in_order(parts.methods):
        timed("attribute", attribute_stage, name, parts.methods, settings["method"])
    common = {"model": settings["model"]["name"], "data": session.data.name, "seed": session.seed}
    recipe = Recipe(
        parts.make_model, settings["model"], settings["trainer"], settings["callbacks"], parts.make_callbacks
    )
    finished: dict[str, list[Result]] = {}
    for name, evaluation in evaluations_in_order(parts.evaluations).items():
        finished[name] = timed(
            "evaluate", evaluate_stage, name, evaluation, settings["evaluation"][name], parts.methods,
            recipe if fits else None, finished,
        )  # fmt: skip
        run.add_results(name, finished[name], common)
    if not is_first_process():
        return
    run.write()
    files = RunFiles(session.folder)
    told = [name for name, evaluation in parts.evaluations.items() if hasattr(evaluation, "text")]
    print(printed_results(files, run.directions, told), flush=True)
    print(f"report: {write_report(session.folder, run.directions)}", flush=True)
    shown = {name: value for name, value in run.metrics.items() if not name.startswith("data_index/")}
    log_run(parts.loggers, shown, run.rows, session.folder)
