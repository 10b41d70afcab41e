"""Weights of a checkpoint against the model that its config.json describes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.models.encoders import new_in_a_fit, reads_first

HEAD = "score."
"""What the names of a classification head's weights begin with."""
BUFFER = re.compile(r"(^|\.)(attn\.bias|attention\.bias|masked_bias|inv_freq)$")
"""Masks and frequencies that older checkpoints hold and models compute."""


@dataclass(frozen=True)
class Origin:
    """Where a model's weights come from, beside those that its checkpoint brought.

    Attributes:
        new: what was drawn, each with its shape.
        unused: names of weights that the checkpoint has for other tasks.
        read: how they are taken, where that is not from safetensors.
    """

    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    read: str = ""

    def told(self, path: str) -> str:
        """One line about the weights of the checkpoint in `path`."""
        new = f"new are {', '.join(self.new)}" if self.new else "none is new"
        more = f" and {len(self.unused) - 3} more" if len(self.unused) > 3 else ""
        left = f"; not used: {', '.join(self.unused[:3])}{more}" if self.unused else ""
        read = f"; {self.read}" if self.read else ""
        return f"weights: {path}; {new}{left}{read}"


def fitting_weights(
    info: Mapping[str, Any], lm: Any, path: str, as_it_is: bool, brought: Collection[str] = ()
) -> Origin:
    """Refuse weights that are missing, have another shape or no place, or are no numbers; the head alone may be new,
    for a fit.

    Args:
        info: what `from_pretrained` found, with sizes that differ ignored.
        lm: the loaded model.
        path: of the checkpoint, for messages.
        as_it_is: nothing is trained, so that a new head would be a random one.
        brought: names of weights that come from elsewhere, an adapter.

    Raises:
        UserError: naming the first such weight, with both shapes where it has two.
    """
    missing = sorted(set(info["missing_keys"]) - set(brought))
    mismatched = {name: (old, new) for name, old, new in sorted(info["mismatched_keys"]) if name not in brought}
    head = new_in_a_fit(lm) if reads_first(lm) else ()
    new = [] if as_it_is else [name for name in (*missing, *mismatched) if name.startswith(HEAD) or name in head]
    _refuse_missing([name for name in missing if name not in new], lm, path, as_it_is)
    for name, (old, own) in mismatched.items():
        if name not in new:
            raise UserError(
                f"the checkpoint {path} holds {name} as {list(old)}, but its config.json describes {list(own)}; "
                f"expected one shape{_why(as_it_is)}: get config.json and weights of the same model."
            )
    unused = sorted(name for name in info["unexpected_keys"] if not BUFFER.search(name))
    _refuse_unexpected(unused, lm, path, as_it_is)
    refuse_odd_numbers(lm.named_parameters(), f"the checkpoint {path}")
    shapes = {name: list(weight.shape) for name, weight in lm.state_dict().items()}
    told = (f" (the checkpoint's is {list(mismatched[name][0])})" if name in mismatched else "" for name in new)
    return Origin(tuple(f"{name} {shapes[name]}{old}" for name, old in zip(new, told, strict=True)), tuple(unused))


def refuse_odd_numbers(named: Iterable[tuple[str, Tensor]], source: str) -> None:
    """Refuse weights that are NaN or infinite: whatever they reach is no number either, and a fit ends in NaN.

    Args:
        named: weights by name, on a device or without values.
        source: of them, for the message.

    Raises:
        UserError: naming the first such weight and how many of its numbers are none.
    """
    for name, weight in named:
        without_values = weight.is_meta or weight.numel() == 0 or not weight.is_floating_point()
        if not without_values and not all(map(isfinite, torch.aminmax(weight.detach()))):
            odd = int((~torch.isfinite(weight.detach())).sum())
            raise UserError(
                f"{source} holds NaN or infinite numbers in {name} ({odd} of {weight.numel()}); expected finite ones: "
                "get the checkpoint again, or save it in float32 if it has been turned into float16."
            )


def _refuse_missing(missing: Sequence[str], lm: Any, path: str, as_it_is: bool) -> None:
    if not missing:
        return
    first = f"{missing[0]} {list(lm.state_dict()[missing[0]].shape)}"
    head = new_in_a_fit(lm) if reads_first(lm) else ()
    only_head = all(name.startswith(HEAD) or name in head for name in missing)
    raise UserError(
        f"the checkpoint {path} lacks {len(missing)} weights of a {lm.config.model_type} model (first: {first}); "
        f"expected a complete checkpoint of that architecture{_why(as_it_is)}: "
        + ("train a head first (fit=true) or check model.path." if only_head else "check model.path.")
    )


def _refuse_unexpected(unexpected: Sequence[str], lm: Any, path: str, as_it_is: bool) -> None:
    """Weights without a place: those of the language model always, those of a classification head as it is.

    Heads for other tasks (`lm_head`) lie outside of what is read.
    """
    backbone = lm.base_model
    parts = {name for name, _ in backbone.named_children()} | {name for name, _ in backbone.named_parameters("", False)}
    inside = [name for name in unexpected if name.removeprefix(f"{lm.base_model_prefix}.").split(".")[0] in parts]
    head = [name for name in unexpected if name.split(".")[0] in ("score", "classifier", "classification_head")]
    refused = [*inside, *(head if as_it_is else [])]
    if refused:
        raise UserError(
            f"the checkpoint {path} holds {len(refused)} weights that the {lm.config.model_type} model of its "
            f"config.json has no place for (first: {refused[0]}); expected those of one model{_why(as_it_is)}: get "
            "config.json and weights of the same model."
        )


def _why(as_it_is: bool) -> str:
    return ", since no weight is drawn anew" if as_it_is else ""


def with_padding(lm: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Give the padding token an embedding where it has none, so that saved models read padded batches; nobody else's
    row is new: ids beyond the vocabulary are refused in the data."""
    new: tuple[str, ...] = ()
    if tokenizer.pad_token_id is None:  # a plan's model of random weights, whose tokenizer is left alone
        return new
    if tokenizer.pad_token_id >= lm.get_input_embeddings().num_embeddings:
        new = (f"row {tokenizer.pad_token_id} of the token embedding (padding, which is masked)",)
        lm.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
    lm.config.pad_token_id = tokenizer.pad_token_id  # only now: the id may lie beyond the checkpoint's vocabulary
    return new


def of_head(found: Any) -> bool:
    """Whether what `from_pretrained` found concerns the head: a name, or a name with two shapes."""
    return (found if isinstance(found, str) else found[0]).startswith(HEAD)
