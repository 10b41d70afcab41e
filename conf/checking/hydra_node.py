"""Check Hydra's own node: a configuration from a stranger must not run code through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.former_names import current_name
from twinlens.conf.checking.overrides import Override, check_choices

PACKAGES = (
    "hydra._internal.core_plugins",
    "hydra.experimental.callbacks",
    "hydra_plugins",
    "optuna.samplers",
    "twinlens.callbacks",
)
"""Where the launcher, sweeper and callbacks of Hydra may come from: Hydra, its plugins and Optuna's samplers, which one
of them builds, this project."""

LOGGING = ("logging", "colorlog")
"""Where handlers and formatters may come from."""


def check_hydra_node(hydra: DictConfig, overrides: Sequence[Override], tree: ConfigTree, allow: Sequence[str]) -> None:
    """Check what Hydra itself would do: the files it chose, the classes it builds, the environment it sets.

    Raises:
        UserError: for a name that a file's defaults list gives twice, and for everything in Hydra's node through which
            a configuration file could run code that the user did not name.
    """
    node: Any = OmegaConf.to_container(hydra, resolve=False)
    for group, option in (node.get("runtime", {}).get("choices") or {}).items():
        _check_defaults(tree.file(str(group), str(option)), tree)
    for key in ("callbacks", "launcher", "sweeper"):
        _check_names(node.get(key), f"hydra.{key}", ("_target_",), (*PACKAGES, *allow))
    for key in ("job_logging", "hydra_logging"):
        _check_names(node.get(key), f"hydra.{key}", ("class", "()", "factory"), (*LOGGING, *allow))
        _check_references(node.get(key), f"hydra.{key}")
    typed = any(override.key_or_group.startswith("hydra.job.env_set") for override in overrides)
    if node.get("job", {}).get("env_set") and not typed:
        raise UserError(
            "hydra.job.env_set: a configuration file sets environment variables, which can run code; expected none: "
            "set them in the shell or on the command line."
        )


def _check_defaults(path: Path | None, tree: ConfigTree) -> None:
    """Refuse a repeated name in the defaults list of a chosen file (an experiment that takes a method twice)."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    defaults = content.get("defaults") if isinstance(content, dict) else None
    for entry in defaults or []:
        for key, value in entry.items() if isinstance(entry, dict) else []:
            group = str(key).removeprefix("override ").strip().lstrip("/")
            if isinstance(value, list):
                check_choices(group, [str(item) for item in value], f"{path}, defaults list", tree)


def _check_names(node: Any, path: str, keys: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse every class name under one of `keys` that lies outside `allowed`."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_names(item, f"{path}[{index}]", keys, allowed)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key in keys and (now := current_name(value)):
            raise UserError(f"{path}.{key}={value} has another name now; expected {now}: write that.")
        if key in keys and not any(f"{value}.".startswith(f"{prefix}.") for prefix in allowed):
            raise UserError(
                f"{path}.{key}={value} is not allowed: expected a name in {', '.join(allowed)}; if you trust it, name "
                f"it on the command line: allow_targets=[{value}]."
            )
        _check_names(value, f"{path}.{key}", keys, allowed)


def _check_references(node: Any, path: str) -> None:
    """Refuse `ext://module.name` outside sys, because resolving it imports the module."""
    if isinstance(node, str) and node.startswith("ext://") and not node.startswith("ext://sys."):
        raise UserError(f"{path}={node} is not allowed: expected ext://sys.stdout or ext://sys.stderr; remove it.")
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_references(value, f"{path}.{key}")
