"""Examples being explained, with their residual states and the readout at the class explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from twinlens.attribution.neuron.ranking import NeuronScores
from twinlens.attribution.neuron.readout import Mode, Readout, choice_readout, readout_of
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates
from twinlens.attribution.targets import target_of


@dataclass(frozen=True)
class Explained:
    """Some examples of a batch, each by one sequence.

    Attributes:
        tokens: `input_ids` and `attention_mask`, [batch, tokens].
        states: of these sequences.
        readout: at the target.
        target, target_prob: class explained and its probability, [batch]; of a vocabulary, the token.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.explained import explain
        >>> parts = explain(ExampleResidualModel(), example_batch(), "corrected", False, BUDGET)
        >>> [(rows.tolist(), part.target.tolist(), part.target_prob.round(decimals=2)) for rows, part, room in parts]
        [([0, 1], [1, 1], tensor([0.6400, 0.7000]))]
    """

    tokens: Batch
    states: ResidualStates
    readout: Readout
    target: Tensor
    target_prob: Tensor

    @property
    def cotangent(self) -> Tensor:
        """Gradient of what is explained at the scores of these sequences, [batch, outputs].

        The target's log-probability, less that of `against`; in multiple choice over the scores of all choices.
        """
        readout, own = self.readout, all_scores(self.readout, self.states)
        rest = own.softmax(-1) if readout.against is None else one_hot(readout.against, own.shape[1])
        return (one_hot(readout.target, own.shape[1]) - rest)[:, : self.states.scores.shape[1]]


def all_scores(readout: Readout, states: ResidualStates) -> Tensor:
    """Scores that the softmax goes over, [batch, outputs]: in multiple choice those of all choices, the own first."""
    if readout.offset is None:
        return states.scores
    return pad(states.scores, (0, readout.offset.shape[1] - states.scores.shape[1])) + readout.offset


def explain(
    model: ResidualModel, batch: Batch, mode: Mode, attention: bool, memory_budget: int
) -> Iterator[tuple[Tensor, Explained, int]]:
    """Go through a batch in parts that fit the budget.

    In multiple choice (`input_ids` [batch, choices, tokens]) the sequence of the choice explained is taken, with the
    other choices' scores as constants.

    Args:
        attention: whether scores have positions. Sequences of one length then go together, without padding, so that
            columns are the tokens' places in their sentence whatever the batch.

    Yields:
        rows of the batch, [rows]; what is to be scored; bytes that the budget leaves beside its states.
    """
    own, other_scores, chosen = _sequences(model, batch, memory_budget)
    for rows in _groups(own["attention_mask"], attention):
        tokens = _unpadded(own, rows) if attention else {name: tensor[rows] for name, tensor in own.items()}
        each = model.bytes_per_example(tokens["attention_mask"].shape[1], attention)
        step = max(1, min(len(rows), memory_budget // 2 // each))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            sequences = {name: tensor[part] for name, tensor in tokens.items()}
            states = model.states(sequences, attention)
            named = {name: batch[name][rows[part]] for name in ("target", "against") if name in batch}
            apart = named.get("against")
            if other_scores is None or chosen is None:
                explained = target_of(named, states.scores)
                readout = readout_of(model, states, explained, mode, against=apart)
            else:
                explained = chosen[rows[part]]
                place = None if apart is None else apart - (apart >= explained).long()  # among the other choices
                readout = choice_readout(model, states, other_scores[rows[part]], mode, place)
            probability = all_scores(readout, states).softmax(-1).gather(1, readout.target[:, None])[:, 0]
            found = Explained(sequences, states, readout, explained, probability)
            yield rows[part], found, max(0, memory_budget - len(sequences["input_ids"]) * each)


def score_parts(
    model: ResidualModel,
    batch: Batch,
    mode: Mode,
    attention: bool,
    memory_budget: int,
    top_k: int,
    score: Callable[[Explained, int], NeuronScores],
) -> NeuronScores:
    """The scores of all parts in the order of the batch, lists of `top_k` entries; shorter ones end with −1.

    Sentences have more heads at tokens the longer they are, so that the length must not be taken from the batch.
    """
    order: list[Tensor] = []
    parts: list[NeuronScores] = []
    for rows, part, room in explain(model, batch, mode, attention, memory_budget):
        order.append(rows)
        parts.append(replace(score(part, room), target=part.target, target_prob=part.target_prob))
    back = torch.cat(order).argsort()
    joined: dict[str, Tensor] = {}
    for name in ("layer", "unit", "position", "site", "score", "target", "target_prob"):
        tensors = [getattr(part, name) for part in parts]
        if tensors[0] is None:
            continue
        if tensors[0].dim() == 2:
            fill = 0 if name in ("score", "site") else -1
            tensors = [pad(tensor, (0, top_k - tensor.shape[1]), value=fill) for tensor in tensors]
        joined[name] = torch.cat(tensors)[back]
    return NeuronScores(**joined)


def _sequences(model: ResidualModel, batch: Batch, memory_budget: int) -> tuple[Batch, Tensor | None, Tensor | None]:
    """One sequence per example; in multiple choice the other choices' scores and the choice explained as well."""
    names = ("input_ids", "attention_mask")
    if batch["input_ids"].dim() == 2:
        return {name: batch[name] for name in names}, None, None
    n, choices, tokens = batch["input_ids"].shape
    flat = {name: batch[name].flatten(0, 1) for name in names}
    step = max(1, memory_budget // model.bytes_per_example(tokens, attention=False))
    parts = [
        model.zeroed_scores({name: tensor[start : start + step] for name, tensor in flat.items()}, None, None)
        for start in range(0, n * choices, step)
    ]
    scores = torch.cat(parts).view(n, choices)
    chosen = target_of(batch, scores)
    rest = torch.ones_like(scores, dtype=torch.bool).scatter(1, chosen[:, None], False)
    row = torch.arange(n, device=chosen.device)
    return {name: batch[name][row, chosen] for name in names}, scores[rest].view(n, choices - 1), chosen


def _groups(mask: Tensor, by_length: bool) -> list[Tensor]:
    """Rows that go together: all of them, or those of each length."""
    if not by_length:
        return [torch.arange(len(mask), device=mask.device)]
    lengths = mask.sum(1)
    return [(lengths == length).nonzero()[:, 0] for length in lengths.unique().tolist()]


def _unpadded(batch: Batch, rows: Tensor) -> Batch:
    """Sequences of one length without their padding."""
    real = batch["attention_mask"][rows].bool()
    return {name: batch[name][rows][real].view(len(rows), -1) for name in ("input_ids", "attention_mask")}
