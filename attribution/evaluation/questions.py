"""Questions of faithfulness: which edited forward is asked of an example, and under which keys its answers stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Test = Literal["sufficiency", "comprehensiveness"]
NeuronList = tuple[Tensor, Tensor]
"""Layers and units of the best neurons of each example, best first, [batch, top_k] each; −1: the list has ended.

Attention neurons have `twinlens.attribution.neuron.ranking.FIRST_ATTENTION` added to their unit.
"""

PROBABILITY = "probability"
"""Answer that holds the predicted class's probability without any edit, [batch]."""


@dataclass(frozen=True)
class Question:
    """One edited forward per example.

    Attributes:
        name: of the list of neurons.
        test: sufficiency or comprehensiveness.
        r: neurons of the list that count.

    Example:
        >>> from twinlens.attribution.evaluation.questions import Question
        >>> question = Question("ig", "sufficiency", r=10)
        >>> question.key, question.probability_key
        ('ig|sufficiency|10', 'ig|sufficiency|10|probability')
    """

    name: str
    test: Test
    r: int

    @property
    def key(self) -> str:
        """Name of its answer: whether the prediction stays the same."""
        return f"{self.name}|{self.test}|{self.r}"

    @property
    def probability_key(self) -> str:
        """Name of its other answer: the probability that is left to the class predicted without edit."""
        return f"{self.key}|{PROBABILITY}"
