"""Parts of a composed configuration that no file from elsewhere decides: where a run writes, and what Hydra does.

Which file a value comes from cannot be seen in a composed configuration. So the project's own configuration is composed
beside it, with what the command line says of Hydra and of places: whatever differs from that comes from the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.data_name import check_name
from twinlens.conf.checking.overrides import Override
from twinlens.conf.checking.plain_values import join, plain
from twinlens.conf.checking.push_names import KEYS
from twinlens.conf.checking.size_bounds import check_growth
from twinlens.conf.checking.top_level import COMMANDS

CHANGING = frozenset({"runtime", "overrides", "searchpath", "mode", "sweeper.params", "job.config_name"}) | frozenset(
    {"job.override_dirname", "job.num", "job.id"}
)
"""Of Hydra's node: what tells of this very command, and the sweep that a file may ask for."""

NOT_SWEPT = ("hydra", "paths", "allow_targets", *COMMANDS, *KEYS)
"""Settings that a sweep in a file from elsewhere may not give."""


def is_about_places(override: Override) -> bool:
    """Whether an override sets something of Hydra's own or the places of outputs."""
    return override.key_or_group.split(".")[0].split("/")[0].split("@")[0] in ("hydra", "paths")


def check_hydra_is_ours(config: DictConfig, trusted: DictConfig) -> None:
    """Refuse a configuration whose Hydra node is another than the project's with the typed overrides.

    Raises:
        UserError: naming the first key that differs, and a sweep over what only the command line may say.
    """
    ours, theirs = (OmegaConf.to_container(node.hydra, resolve=False) for node in (trusted, config))
    for path, value in _differences(theirs, ours):
        given = "" if value is _ABSENT else f"={value!s:.80}"
        raise UserError(
            f"hydra.{path}{given} is not allowed: it comes from a configuration file from elsewhere, and Hydra's own "
            "settings say where a run writes and what it starts; expected the project's: take them with "
            f"`- hydra: default` in the defaults list, or say hydra.{path}=VALUE on the command line."
        )
    parameters = (theirs.get("sweeper") or {}).get("params") if isinstance(theirs, dict) else None
    for key, value in (parameters or {}).items():
        name = str(key).lstrip("+~")
        if name.split(".")[0].split("/")[0].split("@")[0] in NOT_SWEPT or "${" in f"{key}{value}":
            raise UserError(
                f"hydra.sweeper.params: a configuration file from elsewhere sweeps over {name}={value!s:.80}; expected "
                "settings of the run as values: sweep over it on the command line, with -m."
            )


def places(config: DictConfig, trusted: DictConfig, typed: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Places that a file from elsewhere names: key under `paths` → (the file's, the one to use)."""
    check_growth(config)
    theirs = OmegaConf.to_container(config, resolve=False).get("paths")  # type: ignore[union-attr]
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in plain(trusted.paths if "paths" in trusted else {}).items():
        asked = theirs.get(key) if isinstance(theirs, Mapping) else theirs
        if isinstance(asked, str) and "${" in asked:
            asked = OmegaConf.select(config, f"paths.{key}", throw_on_resolution_failure=False)
        if f"paths.{key}" not in typed and asked != value:
            found[key] = (asked, value)
    return found


def check_names(values: Mapping[str, Any]) -> None:
    """Check the names that become parts of paths: of methods, evaluations, callbacks, loggers, model and data.

    Raises:
        UserError: naming the name.
    """
    for group in ("method", "evaluation", "callbacks", "logger"):
        for name in values.get(group) or {}:
            check_name(name, f"{group}.{str(name)[:80]}")
    for group in ("model", "data"):
        name = (values.get(group) or {}).get("name")
        if isinstance(name, str):
            check_name(name.replace("/", "-") if group == "data" else name, f"{group}.name={name[:80]!r}")
    test = (values.get("data") or {}).get("test")
    if isinstance(test, str):
        check_name(test.replace("/", "-"), f"data.test={test[:80]!r}")


_ABSENT = object()


def _differences(theirs: Any, ours: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if path in CHANGING or (theirs == ours and type(theirs) is type(ours)):
        return
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in {**ours, **theirs}:
            yield from _differences(theirs.get(key, _ABSENT), ours.get(key, _ABSENT), join(path, str(key)))
        return
    yield path, theirs
