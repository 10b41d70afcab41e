"""A model whose matrices are shared out among processes and put together whenever one is read.

Passes call single blocks, read single weights and take gradients at activations, and each process has its own batches:
which block comes next is another in every process, and so is their number. Therefore nothing is gathered by schedule.
Reading a matrix asks for the block it belongs to. Whoever lacks one begins a round, in which all processes say what
they lack and then give their parts of all that; a process that is done with its own goes on giving.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import saved_tensors_hooks

KEPT = 2
"""Blocks that stay whole in a process: the one that runs and the one before it, which methods compare."""
NOTHING = -1
"""What a process that is done asks for."""

Weights = Sequence[tuple[nn.Module, str]]
"""Parameters by their module and their name in it."""


@dataclass(frozen=True)
class _Place:
    """Where a matrix lies.

    Attributes:
        unit: number of the unit.
        offset: of its first number in the unit.
        shape: its own.
    """

    unit: int
    offset: int
    shape: torch.Size


class Gathering:
    """Shares out the matrices of some units among all processes, in place; from then on reading one gathers its unit.

    Outside passes all processes read the same in the same order; inside, whatever they like until `serve`.

    Args:
        units: matrices that are gathered together, those of a block for example.
        device: where each process keeps its part.
        anchor: a parameter that stays whole: matrices are handed out where it is.
    """

    def __init__(self, units: Sequence[Weights], device: torch.device, anchor: nn.Parameter) -> None:
        self._rank, self._world = distributed.get_rank(), distributed.get_world_size()
        self._device = device
        self._anchor = anchor
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._parts = [self._share_out(number, weights) for number, weights in enumerate(units)]

    def _share_out(self, unit: int, weights: Weights) -> Tensor:
        """This process's part of a unit, [numbers / processes]; the rest is let go."""
        offset, flat = 0, []
        for module, name in weights:
            weight = module._parameters.pop(name)
            assert weight is not None
            _read_from(self, module, name, _Place(unit, offset, weight.shape))
            flat.append(weight.detach().flatten())
            offset += weight.numel()
        flat.append(flat[0].new_zeros(-offset % self._world))
        return torch.cat(flat).chunk(self._world)[self._rank].clone().to(self._device)

    def whole(self, unit: int) -> Tensor:
        """All numbers of a unit, [numbers]; gathered unless it is among those kept."""
        if unit not in self._kept:
            self._round(unit)
        self._kept.move_to_end(unit)
        return self._kept[unit]

    def serve(self) -> None:
        """Give parts until no process lacks anything: a pass ends in all of them or in none.

        Then all let their units go, so that outside passes they lack the same.
        """
        while self._round(NOTHING):
            pass
        self._kept.clear()

    @property
    def n_whole(self) -> int:
        """Units that are whole in this process now."""
        return len(self._kept)

    @contextmanager
    def saving_references(self) -> Iterator[None]:
        """Let what backward needs of a matrix be gathered again, instead of keeping every block whole until then."""
        with saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _round(self, wanted: int) -> bool:
        """Say what this process lacks and serve all; whether any lacked something."""
        mine = torch.tensor([wanted], device=self._device)
        said = [torch.empty_like(mine) for _ in range(self._world)]
        distributed.all_gather(said, mine)
        asked = [int(unit) for unit in said]
        for rank, unit in enumerate(asked):
            if unit != NOTHING:
                self._gather(unit, rank)
        return any(unit != NOTHING for unit in asked)

    def _gather(self, unit: int, rank: int) -> None:
        part = self._parts[unit]
        if rank != self._rank:
            distributed.gather(part, dst=rank)
            return
        while len(self._kept) >= KEPT:
            self._kept.popitem(last=False)
        flat = part.new_empty(self._world * len(part))
        distributed.gather(part, list(flat.chunk(self._world)), dst=rank)
        self._kept[unit] = flat.to(self._anchor.device)

    def _pack(self, tensor: Tensor) -> Any:
        memory = tensor.untyped_storage().data_ptr()
        for unit, flat in self._kept.items():
            if memory == flat.untyped_storage().data_ptr():
                return unit, tensor.shape, tensor.stride(), tensor.storage_offset()
        return tensor

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        unit, shape, stride, offset = packed
        return self.whole(unit).as_strided(shape, stride, offset)


def _read_from(gathering: Gathering, module: nn.Module, name: str, place: _Place) -> None:
    """Make a module's attribute a look-up, as torch's parametrizations do: by a class of the module's own."""

    def read(self: nn.Module) -> Tensor:
        whole = gathering.whole(place.unit)
        return whole[place.offset : place.offset + place.shape.numel()].view(place.shape)

    own = type(module)
    module.__class__ = type(own.__name__, (own,), {"__module__": own.__module__, name: property(read)})
