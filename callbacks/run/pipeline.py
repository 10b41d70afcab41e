"""The stages of a run in their order, timed; everything they need is built before the first one starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.attribute.anatomy import anatomy_stage
from twinlens.callbacks.attribute.explained_outputs import explained_otherwise, told_targets
from twinlens.callbacks.attribute.method_graph import in_order
from twinlens.callbacks.attribute.neuron_texts import neuron_texts_stage
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.evaluate.damping import settled_dampings
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.stage import Asked, evaluate_stage, evaluations_in_order, shared_pass_stage
from twinlens.callbacks.fit.other_checkpoints import take_checkpoints
from twinlens.callbacks.fit.stage import fit_stage, load_stage, trains
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.batch_size import batch_size_stage
from twinlens.callbacks.predict.generate import generate_stage, generates
from twinlens.callbacks.predict.known_prompts import filters, known_stage
from twinlens.callbacks.predict.stage import epochs_stage, examples_stage
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import printed_results
from twinlens.callbacks.run.control_seeds import as_written
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.run.method_settings import method_settings
from twinlens.callbacks.run.parts import Parts, keeps_epochs, splits_needed
from twinlens.callbacks.run.run_outcome import code_of
from twinlens.callbacks.run.told_warnings import ToldWarnings, directions_of
from twinlens.callbacks.share.cards import write_cards
from twinlens.callbacks.share.upload import push_run
from twinlens.callbacks.store.failures import writing
from twinlens.callbacks.store.running import running
from twinlens.callbacks.tracking.gather import findings_of_run
from twinlens.callbacks.tracking.names import numbers_of
from twinlens.callbacks.tracking.optimised import keep_optimised, require_optimised
from twinlens.callbacks.tracking.trackers import Send, tracked


def run_stages(session: Session, run: RunFolder, parts: Parts) -> None:
    """Fit → predict → attribute → evaluate → report, told to the run's loggers; prints results and the report's path.

    Raises:
        UserError: anything the user can mend; also where the number to optimise is none of the results, which are
            written all the same.
    """
    with (
        running(session.store.root),
        tracked(parts.loggers, lambda: RunFiles(session.folder).config, code_of) as send,
        writing(session.folder, "hydra.run.dir"),
    ):
        _run_stages(session, run, parts, send)


def _run_stages(session: Session, run: RunFolder, parts: Parts, send: Send) -> None:
    def timed(stage: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.monotonic()
        result = work(*arguments)
        run.metrics[f"time/{stage}"] = run.metrics.get(f"time/{stage}", 0.0) + time.monotonic() - start
        return result

    settings, warnings = parts.settings, ToldWarnings(session.folder)
    fits = trains(session, settings["fit"])
    if fits:
        timed("fit", fit_stage, session, parts.make_model, settings["model"], settings["trainer"],
              settings["callbacks"], parts.make_callbacks, parts.loggers, keeps_epochs(parts.methods))  # fmt: skip
    else:
        timed("fit", load_stage, session, parts.make_model, settings["model"])
        take_checkpoints(session, settings)
    timed("attribute", anatomy_stage, session, parts.methods)
    if generates(session, session.split):
        timed("predict", generate_stage, session, session.split)
    splits = splits_needed(session.data.splits, session.split, parts.methods)
    timed("predict", batch_size_stage, session, splits)
    for split in splits:
        predicted = timed("predict", examples_stage, session, split)
        if split == session.split and filters(session):
            run.metrics.update(timed("predict", known_stage, session, split, predicted))
    for split in dict.fromkeys(("train", session.split)) if session.epochs else ():
        timed("predict", epochs_stage, session, parts.make_model, split)
    for line in told_targets(session, parts.methods):
        print(line, flush=True)
    warnings.tell(session, "predict", run.metrics, {})
    recipe = Recipe(
        parts.make_model, settings["model"], settings["trainer"], settings["callbacks"], parts.make_callbacks
    )
    methods, method_nodes = timed(
        "attribute", settled_dampings, session, parts.methods, settings.get("method") or {}, recipe if fits else None
    )
    for name in in_order(methods):
        timed("attribute", attribute_stage, session, name, methods, method_nodes)
    timed("attribute", neuron_texts_stage, session, methods, settings.get("neuron_texts"))
    warnings.tell(session, "attribute", run.metrics, {})
    common = {"model": settings["model"]["name"], "data": session.data.name, "seed": session.seed}
    jobs = timed("evaluate", shared_pass_stage, session, parts.evaluations, settings.get("evaluation") or {}, methods)
    finished: dict[str, list[Result]] = {}
    controls = [name for name, method in parts.methods.items() if method.is_control]
    written = {name: as_written(node, session.seed) for name, node in (settings.get("method") or {}).items()}
    of_methods = method_settings(parts.methods, written)
    for name, evaluation in evaluations_in_order(parts.evaluations).items():
        asked = Asked(
            session, name, evaluation, settings["evaluation"][name], methods, recipe if fits else None, finished,
            method_nodes, jobs,
        )  # fmt: skip
        finished[name] = timed("evaluate", evaluate_stage, asked)
        otherwise = explained_otherwise(session, parts.methods)
        run.add_results(name, finished[name], common, controls, otherwise, of_methods)
    if not is_first_process():
        return
    optimise, numbers = settings.get("optimise"), numbers_of(run.rows, run.facts)
    keep_optimised(optimise, numbers, run.metrics)
    run.write()
    files = RunFiles(session.folder)
    told = [name for name, evaluation in parts.evaluations.items() if hasattr(evaluation, "text")]
    print(printed_results(files, run.directions, told), flush=True)
    warnings.tell(session, "evaluate", run.metrics, directions_of(finished))
    print(f"report: {write_report(session.folder, run.directions)}", flush=True)
    write_cards(session.folder)
    send(lambda: findings_of_run(session.folder, run.rows, run.facts, session.weights, session.fitted))
    if settings.get("push"):
        push_run(session.folder, settings["push"])
    require_optimised(optimise, numbers)
