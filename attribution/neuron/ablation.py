"""Ablation: each neuron switched off alone, exactly, at the answer token. The truth that other scores estimate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.evaluation.edits import Intervention
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.path import Path
from twinlens.attribution.neuron.path_integral import row_chunks
from twinlens.attribution.neuron.ranking import NeuronScores, rank_neurons, rank_sites, with_coefficient
from twinlens.attribution.neuron.replacing import Replacing
from twinlens.attribution.protocols import AnswerStates, Batch, NeuronModel
from twinlens.attribution.targets import target_of

AblationSite = Literal["ffn", "attn"]


class Ablation(Replacing):
    """Fall of φ when one neuron is switched off at the answer token and all others compute on: φ − φ without it.

    φ is log p of what is explained, less that of what it is explained against, in nats. Every neuron of every layer is
    a variant row of the last-token engine, which enters behind its layer; nothing is approximated. In multiple choice
    where neurons are edited in all choices at once, all sequences of an example lose the neuron together.

    Args:
        intervention: what the neuron becomes: `zero`; its `mean` over a sample of examples at the answer token; or
            (`resample`) its value there in another example of the sample.
        site: `ffn` neurons or `attn` neurons, inputs of the attention's output projection, which are only zeroed.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example.

    Raises:
        UserError: a sample too small to draw from, or of attention neurons, whose values none is taken of.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.ablation import Ablation
        >>> found = Ablation(top_k=2).attribute(ExampleNeuronModel(), example_batch(), BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # [batch, top_k], best first
        ([[1, 0], [1, 0]], [[3, 0], [3, 0]])
        >>> found.score.round(decimals=2)  # nats: how far the target falls without the neuron
        tensor([[0.0300, 0.0200],
                [0.1600, 0.0700]])
    """

    option = "ablation"
    sign = "positive: without the neuron the target is less likely"
    unit = "nats: fall of the log-probability without the neuron"

    def __init__(
        self,
        intervention: Intervention = "zero",
        site: AblationSite = "ffn",
        reference_size: int = 128,
        reference_seed: int = 0,
        top_k: int = 100,
    ) -> None:
        super().__init__(intervention, site, reference_size, reference_seed, top_k)
        self.site = site

    @property
    def ranks(self) -> str:
        """The site of its lists."""
        return self.site

    @property
    def path(self) -> Path:
        """Where the rows of a layer enter."""
        return Path("activation", "last", "right", site=self.site)

    def need(self, sizes: EngineSizes) -> Need:
        """The forward beside the prefix's keys and values, then a variant row for every neuron, one at the least."""
        footprint, edited = sizes.footprint, sizes.sequences.edited
        first = self.path.entry(0)

        def least(columns: int) -> int:
            rows = footprint.kept(columns) + footprint.chunk(columns, first) + footprint.row(columns, first)
            return max(sizes.states(columns), edited * rows, edited * footprint.ranking(self.site))

        def most(columns: int) -> int:
            units = footprint.units(self.site) + 1
            rows = sum(footprint.row(columns, self.path.entry(layer)) for layer in range(footprint.n_layers))
            return max(least(columns), edited * (footprint.kept(columns) + units * rows))

        step: Callable[[int], int] = lambda columns: edited * footprint.row(columns, first)  # noqa: E731
        return Need(least, most, step)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """The forward, then a row of every neuron through the blocks above its layer."""
        footprint, sequences = sizes.footprint, sizes.sequences
        blocks = sum(footprint.n_layers - self.path.entry(layer) for layer in range(footprint.n_layers))
        rows = footprint.units(self.site) * blocks * model.block_operations(tokens)
        return sequences.forwards() * model.forward_operations(tokens) + sequences.edited * rows

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": "ablation of single neurons",
            "intervention": self.intervention,
            "site": self.site,
            **self.told,
            "top_k": self.top_k,
        }

    def attribute(self, model: NeuronModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` neurons of every example whose loss lowers φ most.

        Args:
            memory_budget: bytes that the variant rows of one chunk may take; scores do not depend on it.
        """
        with torch.no_grad():
            states = model.states(batch, batch.get("target"))
            target = target_of(batch, states.scores)
            scores = self._falls(model, batch, states, target, memory_budget)
        about = target, states.scores.float().softmax(-1).gather(1, target[:, None])[:, 0]
        if self.site == "attn":
            return rank_sites(None, scores, self.top_k, *about)
        own = states.activation.unflatten(0, (-1, model.sequences_per_example)).abs().amax(1)
        return rank_neurons(scores, self.top_k, *about, None, with_coefficient(model.experts, own))

    def _falls(
        self, model: NeuronModel, batch: Batch, states: AnswerStates, target: Tensor, memory_budget: int
    ) -> Tensor:
        """φ − φ without each neuron, [batch, layers, units]. Every layer has one row more, which nothing is taken from,
        so that the same arithmetic stands on both sides of the difference."""
        change = self._change(states, batch)
        n_units = change.shape[-1]
        found: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
        for chunk in row_chunks(model, states, n_units + 1, memory_budget, self.path):
            rows: list[Tensor | None] = [None] * (model.n_layers + 1)
            attended: list[Tensor | None] = [None] * model.n_layers
            for layer, first, last in chunk:
                values = self.path.values(model, layer)
                moved = change[:, layer, first:last, None].float() * values[first:last]
                if last > n_units:
                    moved = torch.cat([moved, moved.new_zeros(len(moved), 1, moved.shape[-1])], 1)
                if self.site == "attn":
                    rows[layer] = states.residual[:, layer, None].expand(-1, last - first, -1)
                    whole = model.attend(layer, states.attention[:, layer])[:, None]
                    attended[layer] = (whole + moved).to(whole.dtype)  # as the model itself adds it up
                else:
                    whole = states.mlp_output[:, layer, None]
                    written = model.write(layer, (whole + moved).to(whole.dtype)) - model.write(layer, whole)
                    rows[layer + 1] = states.residual[:, layer + 1, None] + written  # through what lies behind
            log_prob = model.score_rows(states, rows, attended).float().log_softmax(-1)
            measured = _at(log_prob, target)
            if "against" in batch:
                measured = measured - _at(log_prob, batch["against"].long())
            for (layer, _, _), part in zip(chunk, measured.split([b - a for _, a, b in chunk], 1), strict=True):
                found[layer].append(part)
        phi = torch.stack([torch.cat(parts, 1) for parts in found], 1)
        return phi[..., n_units:] - phi[..., :n_units]

    def _change(self, states: AnswerStates, batch: Batch) -> Tensor:
        """What is added to each neuron's activation, [sequences, layers, units]."""
        if self.site == "attn":
            return -states.attention
        return self.replacement(states.activation, batch) - states.activation


def _at(log_prob: Tensor, classes: Tensor) -> Tensor:
    """Of each row, log_prob [batch, rows, classes] → [batch, rows]."""
    return log_prob.gather(2, classes[:, None, None].expand(-1, log_prob.shape[1], 1))[..., 0]
