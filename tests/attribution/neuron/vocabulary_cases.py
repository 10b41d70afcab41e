"""Tiny models with a vocabulary readout, their engines and the parts the oracles see, built once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from tests.families import VOCABULARY, random_batch, tiny_backbone
from tests.oracles_neuron_level import Parts, parts_of
from twinlens.attribution.neuron.readout import Readout, readout_of
from twinlens.attribution.residual_protocol import ResidualStates
from twinlens.models.anatomy import Anatomy
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual

PLENTY = 1 << 32
FAMILIES = ["gpt2", "opt", "gpt_neox", "gpt_neox_sequential", "llama", "qwen2", "bloom", "gemma", "opt_projected"]
LENGTHS = [5, 3, 4]


@dataclass(frozen=True)
class Case:
    """A batch under one model."""

    anatomy: Anatomy
    engine: ResidualEngine
    head: nn.Linear
    batch: dict[str, Tensor]
    states: ResidualStates
    target: Tensor
    parts: list[Parts]

    def readout(self, mode: str = "corrected") -> Readout:
        return readout_of(self.engine, self.states, self.target, mode)

    def first_token(self, row: int) -> int:
        """Column of a sentence's first token."""
        return int(self.batch["attention_mask"][row].argmax())


@cache
def engine_of(name: str) -> ResidualEngine:
    backbone = tiny_backbone(name)
    width = getattr(backbone.config, "word_embed_proj_dim", backbone.config.hidden_size)
    torch.manual_seed(3)
    head = nn.Linear(width, VOCABULARY, bias=name == "gpt_neox").requires_grad_(False)
    return build_residual(build_anatomy(backbone), head)


@cache
def case(name: str, padding: str = "left", n_sentences: int = 3) -> Case:
    engine = engine_of(name)
    batch = random_batch(LENGTHS[:n_sentences], padding)
    ids = [row[mask.bool()] for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    parts = [parts_of(engine.anatomy, row) for row in ids]
    target = torch.arange(n_sentences) * 7 + 3
    return Case(engine.anatomy, engine, engine.readout, batch, engine.states(batch), target, parts)


def close(got: Tensor, expected: Tensor, tolerance: float = 2e-5) -> bool:
    """Largest difference within `tolerance` of the largest entry."""
    return float((got.double() - expected.double()).abs().max()) <= tolerance * max(
        1e-6, float(expected.double().abs().max())
    )
