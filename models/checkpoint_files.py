"""Contents of a checkpoint's folder: whole weights, in safetensors or tensors of a pickle, and nothing outside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers.utils import (
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from twinlens.attribution.errors import UserError
from twinlens.models.given_models import is_given
from twinlens.models.pickled_weights import require_tensors

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


def require_weights(path: str, folder: Path | None = None) -> list[Path]:
    """Refuse a directory whose weights are cut off, hold code or are not there.

    Safetensors are read where there are any, of which only headers are read here. Else `pytorch_model.bin` is taken,
    whole or in the parts that its index names, see `pickled_weights.py`; never another pickle.

    Args:
        path: directory or hub id, as in `model.path`.
        folder: where the hub's files lie, once they are fetched.

    Returns:
        The pickles that the weights are read from; none for safetensors, for a hub id, and where a caller's model
        stands for them (`given_models.py`).

    Raises:
        UserError: naming the file.
    """
    folder = Path(resolve(path)) if folder is None else folder
    if not folder.is_dir() or is_given(path):
        return []
    files = sorted({*folder.glob("*.safetensors"), *_indexed_files(folder, path, SAFE_WEIGHTS_INDEX_NAME)})
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
        return []
    pickles = pickled_files(folder, path)
    require_tensors(pickles, path)
    if pickles:
        return pickles
    others = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if others:
        raise UserError(
            f"model.path={path} holds its weights in {others[0]}, a pickle, which can run any code when it is opened; "
            f"expected model.safetensors, or {WEIGHTS_NAME}, of which tensors alone are taken: convert it where you "
            "trust it, with save_pretrained of transformers."
        )
    raise UserError(f"model.path={path} has no weights; expected model.safetensors: check model.path.")


def pickled_files(folder: Path, path: str) -> list[Path]:
    """`pytorch_model.bin`, or the parts that its index names; none where safetensors or neither lie there."""
    if any(folder.glob("*.safetensors")) or (folder / SAFE_WEIGHTS_INDEX_NAME).is_file():
        return []
    whole = folder / WEIGHTS_NAME
    return [whole] if whole.is_file() else _indexed_files(folder, path, WEIGHTS_INDEX_NAME)


def _told_of_pickles(files: Sequence[Path]) -> str:
    """How weights are taken from pickles, empty where they are not."""
    if not files:
        return ""
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    size = sum(file.stat().st_size for file in files) / 1024**2
    return (
        f"read from {files[0].name}{more}, a pickle of {size:.4g} MiB, of which tensors alone are taken "
        "(torch.load with weights_only=True); what is stored is safetensors"
    )


def weights_place(path: str, trust_remote_code: bool) -> tuple[str, bool | None, str]:
    """Where `from_pretrained` reads a checkpoint's weights: a folder or hub id, whether safetensors are read (None:
    either, as the checkpoint's code is trusted), and how pickles are read instead (empty: none is).

    Of a hub's repository without safetensors, the pickles are fetched into the hub's cache and read from there, so that
    they are checked before and nobody is asked to convert them.

    Raises:
        UserError: see `require_weights`.
    """
    place = resolve(path)
    if trust_remote_code:
        return place, None, ""
    if Path(place).is_dir():
        pickles = require_weights(path)
        return place, not pickles, _told_of_pickles(pickles)
    with readable(path):
        snapshot = _fetched_pickles(place)
    if snapshot is None:
        return place, True, ""
    return str(snapshot), False, _told_of_pickles(require_weights(path, snapshot))


def _fetched_pickles(repository: str) -> Path | None:
    """The folder of the hub's cache with the pickles of a repository; None for one with safetensors, which are fetched,
    or without either."""

    def fetched(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError:  # there or here: without a connection, the cache is all there is
            return None

    if fetched(SAFE_WEIGHTS_NAME) or fetched(SAFE_WEIGHTS_INDEX_NAME):
        return None
    found = fetched(WEIGHTS_NAME)
    if found is None:
        found = fetched(WEIGHTS_INDEX_NAME)
        for file in () if found is None else _indexed_files(found.parent, repository, WEIGHTS_INDEX_NAME):
            hf_hub_download(repository, file.name)
    if found is None:
        raise UserError(
            f"model.path={repository} has neither {SAFE_WEIGHTS_NAME} nor {WEIGHTS_NAME} on the hub or, without a "
            "connection, in its cache; expected weights in one of these: set model.path=DIR."
        )
    fetched(GENERATION_CONFIG_NAME)  # read beside the weights by a language model
    return found.parent


def _indexed_files(folder: Path, path: str, name: str) -> list[Path]:
    """Files that a sharded checkpoint's index names; each must lie in the checkpoint's own folder."""
    index, kind = folder / name, Path(name.removesuffix(".index.json")).suffix
    if not index.is_file():
        return []
    try:
        names = sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model.path={path}: {index.name} cannot be read ({type(error).__name__}); expected a JSON object with a "
            "weight_map from names to files: copy or download it again."
        ) from error
    wrong = [file for file in names if Path(file).name != file or not file.endswith(kind)]
    if wrong:
        raise UserError(
            f"model.path={path}: {index.name} names {wrong[0]}, expected {kind[1:]} files of the same folder: mend "
            "the index, or get the checkpoint from where you trust it."
        )
    return [folder / file for file in names]


def refuse_missing_folder(path: str) -> None:
    """Refuse what can only be a folder, no hub id, and is not there."""
    if not may_be_hub_id(path) and not Path(resolve(path)).is_dir():
        raise UserError(
            f"model.path={path} cannot be loaded: there is no such folder; expected a directory with config.json, "
            "model.safetensors and tokenizer.json: set model.path=DIR."
        )


def first_words(error: Exception) -> str:
    """The first line of what a library says, with the second one where the first only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:200]
    return f"it names {said}, which there is not" if isinstance(error, KeyError) else said


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
                    "by itself: if you trust its code, say model.trust_remote_code=true on the command line; its parts "
                    "are then found and checked as of any other model."
                ) from error
            if "does not support an attention implementation" in str(error):
                raise UserError(
                    f"model.path={self.path} is of an architecture that does not support the attention that "
                    "model.attention names; expected one that it does: set model.attention=eager."
                ) from error
            reason = first_words(error)
            raise UserError(
                f"model.path={self.path} cannot be loaded ({reason}); expected a directory with config.json, "
                "model.safetensors and tokenizer.json, or a hub id that this machine can reach: set model.path=DIR."
            ) from error
