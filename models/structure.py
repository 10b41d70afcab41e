"""Names of a decoder's parts: found in the model itself, or in a small twin where it has no values of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.models.block_probe import BlockProbe
from twinlens.models.chain import Chain, chain_of, eagerly
from twinlens.models.discovery import BlockParts, parts_of
from twinlens.models.twin import described, kind_of, twin_of


@dataclass(frozen=True)
class Structure:
    """What a decoder is made of, by dotted names.

    Attributes:
        blocks: the list of its blocks.
        norm: reads the last block's output; None: nothing does.
        projection: linear map behind it; None: there is none.
        parts: of every block, names within it.
    """

    blocks: str
    norm: str | None
    projection: str | None
    parts: tuple[BlockParts | None, ...]

    def told(self) -> str:
        """One line about the first block and what lies around it."""
        block = self.parts[0]
        if block is None or block.attention is None or block.mlp is None:
            return f"{len(self.parts)} blocks in {self.blocks}, of which the first is no sum of its input and two parts"
        heads, neurons = block.heads, block.neurons
        made = "what was not taken apart" if neurons is None else neurons.told()
        mixed = [part.experts for part in self.parts if part is not None and part.experts is not None]
        made = made if block.experts is None else block.experts.told()
        experts = f", {len(mixed)} of them with {mixed[0].told()}" if mixed and block.experts is None else ""
        shared = "heads that were not taken apart" if heads is None else f"{heads.n_heads} heads on {heads.n_key_heads}"
        order = "beside" if block.parallel else "behind"
        return (
            f"{len(self.parts)} blocks in {self.blocks}{experts}: {block.attention.told()} of {shared}, and {order} it "
            f"{block.mlp.told()} of {made}; then {self.norm or 'no norm'}"
        )


class UnknownParts(UserError):
    """A model without values of its own, whose parts no twin shows either: nothing is known of it yet."""


_KNOWN: WeakKeyDictionary[Any, Structure | None] = WeakKeyDictionary()
"""What was found of each model; weights that change in a fit leave its structure as it is."""
_OF_TWINS: dict[str, Structure | None] = {}
"""The same by configuration, of models without values."""


def structure_of(backbone: Any) -> Structure | None:
    """The parts of a decoder; None: it has no chain of blocks. What is found once is kept.

    Where a twin stands for the model, numbers that depend on its widths (outputs of fused projections, factors that are
    computed of widths) are the twin's; nothing can be computed with them, as the model has no values.

    Raises:
        UnknownParts: the model has no values here, and no twin of it can be built.
    """
    if backbone in _KNOWN:
        return _KNOWN[backbone]
    if has_values(backbone):
        _KNOWN[backbone] = _found_in(backbone)
        return _KNOWN[backbone]
    known = described(backbone)
    if known not in _OF_TWINS:
        _OF_TWINS[known] = _found_in_twin(backbone)
    return _OF_TWINS[known]


def has_values(backbone: Any) -> bool:
    """Whether this process holds a model's own values, so that it can be looked into."""
    return all(not weight.is_meta and type(weight.data) is Tensor for weight in backbone.parameters())


def remember(backbone: Any, structure: Structure | None) -> None:
    """Take a structure for the backbone's, as one that was found of the same configuration; None: look anew."""
    _KNOWN.pop(backbone, None)
    if structure is not None:
        _KNOWN[backbone] = structure


def _found_in(backbone: Any) -> Structure | None:
    chain = chain_of(backbone)
    if chain is None:
        return None
    with eagerly(backbone):
        parts = _parts_of_blocks(chain)
    names = {module: name for name, module in backbone.named_modules()}
    norm, projection = (None if part is None else names[part] for part in (chain.tail.norm, chain.tail.projection))
    return Structure(names[chain.blocks], norm, projection, tuple(parts))


def _found_in_twin(backbone: Any) -> Structure | None:
    """The twin's parts in as many blocks as the model has."""
    try:
        twin: Any = twin_of(backbone)
        found = None if twin is None else _found_in(twin)
        if found is not None:
            of_kind = {kind_of(b): p for b, p in zip(twin.get_submodule(found.blocks), found.parts, strict=True)}
            own = [of_kind[kind_of(block)] for block in backbone.get_submodule(found.blocks)]
            return replace(found, parts=tuple(own))
    except Exception:  # each type has its own ways to fail with sizes that nobody meant
        twin = None
    if twin is not None:
        return None
    raise UnknownParts(
        f"the {backbone.config.model_type} model has no values of its own here (shapes alone, or shared out over "
        "processes), and no small model of its kind can be built, so that its parts cannot be found; expected a "
        "loaded model on each process: use trainer.strategy=ddp."
    )


def _parts_of_blocks(chain: Chain) -> list[BlockParts | None]:
    """The parts of every block; blocks with the same modules of the same shapes are looked at once."""
    known: dict[Any, BlockParts | None] = {}
    found = []
    for block, call in zip(chain.blocks, chain.calls, strict=True):
        kind = (kind_of(block), tuple((name, weight.shape) for name, weight in block.named_parameters()))
        if kind not in known:
            try:
                known[kind] = parts_of(BlockProbe(block, call))
            except Exception:  # a block that cannot be called by itself, or whose parts are called in another way
                known[kind] = None
        found.append(known[kind])
    return found
