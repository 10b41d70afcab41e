"""The second paper's evaluations over prompts: together, and each by itself, as formerly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.logprob_increase import MEMORY_BUDGET
from benchmarks.neuron_level import Prompts
from benchmarks.pairs import Timed, timed
from twinlens.attribution.evaluation.neuron_level.head_importance import HeadImportance
from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
from twinlens.attribution.evaluation.neuron_level.layer_importance import LayerImportance
from twinlens.attribution.evaluation.neuron_level.query_interventions import QueryInterventions
from twinlens.attribution.evaluation.neuron_level.query_layers import QueryLayers
from twinlens.attribution.evaluation.neuron_level.reads import Reads, reads_of
from twinlens.attribution.evaluation.neuron_level.segments import Segments
from twinlens.attribution.evaluation.neuron_level.sentences import Sentences
from twinlens.attribution.evaluation.neuron_level.shared_neurons import SharedNeurons
from twinlens.attribution.evaluation.neuron_level.value_interventions import ValueInterventions

Answers = dict[str, Tensor]


def evaluations() -> list[Any]:
    """As shipped, those that read sentences and no stored lists."""
    return [
        LayerImportance(), HeadImportance(), ValueInterventions(), QueryLayers(), QueryInterventions(),
        SharedNeurons(), Segments(),
    ]  # fmt: skip


def sentences_of(prompts: Prompts, rows: slice, reads: Reads | None = None) -> Sentences:
    """Some prompts with what the model predicts as their target."""
    batch = {name: tensor[rows] for name, tensor in prompts.batch.items()}
    target = prompts.model.zeroed_scores(batch, None, None).argmax(-1)
    return Sentences(prompts.model, batch, target, MEMORY_BUDGET, reads=reads or Reads())


def together(prompts: Prompts, asked: Sequence[Any]) -> Timed[Answers]:
    """All evaluations over sentences whose forward, searches and query neurons they share."""
    shared = sentences_of(prompts, slice(None), reads_of(asked, prompts.model))
    return timed(lambda: _named(one.answers(shared) for one in asked))


def each_alone(prompts: Prompts, asked: Sequence[Any]) -> Timed[Answers]:
    """The same, each with forward, searches and query neurons of its own."""
    own = [sentences_of(prompts, slice(None)) for _ in asked]
    return timed(lambda: _named(one.answers(sentences) for one, sentences in zip(asked, own, strict=True)))


def sums_in_batches(prompts: Prompts, part: int, size: int) -> Timed[Answers]:
    """Sums of the increases of one part of all neurons, so many sentences sharing a product with the vocabulary.

    The states are taken outside the clock.

    Args:
        part: layer, behind the FFN's the attention's.
        size: sentences that share the product.
    """
    test = ImportanceSums()
    starts = range(0, len(prompts.batch["index"]), size)
    scored = [test.scored(sentences_of(prompts, slice(start, start + size))) for start in starts]
    sums = partial(test.of_part, prompts.model, number=part, memory_budget=MEMORY_BUDGET)
    return timed(lambda: _joined([sums(group) for group in scored]))


def _named(answers: Any) -> Answers:
    return {f"{number}/{key}": values for number, one in enumerate(answers) for key, values in one.items()}


def _joined(parts: Sequence[Answers]) -> Answers:
    return {name: torch.cat([part[name] for part in parts]) for name in ("every", "positive", "score")}


def difference(ours: Answers, peer: Answers) -> float:
    """Largest difference of any answer, relative to the largest number of its kind."""
    apart = [
        float((ours[key].double() - peer[key].double()).abs().max() / peer[key].double().abs().max().clamp(min=1e-9))
        for key in ours
    ]
    return max(apart)
