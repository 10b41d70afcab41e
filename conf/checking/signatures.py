"""The parameters that a configuration can fill, read from a class or function."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from twinlens.conf.checking.annotations import resolved_hints

OPEN_ENDED = inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD)


def parameters_of(target: Any) -> dict[str, inspect.Parameter]:
    """Parameters by name, annotations resolved.

    Where `__init__(self, ..., **options)` hands all its options on in `super().__init__(..., **options)`, the options
    are replaced by the parameters of that next class which the call leaves free. A class without a readable signature
    (written in C) takes anything.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return {OPEN_ENDED.name: OPEN_ENDED}
    if not inspect.isclass(target):
        return _annotated(signature, target)
    owner = _owner(target, target.__mro__)
    if owner is None:
        return _annotated(signature, target.__new__)
    return _expanded(target, owner, _annotated(signature, vars(owner)["__init__"]))


def _expanded(target: type, owner: type, own: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """`own`, the parameters of `owner.__init__`, with its options replaced by what they can be, where that is known."""
    options = next((name for name, parameter in own.items() if parameter.kind is parameter.VAR_KEYWORD), None)
    parent = _owner(target, target.__mro__[target.__mro__.index(owner) + 1 :])
    call = _super_call(owner, options) if options else None
    if parent is None or call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
        return own
    initialise = vars(parent)["__init__"]
    theirs = _annotated(inspect.signature(initialise), initialise)
    theirs.pop("self", None)
    theirs = _expanded(target, parent, theirs)
    kept = {name: parameter for name, parameter in own.items() if name != options}
    taken = {*kept, *list(theirs)[: len(call.args)], *(keyword.arg for keyword in call.keywords)}
    free = {name: parameter for name, parameter in theirs.items() if name not in taken}
    return {
        **kept,
        **{name: p if p.kind is p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY) for name, p in free.items()},
    }


def _owner(target: type, classes: tuple[type, ...]) -> type | None:
    """The first of `classes` that defines `__init__`; None where only `object` does."""
    return next((cls for cls in classes if cls is not object and "__init__" in vars(cls)), None)


def _super_call(owner: type, options: str) -> ast.Call | None:
    """The call `super().__init__(..., **options)` in the class's `__init__`, or None."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(vars(owner)["__init__"])))
    except (OSError, TypeError, SyntaxError):
        return None
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    for call in calls:
        passes_on = any(
            keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == options
            for keyword in call.keywords
        )
        if passes_on and ast.unparse(call.func) == "super().__init__":
            return call
    return None


def _annotated(signature: inspect.Signature, function: Any) -> dict[str, inspect.Parameter]:
    hints = resolved_hints(function)
    return {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    }
