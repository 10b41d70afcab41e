"""Completions: tokens that follow a prompt and are explained together, alone or set apart from a foil.

φ = Σ_t log p(c_t | prompt, c_<t), and with a foil φ = Σ_t log p(c_t | …) − Σ_t log p(f_t | …), in nats. Both are read
teacher-forced: every token is predicted behind the ones that are given, whatever the model would have said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.protocols import Batch


@dataclass(frozen=True)
class Step:
    """A token of some examples' completions or foils, as the next token behind what is given before it.

    Attributes:
        rows: examples of the batch that have it, [rows].
        sign: 1 for a completion, −1 for a foil.
        place: number of the token in each example, foils counted on behind completions, [rows].
        batch: `index`, `input_ids` and `attention_mask` of prompt and given tokens, `target`, the token; [rows, …].

    Example:
        >>> import torch
        >>> from twinlens.attribution.completions import Completions
        >>> batch = {"index": torch.tensor([0]), "input_ids": torch.tensor([[1, 2]]),
        ...          "attention_mask": torch.tensor([[1, 1]])}
        >>> second = list(Completions([[7, 8]]).steps(batch))[1]
        >>> second.place.tolist(), second.batch["input_ids"].tolist(), second.batch["target"].tolist()
        ([1], [[1, 2, 7]], [8])
    """

    rows: Tensor
    sign: int
    place: Tensor
    batch: Batch


@dataclass(frozen=True)
class Completions:
    """Tokens of some examples' completions, each with one token at the least.

    Attributes:
        tokens: of each completion.
        foils: of each foil; None: completions are explained alone.

    Example:
        >>> import torch
        >>> from twinlens.attribution.completions import Completions
        >>> completions = Completions([[7, 8]], foils=[[9]])
        >>> batch = {"index": torch.tensor([0]), "input_ids": torch.tensor([[1, 2]]),
        ...          "attention_mask": torch.tensor([[1, 1]])}
        >>> completions.behind(batch)["input_ids"]  # completion and foil, each behind the prompt, in windows of 4
        tensor([[1, 2, 7, 8, 1, 2, 9, 0]])
        >>> [(step.sign, step.batch["input_ids"].tolist(), step.batch["target"].tolist())
        ...  for step in completions.steps(batch)]
        [(1, [[1, 2]], [7]), (1, [[1, 2, 7]], [8]), (-1, [[1, 2]], [9])]
    """

    tokens: Sequence[Sequence[int]]
    foils: Sequence[Sequence[int]] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, index: Tensor) -> Completions:
        """Those of some examples, by their rows, [rows]."""
        rows = index.tolist()
        foils = None if self.foils is None else [self.foils[row] for row in rows]
        return Completions([self.tokens[row] for row in rows], foils)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example, those of its foil among them, [examples]."""
        foils = self.foils or [()] * len(self.tokens)
        return torch.tensor([len(a) + len(b) for a, b in zip(self.tokens, foils, strict=True)], dtype=torch.int64)

    @property
    def longest(self) -> int:
        """Tokens of the longest completion or foil."""
        return max((len(ids) for ids in [*self.tokens, *(self.foils or [])]), default=0)

    def columns_of(self, columns: int) -> int:
        """Columns of `behind` a batch of prompts with so many, at most."""
        return len(self.sides) * (columns + self.longest)

    @property
    def sides(self) -> list[tuple[int, Sequence[Sequence[int]]]]:
        """(sign, tokens of each example): completions, and foils where there are any."""
        return [(1, self.tokens), *([] if self.foils is None else [(-1, self.foils)])]

    def behind(self, batch: Batch) -> Batch:
        """The prompts of a batch with what follows them, whose tokens alone have a loss (`loss_mask`).

        With foils an example has two sequences, side by side as windows are (`window`, [batch]).
        """
        prompts = _prompts(batch)
        sides = [[p + list(c) for p, c in zip(prompts, tokens, strict=True)] for _, tokens in self.sides]
        width = max(len(ids) for side in sides for ids in side)
        found: dict[str, list[Tensor]] = {"input_ids": [], "attention_mask": [], "loss_mask": []}
        for side in sides:
            ids, mask = padded(side, width)
            counts = mask * (torch.arange(width) >= torch.tensor([[len(prompt)] for prompt in prompts]))
            for name, tensor in zip(found, (ids, mask, counts), strict=True):
                found[name].append(tensor)
        device = batch["input_ids"].device
        joined = {name: torch.cat(parts, 1).to(device) for name, parts in found.items()}
        windows = {} if self.foils is None else {"window": torch.full((len(prompts),), width, device=device)}
        return {"index": batch["index"], **joined, **windows}

    def steps(self, batch: Batch) -> Iterator[Step]:
        """Every token as a next token: the first ones of all completions, the second ones, …, then those of foils."""
        prompts, device = _prompts(batch), batch["input_ids"].device
        for sign, tokens in self.sides:
            for number in range(max(len(ids) for ids in tokens)):
                rows = [row for row, ids in enumerate(tokens) if len(ids) > number]
                ids, mask = padded([prompts[row] + list(tokens[row][:number]) for row in rows])
                before = [0 if sign > 0 else len(self.tokens[row]) for row in rows]
                there = torch.tensor(rows, device=device)
                step: Batch = {
                    "index": batch["index"][there],
                    "input_ids": ids.to(device),
                    "attention_mask": mask.to(device),
                    "target": torch.tensor([tokens[row][number] for row in rows], device=device),
                }
                yield Step(there, sign, torch.tensor(before, device=device) + number, step)


def explained_losses(model: Any, completions: Completions, batch: Batch) -> Tensor:
    """−φ of each example, [batch], differentiable.

    Args:
        model: a language model with `token_losses`.
        completions: of the examples.
        batch: `completions.behind` their prompts.
    """
    losses: Tensor = model.token_losses(batch)[0].view(len(completions), len(completions.sides), -1).sum(-1)
    return losses[:, 0] if completions.foils is None else losses[:, 0] - losses[:, 1]


def padded(rows: Sequence[Sequence[int]], width: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask of sequences padded on the right to the longest, or to `width`, [rows, tokens] each."""
    width = max(width, *(len(ids) for ids in rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(list(values), dtype=torch.int64)
        mask[row, : len(values)] = 1
    return ids, mask


def _prompts(batch: Batch) -> list[list[int]]:
    ids, mask = batch["input_ids"].cpu(), batch["attention_mask"].cpu().bool()
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
