"""Interventions that a prompt's view records: one listed neuron at a time, set to a multiple of itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.neuron_level.sentences import Sentences
from twinlens.attribution.neuron.increase import require_room
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, ScaledUnits

NAMES = ("log_prob", "other", "other_log_prob")
"""Parts of `EditedOutputs`."""


@dataclass(frozen=True)
class EditedOutputs:
    """What a model says with one neuron scaled; without neurons, what it says as it is.

    Attributes:
        log_prob: of the target, nats, [batch, …].
        other: the best outputs that are not the target, best first, int64 [batch, …, others].
        other_log_prob: theirs, nats, [batch, …, others].

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.prompt_edits import outputs_beside
        >>> said = outputs_beside(torch.tensor([[2.0, 1.0, 0.0]]), target=torch.tensor([1]), others=1)
        >>> said.log_prob.round(decimals=2), said.other
        (tensor([-1.4100]), tensor([[0]]))
    """

    log_prob: Tensor
    other: Tensor
    other_log_prob: Tensor


@dataclass(frozen=True)
class Recorded:
    """One line of a prompt's record: what a neuron's being set to `factor` times itself does.

    Attributes:
        index: of the example.
        token: of its completion, 0 for the first one and for a next token.
        kind: list that names the neuron, `ffn_value`, `attention_value` or `query`.
        neuron: its name, `f3.17`; empty for the model as it is.
        factor: 1 for the model as it is.
        target: output that is asked about.
        log_prob: of the target then, nats.
        others: (output, log-probability in nats) of the best ones that are not the target, best first.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.prompt_edits import Recorded
        >>> Recorded(0, 0, "ffn_value", "f3.17", 0.0, 5, -1.25, ((7, -0.5),)).others
        ((7, -0.5),)
    """

    index: int
    token: int
    kind: str
    neuron: str
    factor: float
    target: int
    log_prob: float
    others: tuple[tuple[int, float], ...]


def outputs_beside(scores: Tensor, target: Tensor, others: int) -> EditedOutputs:
    """The target and the best other outputs under scores.

    Args:
        scores: [batch, outputs].
        target: [batch].
        others: how many; fewer where there are no more outputs.
    """
    logs = scores.log_softmax(-1)
    log_prob = logs.gather(1, target[:, None])[:, 0]
    best = logs.scatter(1, target[:, None], -torch.inf).topk(min(others, scores.shape[1] - 1), dim=1)
    return EditedOutputs(log_prob, best.indices, best.values)


def edited_outputs(
    model: ResidualModel,
    batch: Batch,
    target: Tensor,
    numbers: Tensor,
    factors: Sequence[float],
    others: int,
    memory_budget: int,
) -> EditedOutputs:
    """What the model says of each sentence with each of its listed neurons alone set to each multiple of itself.

    A neuron is scaled at every token, as an intervention that sets its parameters to 0 does. Every pair of a neuron and
    a factor is a forward of the whole sentence; a neuron that a sentence lists twice is run once.

    Args:
        target: int64 [batch].
        numbers: of the neurons, layer · (neurons + heads · head_dim) + unit, attention neurons behind the FFN's,
            int64 [batch, listed].
        factors: what coefficients are multiplied by.
        memory_budget: bytes; results do not depend on it.

    Returns:
        [batch, listed, factors] each, and others behind them.

    Raises:
        UserError: when the budget does not hold one sentence's forward.

    Example:
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.prompt_edits import edited_outputs
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> neuron = torch.tensor([[9 + 3], [9 + 3]])  # neuron 3 of layer 1; a layer has 5 of the FFN and 2 · 2
        >>> found = edited_outputs(model, batch, batch["labels"], neuron, [0.0, 1.0], 2, BUDGET)
        >>> found.log_prob.exp().round(decimals=3)  # off, and as it is: as `zeroed_metrics` has it
        tensor([[[0.5720, 0.6420]],
        <BLANKLINE>
                [[0.5990, 0.6980]]])
    """
    width = model.n_neurons + model.n_heads * model.head_dim
    own = [list(dict.fromkeys(row)) for row in numbers.tolist()]
    asked = [(row, number, factor) for row, listed in enumerate(own) for number in listed for factor in factors]
    place = {key: at for at, key in enumerate(asked)}
    each = model.bytes_per_example(batch["attention_mask"].shape[1], attention=False)
    require_room(memory_budget >= each, each, memory_budget, "one sentence's forward")
    step, parts = memory_budget // each, []
    for start in range(0, len(asked), step):
        rows, unit, factor = (torch.tensor(column) for column in zip(*asked[start : start + step], strict=True))
        rows = rows.to(target.device)
        layer, unit = unit.div(width, rounding_mode="floor"), unit % width
        attention = unit >= model.n_neurons
        units = ScaledUnits(attention, layer, unit - attention * model.n_neurons, factor)
        one = {name: batch[name][rows] for name in ("input_ids", "attention_mask")}
        scores = model.scaled_scores(one, _moved(units, target.device))
        parts.append(outputs_beside(scores, target[rows], others))
    order = torch.tensor(
        [[[place[row, number, factor] for factor in factors] for number in listed]
         for row, listed in enumerate(numbers.tolist())],
        device=target.device,
    )  # fmt: skip
    return EditedOutputs(*(torch.cat([getattr(part, name) for part in parts])[order] for name in NAMES))


def record(
    sentences: Sentences, scores: Tensor, numbers: Tensor, edited: Tensor, factors: Sequence[float], others: int
) -> dict[str, Tensor]:
    """`other` and `other_log_prob` of the model as it is, [batch, others], and with each neuron scaled `edited_…`.

    Args:
        scores: of the model as it is, [batch, outputs].
        numbers: as of `edited_outputs`, [batch, listed].
        edited: rows whose neurons are scaled, [edited]; the others have zeros.
        factors: none: nothing is scaled.
    """
    said = outputs_beside(scores, sentences.target, others)
    found = {"other": said.other, "other_log_prob": said.other_log_prob}
    if not factors:
        return found
    shape = (*numbers.shape, len(factors))
    for name in NAMES:
        part = getattr(said, name)
        found[f"edited_{name}"] = part.new_zeros(*shape, *part.shape[1:])
    if len(edited):
        batch = {name: part[edited] for name, part in sentences.batch.items()}
        asked = sentences.target[edited], numbers[edited], factors, others, sentences.memory_budget
        own = edited_outputs(sentences.model, batch, *asked)
        for name in NAMES:
            found[f"edited_{name}"][edited] = getattr(own, name)
    return found


def recorded(answers: dict[str, Tensor], number: int, names: Sequence[tuple[str, str]], factors: Sequence[float],
             token: int) -> Iterator[Recorded]:  # fmt: skip
    """The lines of one token: the model as it is, then every listed neuron at every factor.

    Args:
        answers: of `prompt_view.PromptView` for one token.
        number: of the example.
        names: (kind, name) of the listed neurons, in the order of `edited_log_prob`.
        token: of the completion.
    """
    target = int(answers["target"])

    def line(kind: str, name: str, factor: float, log_prob: Tensor, other: Tensor, other_log_prob: Tensor) -> Recorded:
        others = tuple(zip(other.tolist(), other_log_prob.tolist(), strict=True))
        return Recorded(number, token, kind, name, factor, target, float(log_prob), others)

    yield line("", "", 1.0, answers["log_prob"], answers["other"], answers["other_log_prob"])
    for at, (kind, name) in enumerate(names):
        for place, factor in enumerate(factors):
            parts = (answers[f"edited_{part}"][at, place] for part in NAMES)
            yield line(kind, name, factor, *parts)


def group_of(number: int, token: int) -> str:
    """Group of a sentence's rows: `3`, and of the second token of its completion `3.1`.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.prompt_edits import group_of
        >>> group_of(3, 0), group_of(3, 1)
        ('3', '3.1')
    """
    return f"{number}.{token}" if token else str(number)


def require_edits(edits: Sequence[float]) -> None:
    """Refuse multiples that are no number, or that change nothing.

    Raises:
        UserError: naming the multiple.
    """
    for factor in edits:
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not isfinite(factor):
            raise UserError(
                f"evaluation.prompt.edits={list(edits)} has {factor!r}, expected numbers that a neuron is multiplied "
                "by: write e.g. [0,2,-1], or [] to record nothing."
            )
        if factor == 1:
            raise UserError(
                f"evaluation.prompt.edits={list(edits)} has {factor:g}, which leaves a neuron as it is; expected other "
                "numbers: leave it out, the model as it is is recorded anyway."
            )


def _moved(units: ScaledUnits, device: torch.device) -> ScaledUnits:
    return ScaledUnits(*(part.to(device) for part in (units.attention, units.layer, units.unit, units.factor)))
