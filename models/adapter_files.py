"""Reader of a PEFT adapter's folder: the base it changes, how, and whether it brings a head. Needs no PEFT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from twinlens.attribution.errors import UserError
from twinlens.models.checkpoint_files import may_be_hub_id, resolve

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base"
"""Folder of the base inside an adapter's, where this project saves adapters that it keeps as modules."""
PREFIX = "base_model.model."
"""What PEFT writes before the names of a model's parts."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder.

    Attributes:
        path: `model.path` as given.
        folder: where it lies.
        base: directory or hub id of the checkpoint that it changes.
        kind: PEFT's name of its kind, LORA and others.
        shapes: of its weights, by PEFT's names.
    """

    path: str
    folder: Path
    base: str
    kind: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def n_outputs(self) -> int | None:
        """Classes of the classification head that was trained with it; None where there is none."""
        shape = self.shapes.get(f"{PREFIX}score.weight")
        return None if shape is None else shape[0]

    @property
    def has_base_on_hub(self) -> bool:
        return not Path(self.base).is_dir()


def adapter_of(path: str) -> Adapter | None:
    """The adapter in a local folder; None for everything else. Reads settings and the weights' header.

    Raises:
        UserError: unreadable settings or weights, settings that ask to run code, or a base that is not there.
    """
    folder = Path(resolve(path))
    if not is_adapter(folder):
        return None
    try:
        settings: Any = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        named, kind = str(settings["base_model_name_or_path"] or ""), str(settings["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"model.path={path}: {SETTINGS} cannot be read ({type(error).__name__}); expected a JSON object with "
            "peft_type and base_model_name_or_path, as save_pretrained of PEFT writes it: save the adapter again."
        ) from error
    if settings.get("megatron_config"):
        raise UserError(
            f"model.path={path}: {SETTINGS} asks PEFT to import the module '{settings.get('megatron_core')}', which "
            "can run any code; expected an adapter of transformers' own layers: remove megatron_config there."
        )
    return Adapter(path, folder, _base_of(path, folder, named), kind, _shapes(path, folder))


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of a whole model beside it."""
    return (folder / SETTINGS).is_file() and not any(folder.glob("model*.safetensors"))


def base_path(path: str) -> str:
    """The checkpoint that a path leads to: an adapter's base, or the path itself."""
    adapter = adapter_of(path)
    return path if adapter is None else adapter.base


def local_base(folder: Path) -> Path | None:
    """The folder of an adapter's base, None for a base on the hub and for a folder that is no adapter's."""
    adapter = adapter_of(str(folder))
    return None if adapter is None or adapter.has_base_on_hub else Path(adapter.base)


@contextmanager
def naming_adapter(adapter: Adapter) -> Iterator[None]:
    """Say of a base that cannot be read which adapter asks for it.

    Raises:
        UserError: naming both.
    """
    try:
        yield
    except UserError as error:
        reason = str(error.__cause__ or error).strip().split("\n")[0][:200]
        raise UserError(
            f"the adapter in model.path={adapter.path} changes the base {adapter.base}, which cannot be loaded "
            f"({reason}); expected a directory with config.json and model.safetensors, or a hub id that this machine "
            f"can reach: correct base_model_name_or_path in its {SETTINGS}."
        ) from error


def _base_of(path: str, folder: Path, named: str) -> str:
    candidates = (folder / named, Path(resolve(named)))
    found = next((str(candidate) for candidate in candidates if named and candidate.is_dir()), None)
    if found is None and not (named and may_be_hub_id(named)):
        raise UserError(
            f"the adapter in model.path={path} changes the base '{named}', which is no folder here; expected one "
            f"relative to the adapter's folder or to the working directory, or a hub id: correct "
            f"base_model_name_or_path in its {SETTINGS}."
        )
    if found is not None and is_adapter(Path(found)):
        raise UserError(
            f"the adapter in model.path={path} changes the base '{named}', which is an adapter itself; expected a "
            "whole checkpoint: merge that one first (merge_and_unload of PEFT) and name the result as the base."
        )
    return named if found is None else found


def _shapes(path: str, folder: Path) -> dict[str, tuple[int, ...]]:
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"the adapter in model.path={path} has no {WEIGHTS}; expected its weights in that file (never in a pickle "
            "such as adapter_model.bin): save it with save_pretrained of PEFT."
        )
    try:
        with safe_open(folder / WEIGHTS, "pt") as opened:
            names = opened.keys()
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"model.path={path}: {WEIGHTS} is truncated or altered ({error}); expected a whole safetensors file: "
            "copy or download it again."
        ) from error
