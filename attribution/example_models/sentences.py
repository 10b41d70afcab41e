"""Sentences for the examples of the second paper's evaluations: two short texts, each of a type of knowledge."""

from __future__ import annotations

from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences
from twinlens.attribution.example_models.inputs import BUDGET, example_batch
from twinlens.attribution.example_models.residual_model import ExampleResidualModel


def example_sentences() -> tuple[Sentences, Prompts]:
    """Two sentences whose answer `ExampleResidualModel` knows, of the types capital and colour.

    Example:
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> sentences.target.tolist(), prompts.types
        ([1, 1], ('capital', 'colour'))
    """
    model, batch = ExampleResidualModel(), example_batch()
    return Sentences(model, batch, batch["labels"], BUDGET), Prompts(("capital", "colour"), model)
