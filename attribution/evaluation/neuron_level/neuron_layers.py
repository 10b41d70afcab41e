"""Layers in which the best neurons of every score lie (second paper, Figures 2 and 5)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available, missing_methods
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, mean_row, require_counts
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.residual_protocol import ResidualModel


class NeuronLayers:
    """Mean number of a list's first `k` entries in each layer.

    Args:
        k: entries of a list; the paper's 10.

    Raises:
        UserError: k below 1.

    Example:
        >>> from dataclasses import replace
        >>> import torch
        >>> from twinlens.attribution.evaluation.neuron_level.neuron_layers import NeuronLayers
        >>> from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> layer = torch.tensor([[1, 1], [1, 0]])
        >>> lists = {"ig": ListedNeurons(torch.zeros_like(layer).bool(), layer, torch.tensor([[3, 0], [3, 4]]))}
        >>> test = NeuronLayers(k=2)
        >>> answers = test.answers(replace(sentences, lists=lists))
        >>> rows = test.evaluate(answers, replace(prompts, seeds_of={"ig": ["ig"]}))
        >>> [(row.group, row.value) for row in rows]  # layer, mean number of the list's entries there
        [('0', 0.5), ('1', 1.5)]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"
    reads_lists: ClassVar[bool] = True

    def __init__(self, k: int = 10) -> None:
        require_counts("neuron_layers", k=k)
        self.k = k

    @property
    def longest(self) -> int:
        """Entries that are read."""
        return self.k

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < self.k:
            raise UserError(
                f"evaluation.neuron_layers counts the {self.k} best neurons, but method.{name}.top_k={top_k} keeps "
                f"fewer; set method.{name}.top_k={self.k} or a smaller evaluation.neuron_layers.k."
            )

    def missing(self, available: Available) -> str:
        """A neuron method, where the run has none."""
        return missing_methods(available, "neuron")

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Entries by layer, [batch, layers], by name of the list."""
        layers = torch.arange(sentences.model.n_layers, device=sentences.target.device)
        return {name: (neurons.layer[:, : self.k, None] == layers).sum(1) for name, neurons in sentences.lists.items()}

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """None worth the name: entries of lists are counted."""
        return 0.0

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """`top_neurons` by method and layer (group)."""
        found = []
        for method, names in prompts.seeds_of.items():
            counts = torch.stack([answers[name] for name in names]).double().mean(0)
            for layer in range(counts.shape[1]):
                found.append(mean_row("top_neurons", counts[:, layer], method=method, k=self.k, group=str(layer)))
        return found
