"""The scalar keys that stand at the top level of a run's configuration, and their types."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from omegaconf import DictConfig

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.annotations import UNKNOWN, record_fields
from twinlens.conf.checking.byte_sizes import parse_bytes
from twinlens.conf.checking.plain_values import plain
from twinlens.conf.checking.suggestions import advice
from twinlens.conf.checking.targets import check_value

GROUPS = (
    "model",
    "data",
    "method",
    "evaluation",
    "trainer",
    "logger",
    "callbacks",
    "paths",
)
"""Config groups that fill a key of their own name. `experiment` and `debug` only change other keys."""

SINGLE = ("model", "data", "trainer", "paths")
"""Groups that take exactly one option."""

SEVERAL = ("method", "evaluation")
"""Groups that take one or several options; each option fills `<group>.<name>`."""

OF_MANY = (*SEVERAL, "logger", "callbacks")
"""Groups whose entries stand side by side, each with settings of its own under its name."""

PROVIDED = {"model": ("label_names", "tokenizer"), "logger.*": ("save_dir",)}
"""Required arguments that train.py adds when it builds an object, and that therefore need not stand in a file."""


@dataclasses.dataclass
class StoreCommand:
    """What to do with the store instead of a run; typed on the command line only.

    Attributes:
        prune: what to remove: `7d`, `12h` (not used since), `all`, `partial`, the beginning of a fingerprint, or a
            list of these.
        list: print every entry.
    """

    prune: str | Sequence[str] | None = None
    list: bool = False


@dataclasses.dataclass
class ReportCommand:
    """What to do with the reports of finished runs instead of a run; typed on the command line only.

    Attributes:
        of: folder of the run, or of a sweep.
        compare: folders of runs that are put side by side.
        beside: files in the columns of results.csv whose rows stand beside the run's from now on; `[]`: none any more;
            null: as it is.
    """

    of: str | None = None
    compare: Sequence[str] | None = None
    beside: str | Sequence[str] | None = None


@dataclasses.dataclass
class ResultsCommand:
    """What to do with a file of results instead of a run; typed on the command line only.

    Attributes:
        check: a file in the columns of results.csv.
    """

    check: str | None = None


COMMANDS = ("store", "report", "results")
"""Keys of what is done instead of a run."""


@dataclasses.dataclass
class RunConfig:
    """Top-level scalars of conf/train.yaml.

    Attributes:
        seed: seeds Python, NumPy and torch before anything is built.
        fit: train the readout; false uses the model as it is.
        overwrite: redo stages that the store already holds.
        plan: print what every pass would take, and end.
        plan_for: machine that a plan is made for, by its data sheet; null: this one.
        memory_budget: bound on chunks and solver choice, for example `4GiB`; see `parse_bytes`.
        choices: whose neurons are edited in multiple choice: those of the `predicted` choice's sequence with the other
            choices fixed, or the same neuron in the sequences of `all` choices at once; `predicted_edit_all`: scores of
            the first kind, tests of the second.
        explain: what methods of both lenses explain of each example: `predicted`, `gold`, for next-token data
            `answer`, or the name of a class or token; or one of these for each lens.
        explain_against: what the target is set apart from: `runner_up`, `predicted`, `gold`, or a class or token.
        attribute_split: the split whose predictions are explained.
        checkpoints: folders of weights along the training that led to a model which is used as it is (fit=false), for
            methods that read them; null: none.
        checkpoint_rates: the learning rate that led to each of them; null: their trainer_state.json says.
        neuron_texts: texts of the train split that are kept of each listed neuron, those that activate it most; 0:
            none; null: what the data say, 50 for `data=texts` and none otherwise.
        allow_targets: packages outside the allowed ones whose classes a `_target_` may name. Obeyed only where it is
            typed on the command line, so that a configuration from a stranger cannot grant itself anything.
        store: list or clear the store instead of running.
        report: make a finished run's report anew, or compare runs, instead of running.
        results: check a file of results instead of running.
        push: `hub:NAME`, where the run's cards, explorer and weights go at its end; obeyed on the command line alone.
        push_of: a finished run's folder that is pushed instead of running.
        yes: let `store.prune` remove what it shows; typed on the command line only.
        name: name of the run in loggers and tables; null lets the loggers choose.
        tags: free labels for loggers.
        optimise: name of the number that a run returns to a sweeper which optimises it; null: none.
    """

    seed: int = 0
    fit: bool = True
    overwrite: bool = False
    plan: bool = False
    plan_for: str | None = None
    memory_budget: str | int = "4GiB"
    choices: Literal["predicted", "all", "predicted_edit_all"] = "predicted"
    explain: str | int | Mapping[str, str | int] = "predicted"
    explain_against: str | int | None = None
    attribute_split: str = "test"
    checkpoints: list[str] | None = None
    checkpoint_rates: list[float] | None = None
    neuron_texts: int | None = None
    allow_targets: list[str] | str = dataclasses.field(default_factory=list)
    store: StoreCommand = dataclasses.field(default_factory=StoreCommand)
    report: ReportCommand = dataclasses.field(default_factory=ReportCommand)
    results: ResultsCommand = dataclasses.field(default_factory=ResultsCommand)
    push: str | None = None
    push_of: str | None = None
    yes: bool = False
    name: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    optimise: str | None = None


def check_top_level(config: DictConfig | Mapping[str, Any], groups: Collection[str] = GROUPS) -> None:
    """Check the names of all top-level keys and the types of the scalars.

    Raises:
        UserError: for an unknown key, with the nearest valid name, and for a value of the wrong type.
    """
    values = plain(config)
    fields = record_fields(RunConfig)
    known = {*fields, *groups}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"unknown key {key!r} at the top level of the configuration{advice(key, known)}")
        if key == "store" and not isinstance(value, Mapping):
            raise UserError(
                f"store={value!r}: expected what to do with the store; say store.list=true or store.prune=all, or "
                f"paths.store=DIR for where it lies."
            )
        if key == "report" and not isinstance(value, Mapping):
            raise UserError(
                f"report={value!r}: expected whose report to make; say report.of=RUN with the folder of a "
                "finished run, or report.compare=[RUN1,RUN2] with those of two."
            )
        if key == "results" and not isinstance(value, Mapping):
            raise UserError(
                f"results={value!r}: expected which file of results to check; say results.check=FILE with a CSV file "
                "in the columns of results.csv."
            )
        if key in fields:
            check_value(value, fields[key][0], key)
        elif value is not None and not isinstance(value, Mapping):
            raise UserError(
                f"{key}={value!r}: expected the settings of a {key}, got a single value; give the name of an option, "
                f"as in `python train.py {key}=NAME`, or single settings as {key}.KEY=VALUE."
            )
    budget = values.get("memory_budget", UNKNOWN)
    if budget is not UNKNOWN:
        parse_bytes(budget)
    if values.get("yes") is True and not (values.get("store") or {}).get("prune"):
        raise UserError(
            "yes=true lets store.prune remove what it shows, but nothing is to be removed here; expected both: say "
            "store.prune=7d yes=true, or leave yes=true out."
        )
    if values.get("plan_for") is not None and not values.get("plan"):
        raise UserError(
            f"plan_for={values['plan_for']} names the machine of a plan, but plan=false would run here; expected both: "
            "set plan=true, or leave plan_for out."
        )


def check_groups_are_there(config: Mapping[str, Any]) -> None:
    """Refuse a run's configuration that lacks a group; methods and evaluations may be none.

    Raises:
        UserError: naming the first that it lacks.
    """
    for group in GROUPS:
        if group not in SEVERAL and group not in config:
            raise UserError(
                f"the configuration has no {group}, which the run reads; expected all that conf/train.yaml chooses: "
                "let the defaults list of your file begin with `- train`, or leave out what takes it away."
            )


def check_entries(config: Mapping[str, Any]) -> None:
    """Refuse entries of groups that are no settings: they would be left out without a word, or be no object.

    Raises:
        UserError: naming the first entry.
    """
    for group in OF_MANY:
        for name, entry in (config.get(group) or {}).items():
            if isinstance(entry, Mapping) and ("_target_" in entry or group in SEVERAL):
                continue  # an experiment may set options of a method that the command line does not choose
            found = "settings without a class" if isinstance(entry, Mapping) else repr(entry)
            raise UserError(
                f"{group}.{name} is {found}; expected the settings of one {group.removesuffix('s')}, with the class in "
                f"_target_: set single settings as {group}.{name}.KEY=VALUE, or leave it out with ~{group}.{name}."
            )
