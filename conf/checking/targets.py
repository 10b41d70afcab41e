"""Check every `_target_` node of a configuration against the typed signature of the class it names.

The signature is the only registry: a new method is one class and one YAML file, and both are checked against each
other here, before any weight is read. Configurations may come from people one does not know, so only classes of a
known set of packages may be named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.allowed_classes import PROJECT_THAT_READS, home_of, resolve_target, within
from twinlens.conf.checking.annotations import (
    UNKNOWN,
    Built,
    describe,
    is_record,
    literal_choices,
    locate,
    matches,
    record_fields,
    union_options,
)
from twinlens.conf.checking.class_slots import Slot, check_slot
from twinlens.conf.checking.output_places import check_places
from twinlens.conf.checking.plain_values import join, plain
from twinlens.conf.checking.signatures import parameters_of
from twinlens.conf.checking.suggestions import advice, nearest

_TARGET = "_target_"
_SPECIAL = frozenset({_TARGET, "_partial_", "_recursive_", "_convert_", "_args_"})

Provided = Mapping[str, Collection[str]]
"""Config path of a node (`logger.*` for every node below) → names of arguments that the calling code adds."""


def check_targets(
    config: DictConfig | Mapping[str, Any],
    allow: Sequence[str] = (),
    provided: Provided | None = None,
    slots: tuple[Slot, ...] | None = None,
    typed: Collection[str] | None = None,
) -> None:
    """Check all `_target_` nodes, nested ones first.

    Args:
        config: the composed configuration, without Hydra's own node.
        allow: further packages or modules whose classes may be named. Pass only what the user typed,
            never what stands in a configuration file.
        provided: required arguments that need not stand in the configuration.
        slots: what belongs where; None does not ask.
        typed: keys of the command line, where a file from elsewhere has a part in the configuration; None: it has
            none, so that arguments may name places to write to.

    Raises:
        UserError: for a name outside the allowed packages, a class that does not exist or belongs elsewhere, an
            unknown or missing argument, a value of the wrong type, an unset mandatory value.
    """
    _Checker(tuple(allow), provided or {}, slots, typed).value(plain(config), "", build=True)


class _Checker:
    def __init__(
        self,
        allow: tuple[str, ...],
        provided: Provided,
        slots: tuple[Slot, ...] | None,
        typed: Collection[str] | None,
    ) -> None:
        self.allow = allow
        self.provided = provided
        self.slots = slots
        self.typed = typed

    def value(self, value: Any, path: str, build: bool) -> Any:
        """Check everything inside; return the value with nested nodes replaced by what they become.

        `build` is False below a `_recursive_: false` node, whose nested nodes stay mappings.
        """
        if isinstance(value, list):
            return [self.value(item, join(path, index), build) for index, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        if _TARGET in value:
            built = self.node(value, path)
            return built if build else dict(value)
        return {key: self.value(item, join(path, key), build) for key, item in value.items()}

    def node(self, node: Mapping[str, Any], path: str) -> Built:
        target = resolve_target(node[_TARGET], join(path, _TARGET), self.allow)
        if self.slots is not None:
            self.place(target, node, path)
        if not isinstance(node.get("_args_", []), list):
            raise UserError(f"{join(path, '_args_')} is no list; expected arguments by their names: remove it.")
        partial = node.get("_partial_", False) is True
        recursive = node.get("_recursive_", True) is not False
        arguments = {
            key: self.value(item, join(path, key), recursive) for key, item in node.items() if key not in _SPECIAL
        }
        positional = [
            self.value(item, f"{path}._args_[{i}]", recursive) for i, item in enumerate(node.get("_args_", []))
        ]
        given = {name for where, names in self.provided.items() if fnmatchcase(path, where) for name in names}
        check_arguments(target, arguments, positional, path, given, partial)
        return Built(target, partial)

    def place(self, target: Any, node: Mapping[str, Any], path: str) -> None:
        """Check where a node stands, how it would be built and, for a file from elsewhere, where it would write."""
        for key in sorted(_SPECIAL & set(node) - {_TARGET}):
            raise UserError(
                f"{join(path, key)} is not allowed: expected the arguments of {node[_TARGET]} by their names, and "
                "nothing that changes how it is built: remove it."
            )
        check_slot(target, path, node[_TARGET], self.slots or ())
        if self.typed is not None and not within(home_of(target), (*PROJECT_THAT_READS, *self.allow)):
            check_places(target, {name: item for name, item in node.items() if name not in _SPECIAL}, path, self.typed)


def check_arguments(
    target: Any,
    arguments: Mapping[str, Any],
    positional: Sequence[Any],
    path: str,
    given: Collection[str] = (),
    partial: bool = False,
) -> None:
    """Check a node's keys and values against the signature of `target`.

    Raises:
        UserError: for an unknown key, a missing required one (unless `partial` or in `given`), a wrong type.
    """
    parameters = parameters_of(target)
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    by_keyword = [name for name, p in named.items() if p.kind is not p.POSITIONAL_ONLY]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    ordered = [name for name, p in named.items() if p.kind is not p.KEYWORD_ONLY]
    label = getattr(target, "__qualname__", str(target))
    for key, value in arguments.items():
        if key not in by_keyword:
            if open_ended:
                continue
            raise UserError(f"unknown key {join(path, key)!r}: {label} takes no {key!r}{advice(str(key), by_keyword)}")
        check_value(value, named[key].annotation, join(path, key))
    for name, value in zip(ordered, positional, strict=False):
        check_value(value, named[name].annotation, join(path, name))
    filled = {*arguments, *given, *ordered[: len(positional)]}
    missing = [name for name, p in named.items() if p.default is p.empty and name not in filled]
    if missing and not partial:
        keys = ", ".join(join(path, name) for name in missing)
        expected = describe(named[missing[0]].annotation)
        raise UserError(
            f"{keys} is missing: {label} needs it (expected {expected}); write it into the YAML file of this group or "
            f"give +{join(path, missing[0])}=VALUE on the command line."
        )


def check_value(value: Any, annotation: Any, path: str) -> None:
    """Raise UserError where `value` does not satisfy `annotation`, naming the innermost culprit."""
    if matches(value, annotation):
        return
    where, culprit, expected = locate(value, annotation, path)
    if isinstance(culprit, Mapping):
        _check_record(culprit, expected, where)
    raise UserError(
        f"{where}={_shown(culprit)}: expected {describe(expected)}, got {_kind(culprit)}{_hint(culprit, expected)}"
    )


def _check_record(value: Mapping[str, Any], annotation: Any, path: str) -> None:
    """Name the unknown or missing field where a mapping stands for a dataclass or TypedDict."""
    records = [option for option in (union_options(annotation) or (annotation,)) if is_record(option)]
    if len(records) != 1:
        return
    fields = record_fields(records[0])
    for key in value:
        if key not in fields:
            raise UserError(f"unknown key {join(path, key)!r}{advice(str(key), fields)}")
    for name, (expected, required) in fields.items():
        if required and name not in value:
            raise UserError(f"{join(path, name)} is missing (expected {describe(expected)}); give {path}.{name}=VALUE.")


def _shown(value: Any) -> str:
    if isinstance(value, Built):
        return value.result.__qualname__
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Built):
        return "a partial (_partial_: true)" if value.partial else f"a node of {_shown(value)}"
    names = {dict: "a mapping", list: "a list", bool: "a bool", int: "an int", float: "a float", str: "a str"}
    return names.get(type(value), type(value).__name__)


def _hint(value: Any, annotation: Any) -> str:
    """What to do, where more can be said than 'give another value'."""
    choices = literal_choices(annotation)
    if choices:
        near = nearest(str(value), choices)
        return f"; did you mean {near!r}?" if near else "; give one of those."
    if isinstance(value, str) and matches([value], annotation):
        return f"; write [{value}]."
    if value is not UNKNOWN and matches(str(value), annotation) and not isinstance(value, Mapping | list | Built):
        return f"; quote it to make it text: \"'{value}'\"."
    return "; give such a value."
