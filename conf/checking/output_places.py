"""Arguments of library classes that say where files are written: a file from elsewhere may not give them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.annotations import union_options
from twinlens.conf.checking.plain_values import join
from twinlens.conf.checking.signatures import parameters_of

NO_PATH = frozenset({"monitor", "_target_"})
"""Arguments of library classes whose texts may hold a slash and never name a file."""


def check_places(target: Any, arguments: Mapping[str, Any], path: str, typed: Collection[str]) -> None:
    """Refuse arguments through which a library's class would write where a file from elsewhere wants it to.

    Args:
        target: the class.
        arguments: of the node, without those that begin with an underscore.
        path: of the node.
        typed: keys of the command line, which may name any place.

    Raises:
        UserError: naming the argument.
    """
    parameters = parameters_of(target)
    for name, value in arguments.items():
        where = join(path, name)
        if value is None or _is_typed(where, typed):
            continue
        parameter = parameters.get(name)
        if parameter is None or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise _names_a_place(where, value, f"{target.__name__} hands it on unchecked")
        if _takes_a_path(parameter.annotation):
            raise _names_a_place(where, value, "it says where files are written")
        for text in _texts(value) if name not in NO_PATH else ():
            if any(sign in text for sign in "/\\\0") or text.startswith((".", "~")):
                raise _names_a_place(where, value, "it could lead out of the run's folder")


def _is_typed(path: str, typed: Collection[str]) -> bool:
    return any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in typed)


def _takes_a_path(annotation: Any) -> bool:
    return any(
        isinstance(option, type) and issubclass(option, os.PathLike)
        for option in union_options(annotation) or [annotation]
    )


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for item in items for text in _texts(item)]


def _names_a_place(where: str, value: Any, why: str) -> UserError:
    return UserError(
        f"{where}={value!r:.80}: in a configuration file from elsewhere this is not allowed, because {why}; expected "
        f"nothing outside the run's folder: leave it out, or say {where}=VALUE on the command line."
    )
