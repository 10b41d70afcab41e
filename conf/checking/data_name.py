"""Names in a run's folder: of its data, `${data_name:${data}}` in a configuration, and of its experiment.

Options can make another dataset of one (`data.test=hans`, `data.split_validation=true`), and the place of a run has to
say so as its results do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.data.dataset_name import full_name

RESOLVER = "data_name"
OF_EXPERIMENT = "of_experiment"


def data_name(data: Mapping[str, Any]) -> str:
    """The full name of a data node as one part of a path, as in mnli-split-validation-hans."""
    return full_name(str(data["name"]), data.get("split_validation") is True, _text(data.get("test"))).replace("/", "-")


def of_experiment(chosen: object) -> str:
    """What a run's folder says of the experiment that was chosen, as in `unified-table2_`; empty where none was."""
    return "" if chosen is None else re.sub(r"[^\w.-]+", "-", str(chosen)).strip("-.") + "_"


def register() -> None:
    """Make `${data_name:…}` and `${of_experiment:…}` known to OmegaConf."""
    OmegaConf.register_new_resolver(RESOLVER, data_name, replace=True)
    OmegaConf.register_new_resolver(OF_EXPERIMENT, of_experiment, replace=True)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{n}" for device in ("com", "lpt") for n in range(1, 10))}
"""Names that are no files on some systems."""
LONGEST_NAME = 100
"""Bytes; systems allow 255, and parts of paths are joined from several names."""


def check_name(name: object, where: str) -> None:
    """Refuse a name that is not a single part of a path.

    Args:
        name: of a method, a model …
        where: how the configuration calls it.

    Raises:
        UserError: naming what is wrong with it.
    """
    text = str(name)
    if not text or text.isspace():
        wrong = "is empty"
    elif any(sign in '/\\:*?"<>|' or unicodedata.category(sign)[0] == "C" for sign in text):
        wrong = "holds a sign that separates or ends paths"
    elif text.startswith((".", "~", "-", " ")) or text.endswith((".", " ")):
        wrong = "begins or ends like no file name"
    elif text.split(".")[0].lower() in _RESERVED:
        wrong = "is reserved on some systems"
    elif len(text.encode("utf-8", errors="replace")) > LONGEST_NAME:
        wrong = f"has more than {LONGEST_NAME} bytes"
    else:
        return
    shown = "".join(sign if sign.isprintable() else "?" for sign in where)
    raise UserError(
        f"{shown}: the name {wrong}, and it becomes a folder; expected letters, digits, '-', '_' and inner dots: "
        "rename it."
    )
