"""Faithfulness over completions: the same edits at every token, teacher-forced, and one answer for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.evaluation.questions import NeuronList
from twinlens.attribution.protocols import Batch, NeuronModel


def completion_answers(
    evaluation: Any,
    model: NeuronModel,
    batch: Batch,
    completions: Completions,
    lists: Mapping[str, NeuronList],
    memory_budget: int,
    **more: Any,
) -> dict[str, Tensor]:
    """Answers as `Faithfulness.answers` gives them, about whole completions.

    At every token the listed neurons of the token before it are kept or switched off. A prediction is preserved where
    the model's prediction stays the same at every token; a probability is the geometric mean of those of the
    completion's tokens, which does not fall with their number. Foils are not asked about.

    Args:
        evaluation: the configured test.
        batch: prompts.
        completions: of the examples of the batch.
        lists: by name, [batch, …].
        memory_budget: bytes; answers do not depend on it.
        more: passed on.

    Example:
        >>> import torch
        >>> from twinlens.attribution.completions import Completions
        >>> from twinlens.attribution.evaluation.completion_answers import completion_answers
        >>> from twinlens.attribution.evaluation.faithfulness import Faithfulness
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> lists = {"ig": (torch.zeros(2, 1).int(), torch.zeros(2, 1).int())}  # neuron 0 of layer 0
        >>> test, two = Faithfulness([1], [1]), Completions([[1, 0], [1]])
        >>> answers = completion_answers(test, ExampleNeuronModel(), example_batch(), two, lists, BUDGET)
        >>> answers["ig|sufficiency|1"].shape, bool((answers["probability"] <= 1).all())
        (torch.Size([2]), True)
    """
    found: dict[str, Tensor] = {}
    counts = torch.tensor([len(ids) for ids in completions.tokens])
    for step in Completions(completions.tokens).steps(batch):
        own = {name: (layer[step.rows], unit[step.rows]) for name, (layer, unit) in lists.items()}
        for key, answer in evaluation.answers(model, step.batch, own, memory_budget, **more).items():
            preserved = answer.dtype == torch.bool
            if key not in found:
                found[key] = answer.new_full((len(counts),), True if preserved else 0.0)
            if preserved:
                found[key][step.rows] &= answer
            else:
                found[key][step.rows] += answer.log()
    return {
        key: answer if answer.dtype == torch.bool else (answer / counts.to(answer.device)).exp()
        for key, answer in found.items()
    }
