"""Neurons of blocks among which are mixtures of experts: their places, what stands for their projections, refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from twinlens.attribution.protocols import ExpertPlaces
from twinlens.models.discovery import BlockParts, Write
from twinlens.models.expert_projection import MixtureProjection, PaddedProjection
from twinlens.models.expert_weights import expert_sizes
from twinlens.models.linear_layers import projection_shape
from twinlens.models.mixture import DROPPED
from twinlens.models.neuron_parts import STILL

Pairs = Sequence[tuple[Any, BlockParts]]
"""Blocks in order, and what each is made of."""


def sizes_of_experts(pairs: Pairs) -> dict[int, tuple[int, int, int]]:
    """Routed experts, units of each, and units of the shared ones together, of the layers that are mixtures."""
    found: dict[int, tuple[int, int, int]] = {}
    for layer, (block, part) in enumerate(pairs):
        if part.experts is not None:
            n_experts, units, _ = expert_sizes(block.get_submodule(part.experts.experts))
            shared = sum(projection_shape(block.get_submodule(each.projection))[0] for each in part.experts.shared)
            found[layer] = (n_experts, units, shared)
    return found


def down_projections(pairs: Pairs, places: ExpertPlaces | None) -> Mapping[Any, Any]:
    """The linear map of every block's neurons, or what stands for it; beside mixtures all are as wide as the widest."""
    dense = {block: projection_of(block, part.mlp) for block, part in pairs if part.experts is None}
    if places is None:
        return dense
    width = max(places.n_units, *(projection_shape(module)[0] for module in dense.values()), 0)
    found: dict[Any, Any] = {}
    for block, part in pairs:
        mixed = part.experts
        found[block] = (
            PaddedProjection(dense[block], width) if mixed is None else MixtureProjection(block, mixed, width)
        )
    return found


def projection_of(block: Any, write: Write | None) -> nn.Module:
    """The linear map behind a summand that has one."""
    assert write is not None
    assert write.projection is not None
    return block.get_submodule(write.projection)


def unread(where: str, kind: str, why: str) -> str:
    """The refusal of a mixture whose experts are no neurons.

    Args:
        where: layer and model.
        kind: class of what computes them.
        why: a word of `twinlens.models.mixture`.
    """
    if why == DROPPED:
        return (
            f"the router in {where} drops tokens: copies of one token get different outputs of its {kind}, so that an "
            "edited token would change others; expected a router that chooses for each token by itself: load the model "
            f"without a capacity per expert, or {STILL}."
        )
    return (
        f"the experts in {where} cannot be read: its {kind} computes them in a call that does not show which token "
        "goes to which expert, as a fused kernel does; expected experts that are called with hidden states, numbers of "
        "experts and their weights, as in transformers' experts interface: load the model without kernels of its own "
        f"(use_kernels=False), or {STILL}."
    )
