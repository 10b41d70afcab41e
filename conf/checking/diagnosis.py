"""Reason why a configuration cannot be composed: Hydra's exceptions turned into one sentence.

Hydra's texts name its own machinery and differ by version, so the culprit is found by trying: the overrides are
applied one after the other until composition fails, and the sentence is made from that override and the configuration
before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.command_line import CommandLine
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.overrides import Override
from twinlens.conf.checking.sentences import known_parent, no_such_choice, unknown_key
from twinlens.conf.checking.suggestions import advice, nearest
from twinlens.conf.checking.target_settings import target_of_a_method
from twinlens.conf.checking.top_level import SEVERAL

EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
    "hydra/sweeper/optuna": "optuna",
}
"""Options that come with a package of their own, and the extra of this project that installs it."""

Attempt = Callable[[list[str]], DictConfig]
"""Compose the primary configuration with these overrides."""


def explain(error: Exception, overrides: Sequence[Override], attempt: Attempt, command: CommandLine) -> UserError:
    """The sentence for `error`, which composing with all `overrides` raised.

    Args:
        error: the exception.
        overrides: the job's overrides, parsed.
        attempt: composes with a part of them.
        command: the command line, for the folders and the primary configuration.
    """
    tree = command.tree
    # Groups first: a value override may set a key that only its group's option has.
    ordered = sorted(overrides, key=lambda override: not tree.is_group(override.key_or_group))
    applied: list[str] = []
    try:
        before = attempt(applied)
    except Exception as base_error:
        if (told := user_error_behind(base_error)) is not None:
            return told
        return _broken_files(base_error if not overrides else error, tree, command.primary)
    for override in ordered:
        applied = [*applied, str(override.input_line)]
        try:
            before = attempt(applied)
        except Exception as culprit_error:
            return _explain_override(culprit_error, override, before, command)
    return _broken_files(error, tree, command.primary)


def _explain_override(error: Exception, override: Override, before: DictConfig, command: CommandLine) -> UserError:
    line = str(override.input_line)
    if _yaml_error(error) is not None:
        return _broken_files(error, command.tree, command.primary)
    if override.package is not None:
        return UserError(
            f"{line}: {override.key_or_group}@{override.package} cannot be chosen; expected a group without a package: "
            f"write {override.key_or_group}=NAME."
        )
    options = getattr(error, "options", None)
    if command.tree.is_group(override.key_or_group) or options:
        return _explain_choice(error, override, command, options or ())
    return _explain_value(error, override, before, command.tree)


def _explain_choice(
    error: Exception, override: Override, command: CommandLine, listed: Sequence[str] | tuple[()]
) -> UserError:
    """A group whose option does not exist, or that cannot be chosen here."""
    line, group, value = str(override.input_line), override.key_or_group, override.value()
    options = command.tree.options(group) or list(listed)
    if not isinstance(value, str | list) and not override.is_delete():
        kinds = "a name or a list of names" if group in SEVERAL else "a name"
        return UserError(f"{line}: expected {kinds}{advice(str(value), options)}")
    names = [str(name) for name in (value if isinstance(value, list) else [value])]
    for name in names:
        if name not in options and not override.is_delete():
            if f"{group}/{name}" in EXTRAS:
                return _not_installed(line, f"{group}/{name}")
            return no_such_choice(line, group, name, options)
    if getattr(error, "missing_cfg_file", None):
        return _broken_files(error, command.tree, f"{group}/{','.join(names)}")
    if command.is_replay:
        return UserError(
            f"{line}: {command.home / command.primary}.yaml repeats a run, in which {group} is fixed to values, not "
            f"chosen by name; change single values ({group}.KEY=VALUE), or start without --config-dir and "
            f"--config-name to choose {group}={','.join(names)}."
        )
    return UserError(
        f"{line}: {command.primary}.yaml does not choose a {group}, so there is nothing to replace; write "
        f"+{line.lstrip('~+')} to add it."
    )


def _explain_value(error: Exception, override: Override, before: DictConfig, tree: ConfigTree) -> UserError:
    """A key that does not exist, exists already, or cannot take the value."""
    line, key = str(override.input_line), override.key_or_group
    meant = None if override.is_delete() else target_of_a_method(key, override.value())
    if meant is not None:
        return meant
    values = OmegaConf.to_container(before, resolve=False)
    hidden = () if override.is_hydra_override() else "hydra."  # Hydra's own keys only confuse elsewhere
    keys = [path for path in flatten(values) if not f"{path}.".startswith(hidden)]
    if key in keys:
        if override.is_add():
            return UserError(f"{line}: {key} is in the configuration already; write {key}=VALUE without the +.")
        reason = _first_line(error)
        return UserError(f"{line}: the value does not fit ({reason}); give {key} a value of the kind it has now.")
    parent = known_parent(key, keys)
    if not parent:
        return unknown_key(line, key, [*keys, *(group for group in tree.groups() if group != "hydra")])
    container = OmegaConf.select(before, parent, throw_on_missing=False)
    if isinstance(container, DictConfig):
        return _unselected(line, key, before, tree) or unknown_key(line, key, keys)
    return UserError(
        f"{line}: {parent} is a single value or a list and has no key {key[len(parent) + 1 :]!r}; write {parent}=VALUE."
    )


def _unselected(line: str, key: str, before: DictConfig, tree: ConfigTree) -> UserError | None:
    """A key of a method that exists but is not part of this run."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    selected = before.get(group) or {}
    if group not in SEVERAL or name in selected:
        return None
    names = [str(known) for known in selected]
    if name in tree.options(group):
        return UserError(
            f"{line}: {group} {name} is not part of this run (it has {', '.join(names) or 'none'}); add it with "
            f"{group}=[{','.join([*names, name])}]."
        )
    return UserError(f"unknown key {key!r} in {line}: this run has no {group} {name!r}{advice(name, names)}")


def _broken_files(error: Exception, tree: ConfigTree, primary: str) -> UserError:
    """The file `primary` or what it asks for is wrong, whatever else the command line says."""
    broken = _yaml_error(error)
    if broken is not None:
        mark = getattr(broken, "problem_mark", None)
        place = f"{mark.name}, line {mark.line + 1}" if mark else f"the files of {primary}.yaml"
        problem = getattr(broken, "problem", None) or _first_line(broken)
        return UserError(f"{place}: this is not valid YAML ({problem}); correct the line.")
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        if missing in EXTRAS:
            return _not_installed(f"{primary}.yaml", missing)
        group, _, name = str(missing).rpartition("/")
        near = nearest(name, tree.options(group))
        meant = f"did you mean {group}/{near}?" if near else f"available: {', '.join(tree.options(group)) or 'none'}."
        return UserError(f"{primary}.yaml asks for {missing}.yaml, which does not exist; {meant}")
    return UserError(
        f"{primary}.yaml cannot be composed ({_first_line(error)}); expected configuration files as in conf/: correct "
        "the file named."
    )


def _not_installed(where: str, option: str) -> UserError:
    extra = EXTRAS[option]
    return UserError(
        f"{where}: the package that {option} needs is not installed; expected the extra {extra}: "
        f"pip install -c constraints.txt -e '.[{extra}]', or leave {option.rpartition('/')[0]} out and the jobs run "
        "one after the other."
    )


def flatten(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all keys, inner and outer, list positions included (`a.b`, `a.b.0`)."""
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        inner = f"{path}.{key}" if path else str(key)
        yield inner
        yield from flatten(item, inner)


def _yaml_error(error: BaseException | None) -> yaml.YAMLError | None:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, yaml.YAMLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def user_error_behind(error: BaseException) -> UserError | None:
    """The sentence that a check inside Hydra's composition raised, whatever the libraries have made of it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and not isinstance(current, UserError):
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return current if isinstance(current, UserError) else None


def _first_line(error: BaseException) -> str:
    """First line of the innermost stated cause, without the dots and tabs of Hydra's layout."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
