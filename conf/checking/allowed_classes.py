"""Classes that a `_target_` may name, and importing them.

Configurations may come from people one does not know, so only classes of a known set of packages may be named, and a
name is checked before its module is imported.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.suggestions import nearest

PROJECT = ("twinlens.attribution", "twinlens.models", "twinlens.data", "twinlens.callbacks")
"""Packages of this project whose classes may be named."""

LIBRARIES = (
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
    "torchmetrics",
    "lightning.fabric.accelerators",
    "lightning.fabric.loggers",
    "lightning.fabric.plugins",
    "lightning.fabric.strategies",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.trainer",
)
"""Where a library's class must be defined. Not all of torch and lightning: some of their classes start processes,
load code or build other classes from text (torch.distributed.elastic, torch.utils.cpp_extension, lightning.cli)."""

FRONTS = ("lightning", "lightning.pytorch")
"""Packages that hand on classes of the libraries by a name of their own (lightning.Trainer)."""

PROJECT_THAT_READS = tuple(package for package in PROJECT if not package.endswith("callbacks"))
"""Packages of this project whose classes take paths only to read them."""


def resolve_target(name: object, path: str, allow: Sequence[str] = ()) -> Any:
    """Import the class that a `_target_` names, if it may be named. Functions never are, whatever the user allowed.

    Args:
        name: as it stands in the configuration.
        path: of the key, for messages.
        allow: packages and modules that the user allowed beside those of the project and its libraries.

    Raises:
        UserError: where `name` is no dotted name, lies outside the allowed packages, does not exist or names something
            else than a class at its module.
    """
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")) or "." not in name:
        raise UserError(f"{path}={name!r} names no class: expected package.module.Class.")
    # Checked before the import, because importing a module runs it.
    if any(part.startswith("__") for part in name.split(".")):
        raise _not_allowed(name, path)
    if not (within(name, (*PROJECT, *LIBRARIES, *allow)) or name.rpartition(".")[0] in FRONTS):
        raise _not_allowed(name, path)
    target = _import(name, path)
    # Checked again after it, because a module's attributes include whatever it imported (data.base.os.system).
    is_plain = inspect.isclass(target) and "." not in target.__qualname__ and name.rpartition(".")[0] in sys.modules
    if within(home_of(target), allow) or within(name, allow):
        if is_plain:
            return target
        raise UserError(
            f"{path}={name} is no class of a module, but a function or what another class or module has; expected "
            "package.module.Class, also of a package that allow_targets names: name a class."
        )
    if is_plain and within(home_of(target), (*PROJECT, *LIBRARIES)):
        return target
    raise _not_allowed(name, path)


def home_of(target: Any) -> str:
    """Where a class or function is defined, and its name."""
    return f"{getattr(target, '__module__', None)}.{getattr(target, '__qualname__', '')}"


def refusal_of_a_library(name: object, error: Exception) -> UserError | None:
    """The sentence for what a library's class refuses to be built from; None for a class of this project."""
    if within(str(name), PROJECT):
        return None
    reason = str(error.__cause__ or error).strip().splitlines()[0][:300]
    return UserError(f"{name} cannot be built ({reason}); expected settings that it takes: change or remove them.")


def _import(name: str, path: str) -> Any:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise UserError(
                f"{path}={name}: its module needs the package {error.name!r}, which is not installed; install it."
            ) from error
        except Exception as error:  # a module may need another system, another version, anything
            raise UserError(
                f"{path}={name}: its module cannot be imported here ({type(error).__name__}: {error!s:.200}); name "
                "another class, or install what it needs."
            ) from error
        return _attribute(found, parts[length:], name, path)
    raise UserError(f"{path}={name}: there is no package {parts[0]!r}; install it or correct the name.")


def _attribute(found: Any, parts: Sequence[str], name: str, path: str) -> Any:
    for part in parts:
        if not hasattr(found, part):
            near = nearest(part, [known for known in dir(found) if not known.startswith("_")])
            owner = getattr(found, "__name__", type(found).__name__)
            meant = f"did you mean {owner}.{near}?" if near else "correct the name."
            raise UserError(f"{path}={name}: there is no {part!r} in {owner}; {meant}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{path}={name} is no class: expected package.module.Class.")
    return found


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def _not_allowed(name: str, path: str) -> UserError:
    return UserError(
        f"{path}={name} is not allowed: expected a class of this project, torch.nn, torch.optim, torch.utils.data, "
        "torchmetrics or lightning; if it is a class that you trust, say so on the command line: "
        f"allow_targets=[{name}]."
    )
