"""Activations of chosen neurons at every token of texts, of one forward that keeps no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from twinlens.attribution.protocols import Batch
from twinlens.models.anatomy import Anatomy
from twinlens.models.forwards import backbone_arguments
from twinlens.models.padding import aligned
from twinlens.models.recording import recording
from twinlens.models.windows import by_window

INPUTS = {"activation": 0, "attention_input": 1}
"""What a forward reads of a neuron → number of its site: FFN neurons, attention neurons."""

Take = Callable[[int, int, Tensor, Tensor, Tensor], None]
"""(site, layer, activation [texts, tokens, units], which tokens count and their positions [texts, tokens]) → None."""


@torch.no_grad()
def token_activations(
    anatomy: Anatomy, batch: Batch, units: Mapping[int, Sequence[Tensor]], special: Tensor, take: Take
) -> None:
    """Hand over the activations of chosen neurons, layer by layer.

    Windows of a document follow each other in its tokens; positions count on from window to window, without padding.

    Args:
        anatomy: of the model.
        batch: texts.
        units: number of a site → units of every layer, [units] each.
        special: ids of tokens that do not count.
        take: is called once for each site and layer.
    """
    read = aligned(anatomy.backbone, by_window(batch))
    n, device = len(batch["index"]), batch["input_ids"].device
    there = batch["attention_mask"].bool().reshape(read["attention_mask"].shape).any(1, keepdim=True)
    tokens = (read["attention_mask"].bool() & there).reshape(n, -1)
    place = tokens.long().cumsum(1) - 1
    counts = tokens & ~torch.isin(read["input_ids"], special.to(device)).reshape(n, -1)
    chosen = {site: [own.to(device) for own in layers] for site, layers in units.items()}

    def keep(name: str, layer: int, tensor: Tensor) -> None:
        site = INPUTS[name]
        if site in chosen:
            own = tensor.index_select(-1, chosen[site][layer])
            take(site, layer, own.reshape(*counts.shape, own.shape[-1]), counts, place)

    names = [name for name, site in INPUTS.items() if site in chosen]
    with recording(anatomy, read["attention_mask"].shape, keep, *names):
        anatomy.backbone(**backbone_arguments(anatomy.backbone, read), use_cache=False)
