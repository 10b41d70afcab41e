"""Contents of a checkpoint's folder: safetensors only, whole, and nothing outside the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from twinlens.attribution.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5"})
"""Suffixes of weights in other formats, most of which run code when they are opened."""


def resolve(path: str) -> str:
    """A local directory, relative to the working directory or to the project, or else the hub id as given."""
    for candidate in (Path(path).expanduser(), PROJECT / path):
        if candidate.is_dir():
            return str(candidate)
    return path


def may_be_hub_id(path: str) -> bool:
    """Whether a path that is no folder can be the name of a repository (`owner/name`), not only a folder's."""
    return not path.startswith((".", "~", "/")) and path.count("/") <= 1


def require_safetensors(path: str) -> None:
    """Refuse a directory whose weights are a pickle, are cut off, or are not there; reads headers only.

    Raises:
        UserError: naming the file. A hub id passes: only its safetensors files are ever fetched.
    """
    folder = Path(resolve(path))
    if not folder.is_dir():
        return
    files = sorted({*folder.glob("*.safetensors"), *_indexed_files(folder, path)})
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"model.path={path}: {file.name} is truncated or altered ({error}); expected a whole safetensors file: "
                "copy or download it again."
            ) from error
    if files:
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise UserError(
            f"model.path={path} holds its weights in {pickles[0]}, a pickle, which can run any code when it is opened; "
            "expected model.safetensors: convert it where you trust it, with save_pretrained of transformers."
        )
    raise UserError(f"model.path={path} has no weights; expected model.safetensors: check model.path.")


def _indexed_files(folder: Path, path: str) -> list[Path]:
    """Files that a sharded checkpoint's index names; each must lie in the checkpoint's own folder."""
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        return []
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model.path={path}: {index.name} cannot be read ({type(error).__name__}); expected a JSON object with a "
            "weight_map from names to files: copy or download it again."
        ) from error
    wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if wrong:
        raise UserError(
            f"model.path={path}: {index.name} names {wrong[0]}, expected safetensors files of the same folder: mend "
            "the index, or get the checkpoint from where you trust it."
        )
    return [folder / name for name in names]


def refuse_missing_folder(path: str) -> None:
    """Refuse what can only be a folder, no hub id, and is not there."""
    if not may_be_hub_id(path) and not Path(resolve(path)).is_dir():
        raise UserError(
            f"model.path={path} cannot be loaded: there is no such folder; expected a directory with config.json, "
            "model.safetensors and tokenizer.json: set model.path=DIR."
        )


class readable:
    """Turn what the loading library raises for unreadable checkpoints into one sentence."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # A checkpoint from anywhere can be wrong in any way, and the library has an exception for each.
        passed_on = (UserError, MemoryError, torch.OutOfMemoryError)
        if isinstance(error, Exception) and not isinstance(error, passed_on):
            if "trust_remote_code" in str(error) or "contains custom code" in str(error):
                raise UserError(
                    f"model.path={self.path} asks to run code that comes with it; expected one that transformers reads "
                    "by itself: if you trust its code, say model.trust_remote_code=true on the command line."
                ) from error
            if "does not support an attention implementation" in str(error):
                raise UserError(
                    f"model.path={self.path} is of an architecture that does not support the attention that "
                    "model.attention names; expected one that it does: set model.attention=eager."
                ) from error
            reason = (str(error) or type(error).__name__).strip().split("\n")[0][:200]
            raise UserError(
                f"model.path={self.path} cannot be loaded ({reason}); expected a directory with config.json, "
                "model.safetensors and tokenizer.json, or a hub id that this machine can reach: set model.path=DIR."
            ) from error
