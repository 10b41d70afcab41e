"""twinlens: compose → seed → fit → attribute → evaluate → report."""

from __future__ import annotations

import sys
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

from callbacks.causes import user_error_in
from callbacks.fit import n_processes
from callbacks.inputs import model_node, open_inputs
from callbacks.outcome import OUTCOMES, exit_code, outcome_of
from callbacks.passes import TrainerFactory
from callbacks.pipeline import Parts, refuse_what_cannot_run, run_stages
from callbacks.plan import print_plan
from callbacks.quiet import quiet_libraries, scrubbed_output
from callbacks.refusals import refuse_what_the_inputs_rule_out
from callbacks.run_folder import RunFolder
from callbacks.session import Session
from callbacks.store import Store
from callbacks.store_admin import store_command
from callbacks.subjob import run_as_process
from callbacks.sweep_outcomes import outcomes_elsewhere, telling_of_lost_jobs
from callbacks.watch import watch_started
from conf.checks import check_command_line
from conf.classes import refusal_of_a_library
from conf.dump import literal, redact_overrides, replayable
from conf.plain import chosen, plain
from conf.sources import check_what_is_read, compose, parse_typed
from conf.units import parse_bytes

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
    seed_everything(config.seed, workers=True, verbose=False)
    methods = {name: build(node) for name, node in chosen(config, "method").items()}
    evaluations = {name: build(node) for name, node in chosen(config, "evaluation").items()}
    refuse_what_cannot_run(methods, evaluations, config.trainer, config.fit)
    watch_started(Path(config.paths.store))
    data, tokenizer = open_inputs(config, build)
    trainers = TrainerFactory(
        partial(build, config.trainer, default_root_dir=str(folder)), str(config.trainer.precision)
    )
    common = data, config.attribute_split, parse_bytes(config.memory_budget), config.seed
    session = Session(folder, Store(Path(config.paths.store), config.overwrite), trainers, *common, config.choices)
    parts = Parts(
        plain(config),
        partial(build, model_node(config.model, data.readout), tokenizer=tokenizer, **session.model_arguments),
        lambda: [build(node) for node in config.callbacks.values()],
        methods,
        evaluations,
        [] if config.plan else [build(node, save_dir=str(folder)) for node in config.logger.values()],
    )
    refuse_what_the_inputs_rule_out(session, methods, evaluations, parts.settings["model"], tokenizer)
    if config.plan:
        return print_plan(session, parts, tokenizer)
    run = RunFolder(folder)
    run.start(replayable(config), redact_overrides(overrides))
    run.add_data_report(data.report)
    run_stages(session, run, parts)
    print(folder)
    return run.metrics


def job(config: DictConfig) -> dict[str, Any]:
    """One run inside Hydra; a failure is returned, not raised, so that a sweep goes on to its next job."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides = list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN and n_processes(config.trainer) > 1:
        OUTCOMES.append(run_as_process(Path(__file__), hydra_config, overrides, folder))
    else:
        OUTCOMES.append(outcome_of(lambda: store_command(config) or train(config, folder, overrides), folder))
    return OUTCOMES[-1]


def run_command_line() -> None:
    """Check every job of the command line, then let Hydra run them."""
    check_what_is_read(CONFIG_DIR)
    command = check_command_line(sys.argv[1:], CONFIG_DIR, compose, parse_typed)
    sys.argv[1:] = command.arguments  # those typed, but for places that a file from elsewhere does not decide
    with scrubbed_output(command.prints):
        hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")(job)()


def main() -> int:
    """Run the command line; 0 for success, 2 for what the user can mend, 130 interrupted, 1 for a defect."""
    quiet_libraries()
    checked = outcome_of(telling_of_lost_jobs()(run_command_line))
    return exit_code([*OUTCOMES, *outcomes_elsewhere(), checked])


if __name__ == "__main__":
    sys.exit(main())
