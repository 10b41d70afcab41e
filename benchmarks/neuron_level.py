"""The scores of the second paper over many prompts, and their former forms, which took one prompt after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GPT2Config

from benchmarks.logprob_increase import MEMORY_BUDGET, build_subject
from benchmarks.pairs import Timed, timed
from twinlens.attribution.neuron.increase import Units, dense_increases
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.readout import Readout, readout_of
from twinlens.attribution.neuron.series_increases import series_increases
from twinlens.attribution.neuron.target_ranks import bare_readout, target_ranks
from twinlens.attribution.protocols import Batch
from twinlens.models.residual import ResidualEngine

COLUMNS = 4096
"""Outputs of a block in the former form of ranks."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of 8 to 16 random tokens under a model with random weights; explained is what it predicts."""

    model: ResidualEngine
    batch: Batch


def build_prompts(config: GPT2Config, n_prompts: int, seed: int = 0) -> Prompts:
    """Padded on the left."""
    model = build_subject(config, 1, 8, 1, seed).model
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size, (n_prompts, 16), generator=generator)
    lengths = torch.randint(8, 17, (n_prompts,), generator=generator)
    mask = (torch.arange(16) >= 16 - lengths[:, None]).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask, "index": torch.arange(n_prompts)}
    return Prompts(model, {**batch, "labels": torch.full((n_prompts,), -1)})


def best(prompts: Prompts, score: str, top_k: int) -> Timed[Tensor]:
    """The best FFN neurons of all prompts by one score, forward and ranks included, [prompts, top_k]."""
    method = NeuronScore(score, top_k=top_k)
    return timed(lambda: method.attribute(prompts.model, prompts.batch, MEMORY_BUDGET).score)


def shared_ranks(model: ResidualEngine, values: Tensor, targets: Tensor) -> Timed[Tensor]:
    """Ranks of all targets by one product with the vocabulary, [targets, units]."""
    return timed(lambda: target_ranks(bare_readout(model, targets), values, targets, MEMORY_BUDGET))


def ranks_by_prompt(model: ResidualEngine, values: Tensor, targets: Tensor) -> Timed[Tensor]:
    """The same by a product for every target, as each prompt's own batch took it formerly."""
    weight = model.output_weight
    assert weight is not None

    def ranks(target: int) -> Tensor:
        directions = model.final_direction(values)
        own = directions @ weight[target]
        found = torch.ones(len(values), dtype=torch.int64)
        for left in range(0, len(weight), COLUMNS):
            scores = directions @ weight[left : left + COLUMNS].T
            if left <= target < left + COLUMNS:
                scores[:, target - left] = own.minimum(scores[:, target - left])
            found += (scores > own[:, None]).sum(1)
        return found

    return timed(lambda: torch.stack([ranks(target) for target in targets.tolist()]))


def one_layer(prompts: Prompts, site: str, layer: int) -> tuple[Readout, Units]:
    """All neurons of a site in one layer, the states taken outside the clock."""
    states = prompts.model.states(prompts.batch)
    units = (attention_units if site == "attention" else ffn_units)(prompts.model, states)
    rows, values = slice(layer, layer + 1), units.values(layer)
    part = Units(units.base[:, rows], units.coefficient[:, rows], lambda _: values, units.positional)
    return readout_of(prompts.model, states, states.scores.argmax(-1)), part


def by_series(readout: Readout, units: Units) -> Timed[Tensor]:
    """Sums of all increases and of the positive ones, [2, batch]."""
    return timed(lambda: _sums(dict(series_increases(readout, units, MEMORY_BUDGET))[0]))


def by_exponentials(readout: Readout, units: Units) -> Timed[Tensor]:
    """The same with an exponential per neuron, sentence, token and output, as formerly."""
    return timed(lambda: _sums(dict(dense_increases(readout, units, MEMORY_BUDGET))[0]))


def _sums(increase: Tensor) -> Tensor:
    flat = increase.flatten(1).double()
    return torch.stack([flat.sum(1), flat.clamp(min=0).sum(1)])


def share_of_other_ranks(ours: Tensor, peer: Tensor) -> float:
    """Share of ranks that differ; infinite where one differs by more than 1.

    Two outputs that differ in the last digit of a float32 product alone may change places.
    """
    apart = (ours - peer).abs()
    return float("inf") if int(apart.max()) > 1 else float((apart > 0).double().mean())
