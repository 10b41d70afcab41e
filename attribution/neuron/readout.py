"""Readout of residual vectors as log-probabilities, with the final norm's statistic frozen.

bs(v) = U · (direction(v) · scale + final bias) + bias is then affine in v (second paper, Eq. 9–12): what a vector
does to every token's score does not depend on what it is added to. A head that is not linear is evaluated as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.residual_protocol import ResidualModel, ResidualStates

Mode = Literal["corrected", "notebook"]

OUTPUT_BLOCK = 4096
"""Outputs whose half-precision rows are widened at a time."""


@dataclass(frozen=True)
class Readout:
    """The readout of a batch with the final norm frozen at its own states.

    Attributes:
        direction: linear part of the final norm, [..., hidden] → [..., width].
        scale: 1 / the final norm's statistic, [batch].
        target: output explained, [batch].
        against: output whose log-probability is taken off, [batch]; None: the target alone is explained.
        head: from the final hidden state [..., width] to scores [..., outputs].
        weight, bias: of a linear head, [outputs, width] and [outputs]; weight None: the head is not linear.
        norm_bias: what the final norm adds, [width]; None: nothing, or left out as the notebooks do.
        offset: constants added to each example's scores, [batch, outputs], or None. Multiple choice in this form: the
            output of the explained sequence is row 0, the other choices' scores are constants with rows of zeros.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.readout import readout_of
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> states = model.states(batch)
        >>> readout = readout_of(model, states, target=batch["labels"])
        >>> own = states.scores.log_softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
        >>> bool((readout.log_prob(states.residual[:, -1]) - own).abs().max() < 1e-5)  # the model's own log-probability
        True
    """

    direction: Callable[[Tensor], Tensor]
    scale: Tensor
    target: Tensor
    head: Callable[[Tensor], Tensor]
    weight: Tensor | None
    bias: Tensor | None = None
    norm_bias: Tensor | None = None
    offset: Tensor | None = None
    against: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)

    @property
    def linear(self) -> bool:
        """Whether scores are affine in the residual stream, which the fast forms need."""
        return self.weight is not None

    @property
    def dtype(self) -> torch.dtype:
        """Type of all sums: float32 at least, so that half-precision models rank alike."""
        return self.scale.dtype

    @property
    def n_outputs(self) -> int:
        """Outputs of a linear head."""
        assert self.weight is not None
        return len(self.weight)

    def rows(self, start: int, stop: int) -> Readout:
        """A contiguous part of the examples."""
        offset, against = (None if part is None else part[start:stop] for part in (self.offset, self.against))
        scale, target = self.scale[start:stop], self.target[start:stop]
        return replace(self, scale=scale, target=target, offset=offset, against=against)

    def outputs(self, start: int, stop: int) -> Tensor:
        """Rows of the linear head's weight in the type of all sums, [stop − start, width]."""
        assert self.weight is not None
        return self.weight[start:stop].to(self.dtype)

    def project(self, vectors: Tensor) -> Tensor:
        """Scores that vectors [..., hidden] stand for, no scale and no bias: U · direction(v), [..., outputs].

        For linear readouts; the whole of it at once, so for a few vectors.
        """
        return self.times_outputs(self.direction(vectors).to(self.dtype))

    def times_outputs(self, features: Tensor) -> Tensor:
        """Product of features with the head's rows, [..., width] → [..., outputs]; rows are widened block by block."""
        assert self.weight is not None
        if self.weight.dtype == self.dtype:
            return features @ self.weight.T
        scores = features.new_empty(*features.shape[:-1], self.n_outputs)
        for start in range(0, self.n_outputs, OUTPUT_BLOCK):
            scores[..., start : start + OUTPUT_BLOCK] = features @ self.outputs(start, start + OUTPUT_BLOCK).T
        return scores

    def mean_output(self, probability: Tensor) -> Tensor:
        """Mean row of the head under distributions, `probability` [..., outputs] → [..., width]."""
        assert self.weight is not None
        if self.weight.dtype == self.dtype:
            return probability @ self.weight
        starts = range(0, self.n_outputs, OUTPUT_BLOCK)
        parts = [probability[..., i : i + OUTPUT_BLOCK] @ self.outputs(i, i + OUTPUT_BLOCK) for i in starts]
        return torch.stack(parts).sum(0)

    def features(self, vectors: Tensor) -> Tensor:
        """Final hidden state at residual vectors [batch, ..., hidden], norm frozen, [batch, ..., width]."""
        directed = self.direction(vectors).to(self.dtype)
        directed = directed * per_example(self.scale, directed)
        return directed if self.norm_bias is None else directed + self.norm_bias.to(self.dtype)

    def scores(self, vectors: Tensor) -> Tensor:
        """bs(v): readout scores at residual vectors [batch, ..., hidden], [batch, ..., outputs]."""
        features = self.features(vectors)
        if self.weight is None:
            scores = self.head(features).to(self.dtype)
        else:
            scores = self.times_outputs(features)
            scores = scores if self.bias is None else scores + self.bias.to(self.dtype)
        return scores if self.offset is None else scores + per_example(self.offset, scores)

    def log_prob(self, vectors: Tensor) -> Tensor:
        """lp(v) = log softmax(bs(v))[target] at residual vectors [batch, ..., hidden], [batch, ...].

        With `against` the difference to its log-probability, in which the normalisation cancels.
        """
        scores = self.scores(vectors)
        rest = scores.logsumexp(-1) if self.against is None else at_target(scores, self.against)
        return at_target(scores, self.target) - rest


def readout_of(
    model: ResidualModel,
    states: ResidualStates,
    target: Tensor,
    mode: Mode = "corrected",
    offset: Tensor | None = None,
    against: Tensor | None = None,
) -> Readout:
    """The model's readout with the norm frozen at `states`.

    Args:
        target: output whose log-probability is explained, [batch], int64.
        mode: `corrected` keeps the final norm's bias, so that lp(h^L) is the model's own log-probability; `notebook`
            drops it, as the notebooks of the second paper do.
        offset: constants of each example's scores, see `Readout`.
        against: output whose log-probability is taken off, [batch], int64; None: none is.
    """
    return Readout(
        direction=model.final_direction,
        scale=1 / states.statistic,
        target=target.long(),
        head=model.head,
        weight=model.output_weight,
        bias=model.output_bias,
        norm_bias=model.final_bias if mode == "corrected" else None,
        offset=offset,
        against=None if against is None else against.long(),
    )


def choice_readout(
    model: ResidualModel,
    states: ResidualStates,
    other_scores: Tensor,
    mode: Mode = "corrected",
    against: Tensor | None = None,
) -> Readout:
    """Multiple choice: softmax over one output per sequence, of which only the explained sequence's is attributed.

    Args:
        states: of the explained sequence of each question, under a head with one output.
        other_scores: scores of the question's other choices, constants here, [batch, choices − 1].
        against: place among these of the choice whose log-probability is taken off, [batch]; None: none is.

    Returns:
        a readout whose output 0 is the explained choice, which is the target.
    """
    target = torch.zeros(len(other_scores), dtype=torch.int64, device=other_scores.device)
    readout = readout_of(model, states, target, mode, against=None if against is None else against + 1)
    offset = torch.cat([torch.zeros_like(other_scores[:, :1]), other_scores], 1).to(readout.dtype)
    n_others = other_scores.shape[1]

    def head(features: Tensor) -> Tensor:
        own = model.head(features)
        return torch.cat([own, own.new_zeros(*own.shape[:-1], n_others)], -1)

    weight, bias = readout.weight, readout.bias
    if weight is not None:
        weight = torch.cat([weight, weight.new_zeros(n_others, weight.shape[1])])
    if bias is not None:
        bias = torch.cat([bias, bias.new_zeros(n_others)])
    return replace(readout, head=head, weight=weight, bias=bias, offset=offset)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values [batch] or [batch, outputs], shaped so that they meet `like` [batch, ..., outputs] entry by entry."""
    middle = [1] * (like.dim() - values.dim())
    return values.reshape(len(values), *middle, *values.shape[1:])


def at_target(scores: Tensor, target: Tensor) -> Tensor:
    """Each example's own output, `target` [batch], of scores [batch, ..., outputs], [batch, ...]."""
    index = target.reshape(-1, *[1] * (scores.dim() - 1)).expand(*scores.shape[:-1], 1)
    return scores.gather(-1, index)[..., 0]
