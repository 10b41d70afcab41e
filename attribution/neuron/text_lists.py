"""Neurons of whole texts: a list for every token that has a loss, as the next token behind those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.completions import padded
from twinlens.attribution.protocols import Batch


@dataclass(frozen=True)
class NextToken:
    """A token of a text that has a loss.

    Attributes:
        row: of the text in the batch.
        before: ids that stand before it in its window, one at least.
        target: its own id.
        position: in its text, of the token before it, at which the model says it; padding does not count.

    Example:
        >>> from twinlens.attribution.neuron.text_lists import NextToken
        >>> token = NextToken(row=0, before=[5, 6], target=7, position=1)  # the third token of the first text
        >>> len(token.before)
        2
    """

    row: int
    before: list[int]
    target: int
    position: int


def next_tokens(batch: Batch) -> list[NextToken]:
    """Every token of a batch of texts that has a loss, text by text, in their order.

    Args:
        batch: `input_ids` and `attention_mask` [texts, tokens]; `loss_mask`, where it is there, names the tokens, else
            all behind the first count. With `window`, [texts], a text is read in windows of that many columns.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.text_lists import next_tokens
        >>> batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.tensor([[1, 1, 1]]),
        ...          "loss_mask": torch.tensor([[0, 0, 1]])}
        >>> next_tokens(batch)
        [NextToken(row=0, before=[5, 6], target=7, position=1)]
    """
    ids, mask = batch["input_ids"].cpu(), batch["attention_mask"].cpu().bool()
    counts = batch["loss_mask"].cpu().bool() & mask if "loss_mask" in batch else mask
    width = int(batch["window"][0]) if "window" in batch else ids.shape[1]
    found = []
    for row in range(len(ids)):
        passed = 0
        for start in range(0, ids.shape[1], width):
            window = slice(start, start + width)
            kept = mask[row, window]
            tokens, counted = ids[row, window][kept].tolist(), counts[row, window][kept].tolist()
            found += [
                NextToken(row, tokens[:at], tokens[at], passed + at - 1) for at in range(1, len(tokens)) if counted[at]
            ]
            passed += len(tokens)
    return found


def last_windows(batch: Batch) -> Batch:
    """The batch itself, or of documents in windows the last window of each that holds a token.

    Example:
        >>> import torch
        >>> from twinlens.attribution.neuron.text_lists import last_windows
        >>> batch = {"index": torch.tensor([0]), "input_ids": torch.tensor([[5, 6, 7, 0]]),
        ...          "attention_mask": torch.tensor([[1, 1, 1, 0]]), "window": torch.tensor([2])}
        >>> last_windows(batch)["input_ids"]
        tensor([[7, 0]])
    """
    if "window" not in batch:
        return batch
    width = int(batch["window"][0])
    windows = {
        name: batch[name].unflatten(1, (-1, width))
        for name in ("input_ids", "attention_mask", "loss_mask")
        if name in batch
    }
    held = windows["attention_mask"].bool().any(2)
    last = (held * torch.arange(held.shape[1], device=held.device)).argmax(1)
    rows = torch.arange(len(last), device=held.device)
    rest = {name: tensor for name, tensor in batch.items() if name != "window" and name not in windows}
    return {**rest, **{name: tensor[rows, last] for name, tensor in windows.items()}}


@dataclass(frozen=True)
class TokenLists:
    """The best neurons at every token of a batch of texts that has a loss, in the order of texts and tokens.

    Attributes:
        index: row of the text in its split, [tokens].
        position: see `NextToken`, int32 [tokens].
        target: the token that is said, [tokens].
        target_prob: its probability, [tokens].
        layer, unit, score, site: as in `NeuronScores`, [tokens, entries].

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> from twinlens.attribution.neuron.text_lists import token_lists
        >>> batch = {**example_batch(), "loss_mask": torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0]])}
        >>> found = token_lists(IntegratedGradients(top_k=3), ExampleNeuronModel(), batch, BUDGET, entries=2, at_once=8)
        >>> found.index.tolist(), found.position.tolist(), found.score.shape
        ([0, 1], [0, 1], torch.Size([2, 2]))
    """

    index: Tensor
    position: Tensor
    target: Tensor
    target_prob: Tensor
    layer: Tensor
    unit: Tensor
    score: Tensor
    site: Tensor


def token_lists(method: Any, model: Any, batch: Batch, memory_budget: int, entries: int, at_once: int) -> TokenLists:
    """A neuron method's list at every token that has a loss.

    Args:
        method: any neuron method; what is explained of a token is itself.
        model: the engine that it asks for.
        batch: texts, see `next_tokens`.
        memory_budget: bytes that some tokens together may take; scores do not depend on it.
        entries: of each token's list, at most the method's `top_k`.
        at_once: tokens that are scored together.
    """
    tokens, device = next_tokens(batch), batch["input_ids"].device
    order = sorted(range(len(tokens)), key=lambda place: len(tokens[place].before))  # so that little is padding
    parts: list[dict[str, Tensor]] = []
    for step in _steps(batch, [tokens[place] for place in order], at_once):
        found = method.attribute(model, step, memory_budget)
        nowhere = torch.full_like(found.score[:, 0], torch.nan)
        part = {
            "target_prob": nowhere if found.target_prob is None else found.target_prob,
            **{name: getattr(found, name)[:, :entries] for name in ("layer", "unit", "score")},
        }
        part["site"] = torch.zeros_like(part["unit"]) if found.site is None else found.site[:, :entries]
        parts.append(part)
    back = torch.tensor(order, device=device).argsort()
    lists = {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
    return TokenLists(
        index=batch["index"][torch.tensor([token.row for token in tokens], device=device)],
        position=torch.tensor([token.position for token in tokens], dtype=torch.int32, device=device),
        target=torch.tensor([token.target for token in tokens], device=device),
        **lists,
    )


def _steps(batch: Batch, tokens: list[NextToken], at_once: int) -> Iterator[Batch]:
    """Some tokens at a time, each explained behind those before it."""
    device = batch["input_ids"].device
    for start in range(0, len(tokens), at_once):
        some = tokens[start : start + at_once]
        ids, mask = padded([token.before for token in some])
        yield {
            "index": batch["index"][torch.tensor([token.row for token in some], device=device)],
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "target": torch.tensor([token.target for token in some], device=device),
        }
