"""Classification heads: transformers' own linear map, or two layers; which one a checkpoint has, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import nn
from transformers import PretrainedConfig

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import BASE, PREFIX, base_path, is_adapter
from twinlens.models.checkpoint_files import resolve

HeadKind = Literal["linear", "mlp"]
HEAD_ENTRY = "twinlens_head"
"""Entry of config.json that says how the head is shaped; absent means transformers' own linear `score`."""


class MlpHead(nn.Sequential):
    """Linear – tanh – Linear over the hidden state, both with bias: [..., hidden] → [..., classes]."""

    def __init__(self, hidden_size: int, n_classes: int) -> None:
        super().__init__(nn.Linear(hidden_size, hidden_size), nn.Tanh(), nn.Linear(hidden_size, n_classes))


def head_of(config: PretrainedConfig) -> HeadKind | None:
    """The kind of classification head a checkpoint was saved with, None where it has none."""
    names = config.architectures or []
    if not any("ForSequenceClassification" in name for name in names):
        return None
    kind = getattr(config, HEAD_ENTRY, "linear")
    if kind != "linear" and kind != "mlp":
        raise UserError(
            f"config.json says {HEAD_ENTRY}={kind!r}, expected mlp, or no such entry for a linear head: mend "
            "config.json as it was saved."
        )
    return kind  # type: ignore[return-value]  # narrowed above


def load_head(head: MlpHead, path: str) -> None:
    """Put a trained head of two layers in.

    Raises:
        UserError: naming the first weight that it lacks, has beside these or has in another shape.
    """
    found, own = head_weights(Path(resolve(base_path(path)))), head.state_dict()
    for name in sorted({*found, *own}):
        shapes = [list(weights[name].shape) if name in weights else None for weights in (found, own)]
        if shapes[0] != shapes[1]:
            has = "no such weight" if shapes[0] is None else f"one of {shapes[0]}"
            wanted = "none" if shapes[1] is None else str(shapes[1])
            raise UserError(
                f"the head in model.path={path} is of two layers ({HEAD_ENTRY}: mlp in config.json), of which "
                f"score.{name} should be {wanted}, but the checkpoint holds {has}; expected the head as it was "
                "saved: copy or save "
                "the checkpoint again."
            )
    head.load_state_dict(found)


def head_weights(folder: Path, names: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """Weights of a head in a checkpoint's safetensors files, by their names within it.

    Args:
        folder: of the checkpoint.
        names: within the head → within the checkpoint; None: they stand under `score.`. Of an adapter that was saved
            here it lies in its base, of another one among the adapter's own weights.
    """
    within = None if names is None else {full: own for own, full in names.items()}
    weights = {}
    place = folder / BASE if is_adapter(folder) and (folder / BASE).is_dir() else folder
    for file in sorted(place.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (safe_open has no iteration of its own)
                if within is not None:
                    if name in within:
                        weights[within[name]] = opened.get_tensor(name)
                elif (own := name.removeprefix(PREFIX)).startswith("score."):
                    weights[own.removeprefix("score.")] = opened.get_tensor(name)
    return weights
