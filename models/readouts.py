"""Scale and cap that a model puts on its last linear layer's scores: found in one forward, then checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.models.encoders import reads_first

LOW, HIGH = 1e-2, 99.0
"""Scores between which a scale and a cap show, whatever the weights are."""


@dataclass(frozen=True)
class ReadoutChange:
    """Logits as `cap · tanh(scale · scores(entering · hidden) / cap)`.

    Attributes:
        entering: factor of the hidden state.
        scale: factor of the scores.
        cap: bound of the logits; None: there is none.
    """

    entering: float = 1.0
    scale: float = 1.0
    cap: float | None = None

    @property
    def factor(self) -> float:
        """Of the linear layer's weight, where there is no cap."""
        return self.entering * self.scale

    def behind(self, scores: Tensor) -> Tensor:
        """Logits of the last linear layer's scores."""
        scores = scores if self.scale == 1 else scores * self.scale
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def of(self, head: nn.Module) -> nn.Module:
        """The whole readout; the head itself where nothing is changed."""
        return head if self == ReadoutChange() else ChangedReadout(head, self)


class ChangedReadout(nn.Module):
    """A linear readout with a scale or a cap: [..., width] → [..., outputs].

    Args:
        linear: the last linear layer.
        change: what is done before and behind it.
    """

    def __init__(self, linear: Any, change: ReadoutChange) -> None:
        super().__init__()
        self.linear = linear
        self.change = change
        self.out_features = int(linear.out_features)

    def forward(self, features: Tensor) -> Tensor:
        entering = features if self.change.entering == 1 else features * self.change.entering
        return self.change.behind(self.linear(entering))


def linear_readout(readout: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight [outputs, width] and bias of a readout with its scale in them; weight None: it is not linear."""
    change = ReadoutChange()
    if isinstance(readout, ChangedReadout):
        readout, change = readout.linear, readout.change
    if not isinstance(readout, nn.Linear) or change.cap is not None:
        return None, None
    weight, bias = readout.weight.detach(), None if readout.bias is None else readout.bias.detach()
    if change.factor != 1:
        weight = weight * change.factor
    return weight, bias if bias is None or change.scale == 1 else bias * change.scale


@torch.no_grad()
def readout_change(lm: Any, head: nn.Module, path: str | None) -> ReadoutChange:
    """What a model does before and behind its last linear layer.

    The layer's scores are replaced by a wide range of numbers in one forward over three tokens, so that a scale and a
    cap show whatever the weights are; what is found must then give all of the model's own logits.

    Raises:
        UserError: naming the model and what changes its logits in another way.
    """
    seen: dict[str, Tensor] = {}

    def read_hidden(module: nn.Module, args: Any, output: Any) -> None:
        seen["hidden"] = output[0]

    def widen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["input"] = args[0]
        half = torch.logspace(0, 1, output.numel() // 2 + 1, HIGH / LOW, dtype=torch.float64, device=output.device)
        both = torch.cat([half, -half])[: output.numel()] * LOW
        seen["scores"] = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))].view_as(output)
        # of 16 bits in float32, in which what comes behind then runs too: else a scale would show three digits
        seen["scores"] = seen["scores"].to(output.device, torch.promote_types(output.dtype, torch.float32))
        return seen["scores"]

    pad = getattr(lm.config.get_text_config(), "pad_token_id", None)
    token = next(number for number in range(3) if number != pad)
    ids = torch.full((1, 3), token, device=next(lm.parameters()).device)
    # OPT's language model calls its decoder, past the module that wraps it
    stacks = list(dict.fromkeys([lm.base_model, lm.get_decoder()]))
    training, handles = lm.training, [stack.register_forward_hook(read_hidden) for stack in stacks]
    handles.append(head.register_forward_hook(widen))
    lm.eval()
    try:
        logits = lm(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    finally:
        lm.train(training)
        for handle in handles:
            handle.remove()
    if {"hidden", "input", "scores"} <= set(seen):
        scores = seen["scores"] if logits.dim() == 3 else seen["scores"][:, -1]
        found = _change(scores, logits) if logits.shape == scores.shape else None
        entering = _factor(seen["hidden"], seen["input"])
        if found is not None and entering is not None:
            return ReadoutChange(entering, *found)
    raise UserError(
        f"model.path={path} is of type {lm.config.model_type}, whose logits are not the last linear layer's scores of "
        "the final hidden state, times a number and below a cap, but changed in another way, so that probabilities "
        "read there would be wrong; expected no more than a scale and a cap: choose another model."
    )


def require_plain_readout(lm: Any, head: nn.Module, path: str | None) -> None:
    """Refuse a classifier whose own logits are not its head's scores of the final hidden state.

    Raises:
        UserError: naming the model.
    """
    if reads_first(lm):  # what an encoder's head consists of was compared with its logits
        return
    if readout_change(lm, head, path) != ReadoutChange():
        raise UserError(
            f"model.path={path} is of type {lm.config.model_type}, whose logits are its classification head's scores "
            "with a scale or a cap, so that probabilities read there would be wrong; expected a plain head: choose "
            "another model."
        )


def _factor(before: Tensor, after: Tensor) -> float | None:
    """The number that one tensor is multiplied with to give another; None: there is none."""
    before = before.to(after.dtype)  # a head in float32 widens what it reads
    # hidden states that are not finite are another fault, which whoever predicts tells
    if before.shape != after.shape or torch.allclose(before, after, rtol=0, atol=0, equal_nan=True):
        return 1.0 if before.shape == after.shape else None
    factor = float((before.double() * after.double()).sum() / before.double().pow(2).sum())
    rounding = max(1e-4, 2 * torch.finfo(after.dtype).eps)
    return factor if torch.allclose(before * factor, after, rtol=rounding, atol=1e-6) else None


def _change(scores: Tensor, logits: Tensor) -> tuple[float, float | None] | None:
    """Scale and cap that give logits of scores; None: there are none."""
    wide, found = scores.double().flatten(), logits.double().flatten()
    small, large = wide.abs().argmin(), wide.abs().argmax()
    scale = float(found[small] / wide[small])
    top = float(found[large].abs())
    if scale == 0:
        return None
    candidates: list[tuple[float, float | None]] = [(round_number(scale), None)]
    if top < abs(scale) * HIGH * 0.999:
        found_cap = round_number(_cap(abs(scale) * float(wide[large].abs()), top))
        candidates.append((round_number(scale), found_cap))
    for factor, cap in candidates:
        if torch.allclose(ReadoutChange(1.0, factor, cap).behind(wide), found, rtol=1e-4, atol=1e-6):
            return factor, cap
    return None


def _cap(score: float, top: float) -> float:
    """The cap under which a score gives `top`: cap · tanh(score / cap) grows with the cap."""
    low, high = torch.tensor(top, dtype=torch.float64), torch.tensor(1e6, dtype=torch.float64)
    for _ in range(200):
        middle = (low + high) / 2
        below = middle * torch.tanh(score / middle) < top
        low, high = (middle, high) if below else (low, middle)
    return float(high)


def round_number(number: float) -> float:
    """A number as it was written, of one that was multiplied with and divided by in single precision."""
    short = float(f"{number:.5g}")
    return short if abs(short - number) < 3e-6 * abs(number) else number
