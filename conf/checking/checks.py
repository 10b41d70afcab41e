"""Checks of a command line that come before Hydra starts the job or any weight is read.

`hydra.main` answers a bad override with its own text and exit code 1, and in a sweep one bad job loses the others.
So the configuration of every job is composed and checked first, and whatever fails becomes one sentence. Hydra itself
stays outside: train.py passes the two functions of it that are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.class_slots import SLOTS
from twinlens.conf.checking.command_line import CommandLine, parse_command_line
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.diagnosis import explain, user_error_behind
from twinlens.conf.checking.former_names import with_current_names
from twinlens.conf.checking.hydra_node import check_hydra_node
from twinlens.conf.checking.optimised import check_optimised
from twinlens.conf.checking.overrides import (
    Override,
    ParseOverrides,
    check_no_repeats,
    jobs_of,
    parse_overrides,
    quoted,
)
from twinlens.conf.checking.plain_values import join, plain, without_hydra
from twinlens.conf.checking.push_names import check_push
from twinlens.conf.checking.size_bounds import check_growth, in_time
from twinlens.conf.checking.target_settings import check_target_settings, with_target_of_run
from twinlens.conf.checking.targets import Provided, check_targets
from twinlens.conf.checking.top_level import COMMANDS, GROUPS, PROVIDED, check_entries, check_top_level
from twinlens.conf.checking.trusted_hydra_node import check_hydra_is_ours, check_names, is_about_places, places

SEARCH_PATH = "hydra.searchpath"

Compose = Callable[[Path, str, list[str]], DictConfig]
"""(folder of the primary configuration, its name, overrides) → composed configuration with Hydra's own node."""


def check_command_line(
    arguments: Sequence[str],
    config_dir: Path,
    compose: Compose,
    parse: ParseOverrides,
    primary: str = "train",
    provided: Provided = PROVIDED,
) -> CommandLine:
    """Check the configuration of every job that `arguments` asks for.

    Args:
        arguments: `sys.argv[1:]`.
        config_dir: the project's configuration folder.
        compose: Hydra's compose API, see `Compose`.
        parse: Hydra's override parser.
        primary: configuration to start from unless `--config-name` says otherwise.
        provided: arguments of `_target_` classes that the code adds, see `check_targets`.

    Returns:
        The parsed command line.

    Raises:
        UserError: one sentence about the first thing that is wrong.
    """
    command = parse_command_line(arguments, config_dir, primary)
    if command.informational:
        return command
    overrides = parse_overrides(command.overrides, parse, command.tree)
    command = replace(command, tree=_with_search_path(overrides, command.tree))
    overrides = [override for override in overrides if override.key_or_group != SEARCH_PATH]
    home = command.home
    trusted = _trusted(command, overrides, primary, compose, parse) if command.is_foreign else None
    multirun = command.multirun or any(str(o.input_line).lower() == "hydra.mode=multirun" for o in overrides)
    allow = allowed_by_user(overrides)
    swept = _swept_by_file(overrides, multirun, command, compose, parse)
    multirun = multirun or swept is not None
    typed = {override.key_or_group for override in overrides}
    for job in jobs_of([*(swept or []), *overrides], multirun, command.tree):
        check_no_repeats(parse_overrides(job, parse, command.tree), command.tree)
        config = _compose(job, command, home, compose, parse)
        if trusted is not None:
            check_hydra_is_ours(config, trusted)
            command = _with_our_places(command, places(config, trusted, typed))
            if command.places:
                config = _compose([*job, *command.places], command, home, compose, parse)
        hydra = config.get("hydra")
        if hydra is not None:
            check_hydra_node(hydra, overrides, command.tree, allow)
        config, _ = with_current_names(config)  # the run says which
        config, _ = with_target_of_run(config)
        with in_time(f"{command.primary}.yaml"):
            check_config(config, command.tree, allow, provided, typed if command.is_foreign else None)
        check_remote_code(config, typed)
        check_commands(config, typed)
        check_push(plain(without_hydra(config)), typed, multirun)
    return command


def check_config(
    config: DictConfig,
    tree: ConfigTree | None = None,
    allow: Sequence[str] = (),
    provided: Provided = PROVIDED,
    typed: Collection[str] | None = None,
) -> None:
    """Check a composed configuration: top-level keys and types, then every `_target_` node; Hydra's node is ignored.

    Args:
        config: the composed configuration.
        tree: folders of configuration files.
        allow: what the user allows to be named.
        provided: arguments that the code adds.
        typed: keys of the command line, where a file from elsewhere has a part in the configuration.

    Raises:
        UserError: one sentence about the first thing that is wrong.
    """
    check_growth(config)
    groups = {*GROUPS, *(tree.groups() if tree else ())} - {"hydra", "experiment", "debug"}
    values = plain(without_hydra(config))
    check_top_level(values, groups)
    check_target_settings(values)
    check_names(values)
    check_targets(values, allow, provided, SLOTS, typed)
    check_entries(values)
    check_optimised(values, tree)


def allowed_by_user(overrides: Sequence[Override]) -> list[str]:
    """Packages that `allow_targets=…` names on the command line, and only there."""
    allowed: list[str] = []
    for override in overrides:
        if override.key_or_group == "allow_targets" and not override.is_sweep_override():
            value = override.value()
            allowed.extend(map(str, value) if isinstance(value, list) else [str(value)])
    return allowed


def check_remote_code(config: DictConfig, typed: Collection[str]) -> None:
    """Refuse `trust_remote_code: true` that stands in a file, whoever wrote it.

    Args:
        config: the composed configuration.
        typed: keys set on the command line.

    Raises:
        UserError: naming the key that has to be typed.
    """
    for path in _true_keys(plain(without_hydra(config)), "trust_remote_code"):
        if path not in typed:
            raise UserError(
                f"{path}: a configuration file asks to run code that comes with a checkpoint; expected false in files: "
                f"if you trust the checkpoint, say {path}=true on the command line."
            )


def check_commands(config: DictConfig, typed: Collection[str]) -> None:
    """Refuse to list or clear the store, or to make a report anew, because a file says so, whoever wrote it.

    Args:
        config: the composed configuration.
        typed: keys set on the command line.

    Raises:
        UserError: naming the key that has to be typed.
    """
    values = plain(without_hydra(config))
    if values.get("yes") and "yes" not in typed:
        raise UserError(
            "yes=true: a configuration file asks for this; expected false in files: to remove what store.prune shows, "
            "say yes=true on the command line."
        )
    for group in COMMANDS:
        for key, value in (values.get(group) or {}).items():
            if value not in (False, None) and not {group, f"{group}.{key}"} & set(typed):
                idle = "false" if key == "list" else "null"
                raise UserError(
                    f"{group}.{key}={value}: a configuration file asks for this; expected {idle} in files: to do so, "
                    f"say {group}.{key}={value} on the command line."
                )


def _compose(job: list[str], command: CommandLine, home: Path, compose: Compose, parse: ParseOverrides) -> DictConfig:
    def attempt(overrides: list[str]) -> DictConfig:
        return compose(home, command.primary, [*_search_path(command, home), *overrides])

    with in_time(f"{command.primary}.yaml"):
        try:
            return attempt(job)
        except Exception as error:  # whatever Hydra, OmegaConf and YAML raise becomes a sentence
            told = user_error_behind(error)
            raise told or explain(error, parse_overrides(job, parse, command.tree), attempt, command) from error


def _trusted(
    command: CommandLine, overrides: Sequence[Override], primary: str, compose: Compose, parse: ParseOverrides
) -> DictConfig:
    """The project's own configuration with what the command line says of Hydra and of places, files of others apart."""
    ours = replace(command, tree=ConfigTree((command.project,)), primary=primary)
    lines = [str(override.input_line) for override in overrides if is_about_places(override)]
    return _compose(lines, ours, command.project, compose, parse)


def _with_our_places(command: CommandLine, named: Mapping[str, tuple[Any, Any]]) -> CommandLine:
    """The command line with overrides that take the place of what files from elsewhere say of outputs and store.

    Says so in a line for each.
    """
    kept = tuple(f"++paths.{key}={quoted(str(ours))}" for key, (_, ours) in named.items())
    for key, (theirs, ours) in named.items():
        if f"++paths.{key}={quoted(str(ours))}" not in command.places:  # said once for all jobs
            print(
                f"paths.{key}={theirs!s:.200} of {command.primary}.yaml is not used, as that file is not the project's "
                f"own: it is {ours}; to change it, say paths.{key}=DIR on the command line",
                flush=True,
            )
    return replace(command, places=kept)


def _with_search_path(overrides: Sequence[Override], tree: ConfigTree) -> ConfigTree:
    """The folders with those that `hydra.searchpath=[…]` names.

    Raises:
        UserError: for anything but folders.
    """
    folders = list(tree.folders)
    for override in overrides:
        if override.key_or_group == SEARCH_PATH:
            named = override.value()
            for entry in named if isinstance(named, list) else [named]:
                folder = Path(str(entry).removeprefix("file://"))
                if "://" in str(folder) or not folder.is_dir():
                    raise UserError(
                        f"{override.input_line}: {entry} is no folder; expected folders of YAML configurations, as in "
                        "hydra.searchpath=[file://DIR]."
                    )
                folders.append(folder.resolve())
    return ConfigTree(tuple(dict.fromkeys(folders)))


def _swept_by_file(
    overrides: Sequence[Override], multirun: bool, command: CommandLine, compose: Compose, parse: ParseOverrides
) -> list[Override] | None:
    """The sweep that a chosen file asks for (`hydra.mode: MULTIRUN`, `hydra.sweeper.params`), None for a single run.

    What is typed takes the place of a parameter of the same key, as in Hydra.
    """
    if any(str(override.input_line).lower() == "hydra.mode=run" for override in overrides):
        return None
    if not any(override.key_or_group == "experiment" for override in overrides) and not command.is_replay:
        return None  # only an experiment or a file of one's own has a say in Hydra's mode
    first = jobs_of(overrides, True, command.tree)[0]
    hydra: Any = OmegaConf.to_container(_compose(first, command, command.home, compose, parse).hydra, resolve=False)
    if not multirun and str(hydra.get("mode")).rpartition(".")[2] != "MULTIRUN":
        return None
    typed = {override.key_or_group for override in overrides}
    parameters = (hydra.get("sweeper") or {}).get("params") or {}
    return parse_overrides(
        [f"{key}={value}" for key, value in parameters.items() if key not in typed], parse, command.tree
    )


def _search_path(command: CommandLine, home: Path) -> list[str]:
    """The folders beside the primary configuration's own, as an override of Hydra's search path."""
    others = [quoted(f"file://{folder}") for folder in command.tree.folders if folder != home]
    return [f"{SEARCH_PATH}=[{','.join(others)}]"] if others else []


def _true_keys(value: Any, name: str, path: str = "") -> Iterator[str]:
    """Paths of all keys called `name` whose value is anything but false or null."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _true_keys(item, name, join(path, index))
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == name and item not in (False, None):
                yield join(path, key)
            yield from _true_keys(item, name, join(path, key))
