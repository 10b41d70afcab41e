"""The one import name of the project, and its face in Python: `explain`, `open` and `Task`, imported when asked for.

In a checkout `twinlens.data`, `twinlens.models`, `twinlens.train` and so on lie beside this folder, as the layout of
the project wants them. The search path of the package therefore holds the checkout too. A wheel has the same folders
inside the package and needs no second place.
"""

from __future__ import annotations

import random
from importlib import import_module as _import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinlens.answers import Answer as Answer
    from twinlens.attribution.errors import UserError as UserError
    from twinlens.explaining import explain as explain
    from twinlens.runs import Run as Run
    from twinlens.runs import open_run as open
    from twinlens.tasks import Task as Task

_CHECKOUT = Path(__file__).resolve().parents[1]
_FACE = {
    "Answer": ("twinlens.answers", "Answer"),
    "Run": ("twinlens.runs", "Run"),
    "Task": ("twinlens.tasks", "Task"),
    "UserError": ("twinlens.attribution.errors", "UserError"),
    "explain": ("twinlens.explaining", "explain"),
    "open": ("twinlens.runs", "open_run"),
}
"""What the package gives → the module and the name that it has there; each is imported when it is asked for."""

__all__ = ["Answer", "Run", "Task", "UserError", "__version__", "explain", "open"]

if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "conf" / "train.yaml").is_file():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> Any:
    """A part of the face, or the version, when it is first asked for."""
    if name == "__version__":
        from twinlens.conf.checking.own_version import own_version

        found: Any = own_version()
    elif name in _FACE:
        module, own = _FACE[name]
        drawn = random.getstate()
        try:
            found = getattr(_import_module(module), own)
        finally:
            random.setstate(drawn)  # libraries draw while they are imported
    else:
        raise AttributeError(f"module 'twinlens' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
