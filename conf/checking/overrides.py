"""Overrides of the command line: their protocol, sweeps, repeated names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.top_level import SEVERAL, SINGLE

MAX_JOBS = 10_000
"""A sweep of more is a slip: its jobs alone would fill the memory before the first one starts."""

MAX_JOBS_CHECKED = 64
"""Sweeps of up to so many jobs are checked job by job; composing one takes about 50 ms."""


SWEEPER = "hydra/sweeper"
"""Group of Hydra whose choice says how the values of a sweep are drawn."""


class Override(Protocol):
    """What is read of one of Hydra's parsed overrides."""

    key_or_group: str
    package: str | None
    input_line: str | None
    value_type: Any

    def value(self) -> Any: ...
    def is_add(self) -> bool: ...
    def is_force_add(self) -> bool: ...
    def is_delete(self) -> bool: ...
    def is_hydra_override(self) -> bool: ...
    def is_sweep_override(self) -> bool: ...
    def is_discrete_sweep(self) -> bool: ...
    def get_key_element(self) -> str: ...
    def sweep_string_iterator(self) -> Iterator[str]: ...


LONGEST_SHOWN = 300
"""Characters of a value that a message repeats."""

_KEY = re.compile(r"(\+\+?|~)?[\w./:@$-]+")

ParseOverrides = Callable[[list[str]], Sequence[Override]]


def parse_overrides(arguments: Iterable[str], parse: ParseOverrides, tree: ConfigTree) -> list[Override]:
    """Parse each override by itself, so that a message can name it.

    Raises:
        UserError: for text that is no `key=value`.
    """
    return [_parse_one(argument, parse, tree) for argument in arguments]


def _parse_one(argument: str, parse: ParseOverrides, tree: ConfigTree) -> Override:
    if "=" not in argument and not argument.startswith("~"):
        owner = next((group for group in tree.groups() if argument in tree.options(group)), None)
        meant = f"{owner}={argument}" if owner else "model=tiny"
        raise UserError(f"{argument!r} is no setting: expected key=value, for example {meant}.")
    key, _, value = argument.partition("=")
    if not key:
        raise UserError(f"{argument!r} has no key: expected key=value, for example model=tiny.")
    if not _KEY.fullmatch(key):
        raise UserError(f"{argument!r}: {key!r} is no key; expected names joined by dots, as in trainer.max_epochs=1.")
    try:
        (parsed,) = parse([argument])
    except Exception as error:  # Hydra's parse errors, and the grammar's own
        value = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
        shown = f"{key}={value}"
        raise UserError(
            f"{shown!r} cannot be read: expected key=value, with closed brackets and with quotes around text that "
            f"holds brackets, commas, colons or equal signs; for such text write \"{key}='{value}'\"."
        ) from error
    return parsed


def check_no_repeats(overrides: Iterable[Override], tree: ConfigTree) -> None:
    """Refuse a method or evaluation that is named twice, also under two file names.

    Raises:
        UserError: naming the repeated name and where it stands.
    """
    for override in overrides:
        if override.is_sweep_override():
            continue
        value = override.value()
        if isinstance(value, list) and tree.is_group(override.key_or_group):
            check_choices(override.key_or_group, [str(item) for item in value], str(override.input_line), tree)


def check_choices(group: str, options: Sequence[str], where: str, tree: ConfigTree) -> None:
    """Refuse a list of a group's options in which two fill the same key."""
    if len(options) > 1 and group in SINGLE:
        raise UserError(
            f"{where}: {group} takes one option, got {len(options)} ({', '.join(options)}); use "
            f"-m {group}={','.join(options)} to run one job for each."
        )
    owners: dict[str, str] = {}
    for option in options:
        package = tree.package(group, option) or f"{group}.{option}"
        # Files that fill a whole group or the top level are meant to be merged; a name of their own is not.
        key = f"{group}.{option}" if package in (group, "_global_") else package
        if key in owners:
            files = "" if owners[key] == option else f" (by {group}/{owners[key]} and {group}/{option})"
            raise UserError(
                f"{where}: {group} name {key.removeprefix(f'{group}.')!r} is given twice{files}; each name is one "
                "configured instance with a directory of its own: drop one, or copy its YAML file to a new name with "
                f"the line `# @package {group}.NEW_NAME`."
            )
        owners[key] = option


def jobs_of(overrides: Sequence[Override], multirun: bool, tree: ConfigTree) -> list[list[str]]:
    """The override lists to check: every job, or for large sweeps each value beside the first values of the others.

    Of an interval, which only Optuna's sweeper draws from, both ends are checked.

    Raises:
        UserError: for several values without `-m`, an empty sweep, a sweep over Hydra's own settings.
    """
    choices: list[list[str]] = []
    draws = any(override.key_or_group == SWEEPER and override.value() == "optuna" for override in overrides)
    for override in overrides:
        if not override.is_sweep_override():
            choices.append([str(override.input_line)])
            continue
        if not multirun:
            raise _needs_multirun(override, tree)
        if override.is_hydra_override():
            raise UserError(f"{override.input_line}: Hydra's own settings cannot be swept; give one value.")
        choices.append([f"{override.get_key_element()}={value}" for value in _swept_values(override, tree, draws)])
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_JOBS:
        raise UserError(f"the sweep has {count} jobs or more; expected at most {MAX_JOBS}: give fewer values.")
    if count <= MAX_JOBS_CHECKED:
        return [list(job) for job in itertools.product(*choices)]
    first = [options[0] for options in choices]
    return [first] + [
        [*first[:i], option, *first[i + 1 :]] for i, options in enumerate(choices) for option in options[1:]
    ]


def _swept_values(override: Override, tree: ConfigTree, draws: bool) -> list[str]:
    group = override.key_or_group
    pattern = override.value()
    if hasattr(pattern, "filter"):  # glob(...) asks for the names of a group's options
        values = list(pattern.filter([option for option in tree.options(group) if "/" not in option]))
        if not values:
            raise UserError(
                f"{override.input_line}: nothing in {group} matches; available: {', '.join(tree.options(group))}."
            )
        return values
    if not override.is_discrete_sweep():
        if draws:
            return [str(end) for end in dict.fromkeys((pattern.start, pattern.end))]
        raise UserError(
            f"{override.input_line}: an interval has no list of values to run; write a range or single values, as in "
            f"{group}=0.1,0.2 or '{group}=range(1,5)', or let {SWEEPER}=optuna draw from it."
        )
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1))
    except Exception as error:
        raise UserError(f"{override.input_line}: cannot be expanded ({error}); give single values, as in 1,2,3.") from (
            error
        )
    if not values:
        raise UserError(f"{override.input_line}: the sweep has no value; give at least one.")
    return values


def _needs_multirun(override: Override, tree: ConfigTree) -> UserError:
    line = str(override.input_line)
    key, _, value = line.partition("=")
    at_once = ""
    if override.value_type.name != "SIMPLE_CHOICE_SWEEP":
        pass  # choice(…), range(…) and glob(…) mean nothing but a sweep
    elif key in SEVERAL:
        at_once = f", or {key}=[{value}] to take all in one run"
    elif not tree.is_group(key):
        at_once = f", {key}=[{value}] for a list, or \"{key}='{value}'\" for one text"
    return UserError(f"{line} gives several values in a single run; use -m to run one job for each{at_once}.")


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it back unchanged, whatever it holds."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"
