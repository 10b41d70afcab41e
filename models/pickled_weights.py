"""Weights in a pickle (`pytorch_model.bin`): tensors alone are taken, from files that hold no more than they say.

`torch.load(weights_only=True)` builds tensors and plain containers and runs no code. What it leaves open is size: a
compressed file, or a tensor that repeats a small one, can ask for far more memory than the file has bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError

ZIP = b"PK\x03\x04"


def require_tensors(files: Sequence[Path], path: str) -> None:
    """Refuse pickles that hold anything but weights, are damaged, or would take more memory than there is.

    Args:
        files: of one checkpoint.
        path: of the checkpoint, for messages.

    Raises:
        UserError: naming the file.
    """
    stored, there = sum(file.stat().st_size for file in files if file.is_file()), psutil.virtual_memory().total
    if stored > there:
        raise UserError(
            f"model.path={path} holds {stored / 1024**3:.3g} GiB of weights in {files[0].name}, a pickle, and this "
            f"machine has {there / 1024**3:.3g} GiB of memory; expected a model that fits: choose a smaller one."
        )
    for file in files:
        _require_tensors(file, path)


def _require_tensors(file: Path, path: str) -> None:
    if not file.is_file():
        raise UserError(
            f"model.path={path}: {file.name}, which the index of weights names, does not exist; expected all files of "
            "the checkpoint: copy or download it again."
        )
    zipped = _is_zip(file)
    if zipped:
        _refuse_compressed(file, path)
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a file from anywhere can be wrong in any way
        reason = (str(error) or type(error).__name__).strip()
        if type(error).__name__ == "UnpicklingError" and "nsupported" in reason:
            raise UserError(
                f"model.path={path}: {file.name} is a pickle that asks for more than tensors, which can run any code; "
                "expected weights alone, or model.safetensors: get the checkpoint from where you trust it, or convert "
                "it there with save_pretrained of transformers."
            ) from error
        raise _damaged(file, path, f"{type(error).__name__}") from error
    wrong = _no_weight(found)
    if wrong is not None:
        raise UserError(
            f"model.path={path}: {file.name} is a pickle that holds {wrong}; expected tensors by their names, as "
            "state_dict() of a transformers model has them: save them so, or as model.safetensors."
        )


def _no_weight(found: Any) -> str | None:
    """What a pickle holds that is no tensor of its own bytes by its name; None where there is no such thing."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"{name!s:.80}, a {type(value).__name__}"
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            return f"{name:.80} of shape {list(value.shape)}, which is more than is stored of it"
    return None


def _is_zip(file: Path) -> bool:
    """Whether torch reads the file as an archive, by its first bytes; before 1.6 it wrote another format."""
    with file.open("rb") as opened:
        return opened.read(len(ZIP)) == ZIP


def _refuse_compressed(file: Path, path: str) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(file, path, type(error).__name__) from error
    compressed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if compressed or sum(part.file_size for part in parts) > file.stat().st_size:
        raise UserError(
            f"model.path={path}: {file.name} is a compressed pickle, which can grow beyond any memory; expected one as "
            "torch.save writes it, uncompressed: save it again, or as model.safetensors."
        )


def _damaged(file: Path, path: str, reason: str) -> UserError:
    return UserError(
        f"model.path={path}: {file.name} is truncated or altered, or no pickle of torch.save ({reason}); expected a "
        "whole file of weights: copy or download it again."
    )
