"""Types in which the weights of a language model are read: float32, bfloat16, or the checkpoint's own.

A head that a fit trains is float32 beside weights in bfloat16: a step of AdamW is smaller than what bfloat16 tells
apart (8 bits), so that it would round to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PretrainedConfig

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import base_path
from twinlens.models.checkpoint_files import resolve
from twinlens.models.encoders import reads_first

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What `model.dtype` may say, beside `auto`."""
IN_FLOAT32, AS_IT_IS = "set model.dtype=float32 trainer.precision=bf16-mixed", "fit=false for a trained model"
WORKS_INSTEAD = f"{IN_FLOAT32}, or model.adapter=lora, or {AS_IT_IS}"
"""What can be done instead of training weights in bfloat16."""
IN_HEADERS = {"BF16": torch.bfloat16, "F32": torch.float32, "F16": torch.float16, "F64": torch.float64}
"""Names of types in the headers of safetensors."""


def check_dtype(dtype: str) -> None:
    """Refuse a type of weights that is none of ours.

    Raises:
        UserError: naming those that can be chosen.
    """
    if dtype not in (*TYPES, "auto"):
        raise UserError(
            f"model.dtype={dtype!s:.80} is no type that weights are read in; expected one of "
            f"{', '.join((*TYPES, 'auto'))}: choose one of those."
        )


def weight_type(dtype: str, config: PretrainedConfig | None, path: str | None) -> torch.dtype:
    """The type in which a model's weights are read.

    `auto` is the checkpoint's own where that is float32 or bfloat16, else float32: it holds every number of float16
    exactly, with which forwards of most models overflow. A model from scratch is float32.

    Args:
        dtype: a word of `model.dtype`.
        config: of the checkpoint; None: from scratch.
        path: of the checkpoint, whose headers are read where the configuration names no type.

    Raises:
        UserError: see `check_dtype`.
    """
    check_dtype(dtype)
    if dtype != "auto":
        return TYPES[dtype]
    own = None if config is None or path is None else own_type(config, path)
    return own if own is not None and own in TYPES.values() else torch.float32


def own_type(config: PretrainedConfig, path: str) -> torch.dtype | None:
    """The type that a checkpoint's config.json names, else that of its first weights; None: neither says one."""
    stated = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if isinstance(stated, torch.dtype):
        return stated
    if isinstance(stated, str):
        found = getattr(torch, stated.removeprefix("torch."), None)
        return found if isinstance(found, torch.dtype) else None
    for file in sorted(Path(resolve(base_path(path))).glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  (safe_open has no iteration of its own)
                    return IN_HEADERS.get(opened.get_slice(name).get_dtype())
        except (SafetensorError, OSError):  # told by whoever reads the weights
            return None
    return None


def told_type(dtype: str, config: PretrainedConfig | None, path: str | None) -> str:
    """One line about the type that `auto` has chosen; empty where the configuration says it."""
    if dtype != "auto":
        return ""
    if config is None or path is None:
        return "model.dtype=auto: a model from scratch, in float32"
    own, read = own_type(config, path), name_of(weight_type(dtype, config, path))
    if own is None:
        return f"model.dtype=auto: the checkpoint {path} names no type, read in {read}"
    if own in TYPES.values():
        return f"model.dtype=auto: read in {read}, the checkpoint's own type"
    return (
        f"model.dtype=auto: the checkpoint {path} is in {name_of(own)}, read in {read}; model.dtype=bfloat16 takes "
        "half of the memory and rounds each number to 8 bits"
    )


def name_of(dtype: torch.dtype) -> str:
    """`bfloat16` of `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


# -- a head in float32 -------------------------------------------------------------------------------------------------


@contextmanager
def reading_head_in_float32(config: PretrainedConfig, dtype: torch.dtype) -> Iterator[None]:
    """While it lasts, transformers reads a decoder's `score` in float32, with all digits that the checkpoint has."""
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if dtype == torch.float32 or kind is None:
        yield
        return
    name = "_keep_in_fp32_modules_strict"
    own = name in vars(kind)
    before = getattr(kind, name, None)
    setattr(kind, name, {*(before or ()), "score"})
    try:
        yield
    finally:
        if own:
            setattr(kind, name, before)
        else:
            delattr(kind, name)


def with_float32_head(lm: Any, dtype: torch.dtype) -> None:
    """Put a classifier's head over weights in another type than float32 into float32; it alone requires gradients, with
    the matrices of a kept adapter. An encoder's own head, which stands among its layers, stays in their type.

    Args:
        lm: changed in place.
        dtype: of the language model's weights.
    """
    if dtype == torch.float32 or reads_first(lm):
        return
    adapted = any(".lora_A." in name for name, _ in lm.named_parameters())
    if not adapted:
        lm.requires_grad_(False)
    lm.score.float().requires_grad_(True)
    lm.score.register_forward_pre_hook(_in_own_type)


def _in_own_type(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What enters a module, in the type of its own weights."""
    return args[0].to(next(module.parameters()).dtype), *args[1:]


def refuse_rounded_steps(lm: nn.Module) -> None:
    """Refuse an optimiser over weights that were read in bfloat16.

    Raises:
        UserError: naming the first such weight, with what can be trained instead.
    """
    for name, weight in lm.named_parameters():
        if weight.requires_grad and weight.dtype == torch.bfloat16:
            raise UserError(
                f"the fit would train {name} in bfloat16 (model.dtype), whose 8 bits round most steps of AdamW to "
                f"nothing; expected weights in float32, or float32 matrices beside them: {WORKS_INSTEAD}."
            )
