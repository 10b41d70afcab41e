"""Names of methods: what `conf/method/` has under a name, and the name and settings of a configured method."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method
from twinlens.conf.checking import suggestions
from twinlens.value_words import kind_in_words

FOLDER = Path(suggestions.__file__).parents[1] / "method"


def class_of(method: Any) -> type[Method]:
    """The class of a configured method, or of one that `conf/method/` has by name.

    Raises:
        UserError: no method has that name, or it is no method at all.
    """
    if isinstance(method, Method):
        return type(method)
    if not isinstance(method, str):
        what = kind_in_words(method) if isinstance(method, type) else f"{method!r:.60}"
        raise UserError(
            f"{what} is no method; expected a name such as 'ig' or a configured method such as "
            "IntegratedGradients(n_steps=10): pass one of these."
        )
    module, _, name = str(node_named(method)["_target_"]).rpartition(".")
    found: type[Method] = getattr(importlib.import_module(module), name)
    return found


def configured(method: Any) -> Any:
    """The method itself, or the one that `conf/method/` has by name, with the settings there.

    Raises:
        UserError: see `class_of`.
    """
    kind: Any = class_of(method)
    if not isinstance(method, str):
        return method
    return kind(**{key: value for key, value in node_named(method).items() if key != "_target_"})


def name_of(method: Any) -> str:
    """Name of a configured method: that of the file of `conf/method/` with its class, of several the shortest; else
    that of the class."""
    target = target_of(class_of(method))
    named = [file.stem for file in files() if f"_target_: {target}\n" in file.read_text(encoding="utf-8")]
    return min(named, key=len) if named else re.sub(r"(?<!^)(?=[A-Z])", "_", target.rpartition(".")[2]).lower()


def require_name(name: Any) -> str:
    """A name that a caller gives to a method, of which a key and a folder are made.

    Raises:
        UserError: one that is none.
    """
    if not re.fullmatch(r"[^\W\d][\w-]*", str(name)):
        raise UserError(
            f"methods has the name {name!r}; expected a word of letters, digits, _ and -, since lists lie in a folder "
            "of that name: rename it, e.g. my_ig."
        )
    return str(name)


def target_of(kind: type[Method]) -> str:
    """Dotted name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def node_of(method: Any) -> dict[str, Any]:
    """The configuration of a method: its class, and its arguments as it keeps them; of a name what its file says.

    Raises:
        UserError: arguments that it does not keep under their own names.
    """
    if isinstance(method, str):
        return node_named(method)
    kind = class_of(method)
    if getattr(importlib.import_module(kind.__module__), kind.__qualname__, None) is not kind:
        raise UserError(
            f"the class {kind.__name__} is not what {kind.__module__} has under that name (made inside a function, or "
            "defined anew since), so that another one would run; expected a class of a module: define it "
            "outside of functions, and make the method after that."
        )
    names = list(inspect.signature(kind).parameters)
    lacking = [name for name in names if not hasattr(method, name)]
    if lacking:
        raise UserError(
            f"{kind.__name__} keeps no {lacking[0]}, which it is made with, so that no file can say what ran; expected "
            "arguments that are attributes of the same name: make it a dataclass."
        )
    return {"_target_": target_of(kind), **{name: getattr(method, name) for name in names}}


def node_named(name: str) -> dict[str, Any]:
    """What the file of `conf/method/` says.

    Raises:
        UserError: there is none.
    """
    there = {file.stem: file for file in files()}
    if name not in there:
        near = suggestions.nearest(name, there)
        meant = f" (did you mean {near}?)" if near else ""
        raise UserError(f"no method is called {name}{meant}; expected one of {', '.join(there)}: correct the name.")
    found: Any = OmegaConf.to_container(OmegaConf.load(there[name]))
    return dict(found)


def files() -> list[Path]:
    """The files of `conf/method/`."""
    return sorted(FOLDER.glob("*.yaml"))
