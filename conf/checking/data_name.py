"""Name of a run's data in folders and groups: `${data_name:${data}}` in a configuration.

Options can make another dataset of one (`data.test=hans`, `data.split_validation=true`), and the place of a run has to
say so as its results do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from twinlens.data.dataset_name import full_name

RESOLVER = "data_name"


def data_name(data: Mapping[str, Any]) -> str:
    """The full name of a data node as one part of a path, as in mnli-split-validation-hans."""
    return full_name(str(data["name"]), data.get("split_validation") is True, _text(data.get("test"))).replace("/", "-")


def register() -> None:
    """Make `${data_name:…}` known to OmegaConf."""
    OmegaConf.register_new_resolver(RESOLVER, data_name, replace=True)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
