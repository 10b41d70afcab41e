"""Type check of plain configuration values against a Python annotation.

The class's own signature is the only registry. Values are what YAML and the command line can say (None, bool, int,
float, str, list, dict), plus two markers: `Built` for a nested `_target_` node and `UNKNOWN` for a value that only the
running job knows.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import os
import types
import typing
from collections.abc import Mapping
from typing import Any

NoneType = type(None)
_SETS_AND_LISTS = (
    list,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Set,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar, dataclasses.InitVar)


class _Unknown:
    """A value that is filled in while the job runs (an interpolation of Hydra's own state); satisfies everything."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclasses.dataclass(frozen=True)
class Built:
    """Stands for the object that a nested `_target_` node will become.

    Attributes:
        result: class of the object.
        partial: the node is `_partial_`, so the object is a callable that has yet to be called.
    """

    result: type
    partial: bool = False


def matches(value: Any, annotation: Any) -> bool:
    """True if `value` satisfies `annotation`.

    An int satisfies float, a bool satisfies neither; a str satisfies Path; a list satisfies every list-like annotation
    and tuples; a str is no sequence. What cannot be decided from a configuration value (unresolved names, plain
    protocols, type variables without bound) is satisfied.
    """
    annotation = _unwrap(annotation)
    if value is UNKNOWN or annotation is Any or annotation is object:
        return True
    options = union_options(annotation)
    if options:
        return any(matches(value, option) for option in options)
    if isinstance(annotation, typing.TypeVar):
        return _matches_type_variable(value, annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(annotation))
    if isinstance(value, Built):
        return _matches_built(value, annotation)
    origin = typing.get_origin(annotation) or annotation
    if origin is tuple:
        return isinstance(value, list | tuple) and (annotation is origin or _matches_tuple(value, annotation))
    if origin in _SETS_AND_LISTS:
        return isinstance(value, list | tuple) and all(matches(item, _item_type(annotation)) for item in value)
    if origin in _MAPPINGS:
        return _matches_mapping(value, typing.get_args(annotation))
    if isinstance(value, Mapping) and is_record(origin):
        return _matches_record(value, origin)
    return _matches_plain(value, origin)


def describe(annotation: Any) -> str:
    """What was expected, in words a sentence can hold: `an int`, `a list[str] or null`, `'dot' or 'cosine'`."""
    annotation = _unwrap(annotation)
    options = union_options(annotation)
    if options:
        return " or ".join(describe(option) for option in options)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(repr(choice) for choice in typing.get_args(annotation))
    if annotation is NoneType:
        return "null"
    if annotation is bool:
        return "a bool (true or false)"
    if isinstance(annotation, type) and issubclass(annotation, os.PathLike):
        return "a path"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(repr(member.value) for member in annotation)
    name = type_name(annotation)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def type_name(annotation: Any) -> str:
    """The annotation as one would write it, without module paths: `list[int]`, `dict[str, float]`."""
    annotation = _unwrap(annotation)
    arguments = typing.get_args(annotation)
    options = union_options(annotation)
    if options:
        return " | ".join(type_name(option) for option in options)
    if annotation is NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return "Literal[" + ", ".join(repr(argument) for argument in arguments) + "]"
    if isinstance(annotation, list):  # the argument types of a Callable
        return "[" + ", ".join(type_name(item) for item in annotation) + "]"
    base = origin or annotation
    name = getattr(base, "__name__", None) or str(base).removeprefix("typing.")
    return f"{name}[{', '.join(type_name(argument) for argument in arguments)}]" if arguments else name


def literal_choices(annotation: Any) -> list[str]:
    """All strings that a Literal anywhere in the annotation's unions names; for 'did you mean'."""
    annotation = _unwrap(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return [choice for choice in typing.get_args(annotation) if isinstance(choice, str)]
    return [choice for option in union_options(annotation) for choice in literal_choices(option)]


def locate(value: Any, annotation: Any, path: str) -> tuple[str, Any, Any]:
    """Follow a mismatch down to the innermost value that is to blame.

    Returns (path, value, annotation) of the culprit, the inputs themselves where nothing inside is to blame.
    """
    annotation = _unwrap(annotation)
    options = [option for option in union_options(annotation) if option is not NoneType]
    if options:
        fitting = [option for option in options if _same_shape(value, option)]
        return locate(value, fitting[0], path) if len(fitting) == 1 else (path, value, annotation)
    if not _same_shape(value, annotation):
        return path, value, annotation
    for name, item, expected in _parts(value, annotation):
        if not matches(item, expected):
            return locate(item, expected, f"{path}{name}")
    return path, value, annotation


def union_options(annotation: Any) -> tuple[Any, ...]:
    """Members of a union or Optional, in order; empty for anything else."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return ()


def is_record(annotation: Any) -> bool:
    """True for dataclasses and TypedDicts, whose fields a mapping can fill."""
    return isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or typing.is_typeddict(annotation))


def record_fields(record: type) -> dict[str, tuple[Any, bool]]:
    """name → (annotation, required) of a dataclass or TypedDict."""
    hints = resolved_hints(record)
    if typing.is_typeddict(record):
        required: frozenset[str] = getattr(record, "__required_keys__", frozenset())
        # Postponed annotations hide Required and NotRequired from `__required_keys__`; the evaluated hints show them.
        marks = {name: typing.get_origin(hint) for name, hint in hints.items()}
        return {
            name: (hint, marks[name] is not typing.NotRequired and (name in required or marks[name] is typing.Required))
            for name, hint in hints.items()
        }
    fields = [field for field in dataclasses.fields(record) if field.init]
    return {field.name: (hints.get(field.name, Any), _is_required(field)) for field in fields}


def resolved_hints(owner: Any) -> dict[str, Any]:
    """Type hints of a class or callable; a name that only a type checker can see becomes Any."""
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:
        # One unresolvable name must not hide the other hints.
        function = inspect.unwrap(owner) if not isinstance(owner, type) else owner
        module = inspect.getmodule(function)
        names = dict(vars(module)) if module else {}
        return {name: _evaluate(hint, names) for name, hint in getattr(function, "__annotations__", {}).items()}


def _evaluate(hint: Any, names: dict[str, Any]) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, names)
    except Exception:
        return Any


def _unwrap(annotation: Any) -> Any:
    """Strip what does not change which values are valid: Annotated, Required, Final, NewType, aliases."""
    while True:
        if annotation is None:
            return NoneType
        if annotation is inspect.Parameter.empty or isinstance(annotation, str | typing.ForwardRef):
            return Any
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, dataclasses.InitVar):
            annotation = annotation.type
        elif hasattr(annotation, "__value__"):  # `type X = ...`
            annotation = annotation.__value__
        elif typing.get_origin(annotation) in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        else:
            return annotation


def _item_type(annotation: Any) -> Any:
    return (typing.get_args(annotation) or (Any,))[0]


def _matches_type_variable(value: Any, variable: typing.TypeVar) -> bool:
    if variable.__constraints__:
        return any(matches(value, constraint) for constraint in variable.__constraints__)
    return variable.__bound__ is None or matches(value, variable.__bound__)


def _matches_built(value: Built, annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if value.partial or origin is collections.abc.Callable:
        return origin is collections.abc.Callable or getattr(origin, "_is_protocol", False)
    if not isinstance(origin, type) or getattr(origin, "_is_protocol", False):
        return True
    return issubclass(value.result, origin)


def _matches_tuple(value: list[Any] | tuple[Any, ...], annotation: Any) -> bool:
    items = typing.get_args(annotation)
    if len(items) == 2 and items[1] is Ellipsis:
        return all(matches(item, items[0]) for item in value)
    return len(value) == len(items) and all(map(matches, value, items))


def _matches_mapping(value: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, Mapping):
        return False
    key_type, item_type = arguments if len(arguments) == 2 else (Any, Any)
    return all(matches(key, key_type) and matches(item, item_type) for key, item in value.items())


def _matches_record(value: Mapping[Any, Any], record: type) -> bool:
    fields = record_fields(record)
    complete = all(name in value for name, (_, required) in fields.items() if required)
    return complete and all(name in fields and matches(item, fields[name][0]) for name, item in value.items())


def _matches_plain(value: Any, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(expected, type):
        return expected is not collections.abc.Callable or callable(value)
    if isinstance(value, bool):
        return expected is bool
    if issubclass(expected, os.PathLike):
        return isinstance(value, str | os.PathLike)
    if issubclass(expected, enum.Enum):
        # Nothing converts the text: only members that are themselves a str or int compare equal to it.
        return isinstance(value, expected) or any(issubclass(expected, type(value)) and value == m for m in expected)
    try:
        return isinstance(value, expected)
    except TypeError:  # a protocol that cannot be checked at run time
        return True


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _same_shape(value: Any, annotation: Any) -> bool:
    """True if both are list-like or both are mapping-like, so that looking inside makes sense."""
    annotation = _unwrap(annotation)
    origin = typing.get_origin(annotation) or annotation
    if isinstance(value, list | tuple):
        return origin is tuple or origin in _SETS_AND_LISTS
    return isinstance(value, Mapping) and (origin in _MAPPINGS or is_record(origin))


def _parts(value: Any, annotation: Any) -> list[tuple[str, Any, Any]]:
    """(suffix of the path, item, expected type) of everything directly inside a list-like or mapping-like value."""
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if is_record(origin):
        fields = record_fields(origin)
        return [(f".{name}", item, fields[name][0]) for name, item in value.items() if name in fields]
    if origin in _MAPPINGS:
        expected = arguments[1] if len(arguments) == 2 else Any
        return [(f".{name}", item, expected) for name, item in value.items()]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            return []
        return [(f"[{i}]", item, expected) for i, (item, expected) in enumerate(zip(value, arguments, strict=True))]
    return [(f"[{i}]", item, _item_type(annotation)) for i, item in enumerate(value)]
