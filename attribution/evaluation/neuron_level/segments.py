"""The target's log-probability and probability from first to last hidden state (second paper, Figures 3 and 6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, mean_row, require_counts
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.logprob_increase import segment_curve
from twinlens.attribution.neuron.neuron_score import outputs_of
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.residual_protocol import ResidualModel


class Segments:
    """Both along the straight line from the embedding h^0 to the final state h^L, the final norm frozen at h^L.

    Args:
        segments: points on the line, both ends among them; the paper's 61.
        mode: `corrected`: with the final norm's bias; `notebook`: without.

    Raises:
        UserError: no segment.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.segments import Segments
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> test = Segments(segments=3)
        >>> rows = test.evaluate(test.answers(sentences), prompts)
        >>> curve = [row for row in rows if row.metric == "segment_prob" and row.group == "capital"]
        >>> [(row.k, round(row.value)) for row in curve]  # per cent, from the embedding to the final state
        [(0, 44), (1, 58), (2, 64)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(self, segments: int = 61, mode: Mode = "corrected") -> None:
        require_counts("segments", segments=segments)
        self.segments = segments
        self.mode: Mode = mode

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`log_prob`, [batch, segments]."""
        readout = sentences.readout(self.mode, attention=False)
        return {"log_prob": segment_curve(sentences.states(attention=False), readout, self.segments)}

    def reads(self, model: ResidualModel) -> Reads:
        """The residual stream."""
        return Reads(states=True)

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """A distribution of every segment."""
        return 2.0 * self.segments * outputs_of(model) * model.hidden_size

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`segment_logp` (nats) and `segment_prob` (per cent), k the segment from 0 on, by type."""
        curve, found = answers["log_prob"].double(), []
        for group, rows in prompts.groups():
            for k in range(curve.shape[1]):
                found.append(mean_row("segment_logp", curve[rows, k], k=k, group=group))
                found.append(mean_row("segment_prob", curve[rows, k].exp(), 100, k=k, group=group))
        return found
