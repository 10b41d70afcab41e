"""twinlens: compose → seed → fit → attribute → evaluate → report."""

from __future__ import annotations

import sys

from twinlens.callbacks.processes import loading, stopping

loading.begin(__name__)  # what follows takes seconds
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from twinlens.callbacks.fit.stage import n_processes
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.plan.planner import print_plan
from twinlens.callbacks.processes.watchdog import watch_started
from twinlens.callbacks.run.control_seeds import with_seeds_of_run
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.run.opening import model_node, open_inputs, open_questions, open_trainers, read_former_names
from twinlens.callbacks.run.parts import Parts
from twinlens.callbacks.run.pipeline import run_stages
from twinlens.callbacks.run.quiet_libraries import scrubbed_output
from twinlens.callbacks.run.refusals import refuse_what_cannot_run, refuse_what_the_inputs_rule_out
from twinlens.callbacks.run.run_outcome import OUTCOMES, outcome_of
from twinlens.callbacks.store.failures import user_error_in
from twinlens.callbacks.store.store import Store
from twinlens.callbacks.sweep.command_line import exit_code_of
from twinlens.callbacks.sweep.commands import command_instead
from twinlens.callbacks.sweep.job_process import run_as_process
from twinlens.conf.checking.allowed_classes import refusal_of_a_library
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.config_sources import check_what_is_read, compose, parse_typed
from twinlens.conf.checking.plain_values import plain
from twinlens.conf.checking.written_config import literal, redact_overrides, replayable

CONFIG_DIR = Path(__file__).parent / "conf"


def build(node: Any, **given: Any) -> Any:
    """The object that a `_target_` node describes; a user error inside its constructor comes out as it is."""
    values = node if isinstance(node, DictConfig) else literal(node)  # plain values are not resolved a second time
    try:
        return instantiate(values, _convert_="all", **given)  # libraries refuse what is no plain dictionary
    except InstantiationException as error:
        told = user_error_in(error) or refusal_of_a_library(values["_target_"], error) or error
    raise told  # not inside the handler: there the error it caused would become its context, a cycle


def train(config: DictConfig, folder: Path, overrides: list[str]) -> dict[str, float]:
    """Run all stages and write the run's files; returns the metrics.

    Raises:
        UserError: anything the user can mend; before anything is written where it can be known then.
    """
    drawn = with_seeds_of_run(config := read_former_names(config))
    seed_everything(config.seed, workers=True, verbose=False)
    methods, evaluations = open_questions(drawn, build)
    refuse_what_cannot_run(methods, evaluations, config.trainer, config.fit, config.get("checkpoints"), config.model)
    watch_started(Path(config.paths.store))
    data, tokenizer, explain = open_inputs(config, build)
    trainers = open_trainers(config, build, folder)
    store, budget = Store(Path(config.paths.store), config.overwrite), parse_bytes(config.memory_budget)
    common = config.attribute_split, budget, config.seed, config.choices, config.model._target_, explain
    session = Session(folder, store, trainers, data, *common)
    parts = Parts(
        plain(drawn),
        partial(build, model_node(config.model, data.readout), tokenizer=tokenizer, **session.model_arguments),
        lambda: [build(node) for node in config.callbacks.values()],
        methods,
        evaluations,
        [] if config.plan else [build(node, save_dir=str(folder)) for node in config.logger.values()],
    )
    refuse_what_the_inputs_rule_out(session, methods, evaluations, parts.settings, tokenizer)
    if config.plan:
        return print_plan(session, parts, tokenizer)
    run = RunFolder(folder)
    run.start(replayable(config), redact_overrides(overrides), data.report, data.notes.lines)
    run_stages(session, run, parts)
    print(folder)
    return run.metrics


def job(config: DictConfig) -> dict[str, Any]:
    """One run inside Hydra; a failure is returned, not raised, so that a sweep goes on to its next job."""
    hydra_config: Any = HydraConfig.get()
    folder, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN and n_processes(config.trainer) > 1:
        OUTCOMES.append(run_as_process(Path(__file__), hydra_config, overrides, folder))
    else:
        OUTCOMES.append(outcome_of(lambda: command_instead(config) or train(config, folder, overrides), folder))
    return OUTCOMES[-1]


def run_command_line() -> None:
    """Check every job of the command line, then let Hydra run them."""
    check_what_is_read(CONFIG_DIR)
    command = check_command_line(sys.argv[1:], CONFIG_DIR, compose, parse_typed)
    sys.argv[1:] = command.arguments  # those typed, but for places that a file from elsewhere does not decide
    with scrubbed_output(command.prints):
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(job)()


def main() -> int:
    """0 for success, 2 for what the user can mend, 130 interrupted (Ctrl-C), 143 terminated, 1 for a defect."""
    return stopping.run_stoppably(lambda: exit_code_of(run_command_line))


if __name__ == "__main__":
    sys.exit(main())
