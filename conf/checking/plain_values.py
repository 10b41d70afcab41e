"""A composed configuration as plain dicts, lists and scalars, with interpolations resolved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.annotations import UNKNOWN


def plain(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration's values.

    A value that only the running job knows (an interpolation of Hydra's own state) becomes `UNKNOWN`. A plain mapping
    is taken to hold values already.

    Raises:
        UserError: for a mandatory value that is not set (`???`) and for an interpolation that names nothing.
    """
    if not isinstance(config, DictConfig):
        return dict(config)
    return {str(key): _value(config, key, str(key)) for key in config}


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own node; a copy where it has one."""
    if "hydra" not in config:
        return config
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def chosen(config: DictConfig, group: str) -> dict[str, DictConfig]:
    """The entries of a group that are to run, by name.

    An entry without a class is left out: an experiment may set options of one that the command line does not choose.
    """
    return {str(name): node for name, node in (config.get(group) or {}).items() if "_target_" in node}


def join(path: str, key: object) -> str:
    """`a` and `b` → `a.b`; `a` and 3 → `a[3]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


def _value(node: DictConfig | ListConfig, key: Any, path: str) -> Any:
    if OmegaConf.is_missing(node, key):
        raise UserError(f"{path} has no value and the run needs one; give {path}=VALUE on the command line.")
    try:
        value = node[key]
    except Exception as error:  # OmegaConf's own classes for interpolations and whatever a resolver raises
        if "HydraConfig was not set" in str(error):
            return UNKNOWN
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} refers to a value that cannot be found ({reason}); expected the name of an existing key in "
            "${…}: correct the name or write the value itself."
        ) from error
    if isinstance(value, DictConfig):
        return {name: _value(value, name, join(path, name)) for name in value}
    if isinstance(value, ListConfig):
        return [_value(value, index, join(path, index)) for index in range(len(value))]
    return value
