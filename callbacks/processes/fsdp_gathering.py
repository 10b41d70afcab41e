"""A frozen model over several processes: each holds a part of every block and puts a block together when it is read.

Methods call single blocks, read their weights as tensors and go backward through them, and every process does so for
shards of its own, in an order of its own. So nothing is gathered by a schedule. A process that reads weights which it
does not have announces the block in a *round*; in a round all processes say what they want, and all contribute their
parts of it. One that has finished its share keeps serving rounds until all have finished.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.pytorch_utils import Conv1D

KEPT = 2
"""Blocks that a process holds whole: the one that is read and the one before."""
NOTHING = -1
"""What a process wants that has finished its share."""
PART = "part_of_block"
"""Name of the parameter that holds a process's part of a block."""

all_gather: Any = getattr(torch.distributed, "all_gather_single", None) or torch.distributed.all_gather_into_tensor
"""From a tensor of each process to one of all; older versions of PyTorch have the second name alone."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in its block put together.

    Attributes:
        block: number of the block.
        dtype: type of the numbers; another one than the block's is a copy that mixed precision computes with.
        size, stride, offset: of the tensor over the block's numbers.
    """

    block: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class Gathering:
    """The matrices of some blocks, spread over all processes of the run in place; vectors stay whole everywhere.

    Reading such a matrix (`module.weight`) gathers its block, so all processes must read equally often, or be inside
    a pass that ends with `finish` in each of them. What backward needs of a matrix is gathered again in its time.

    Args:
        blocks: each with parameters of its own, and the same in all processes.
        whole: parameters that stay whole, as others share them.
        device: where processes exchange tensors.
    """

    def __init__(self, blocks: Iterable[Sequence[nn.Module]], whole: set[nn.Parameter], device: torch.device) -> None:
        self.device = device
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        self._homes: list[nn.Module] = []
        self._kept: OrderedDict[int, dict[torch.dtype, Tensor]] = OrderedDict()
        self._addresses: dict[int, tuple[int, torch.dtype]] = {}
        for modules in blocks:
            self._spread(modules, whole)

    def read(self, place: Place) -> Tensor:
        """A view of the matrix at a place; it stays valid for whoever holds it."""
        return self._numbers(place.block, place.dtype).as_strided(place.size, place.stride, place.offset)

    def type_of(self, block: int) -> torch.dtype:
        """Type of a block's numbers, which conversions of the model change."""
        return self._part(block).dtype

    @property
    def whole(self) -> list[int]:
        """Blocks that this process holds whole, the one that was read last at the end."""
        return list(self._kept)

    def finish(self) -> None:
        """Serve the other processes until all have come here, then keep no block whole."""
        while self._round(NOTHING, None):
            pass
        self._drop(0)

    def saving(self) -> AbstractContextManager[None]:
        """Inside, autograd keeps the places of matrices instead of the matrices."""
        return saved_tensors_hooks(self._pack, self._unpack)

    # -- spreading -----------------------------------------------------------------------------------------------

    def _spread(self, modules: Sequence[nn.Module], whole: set[nn.Parameter]) -> None:
        """Replace the matrices of a block by this process's part of them, and those attributes by reads of the block.

        Matrices of one type make a block of numbers, so that a part has one type.
        """
        owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for module in modules:
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1 and parameter not in whole:
                    owners.setdefault(parameter, []).append((module, name))
        for dtype in dict.fromkeys(parameter.dtype for parameter in owners):
            self._spread_numbers({p: where for p, where in owners.items() if p.dtype == dtype})

    def _spread_numbers(self, owners: dict[nn.Parameter, list[tuple[nn.Module, str]]]) -> None:
        block = len(self._homes)
        total = sum(parameter.numel() for parameter in owners)
        length = -(-total // self.world_size)
        first = next(iter(owners))
        part = first.new_zeros(length)
        start, offset = self.rank * length, 0
        for parameter, where in owners.items():
            flat = parameter.detach().reshape(-1)
            low, high = max(start, offset), min(start + length, offset + len(flat))
            if low < high:
                part[low - start : high - start] = flat[low - offset : high - offset]
            for module, name in where:
                del module._parameters[name]
                read_from(self, module, name, block, tuple(parameter.shape), offset)
            offset += len(flat)
        home = owners[first][0][0]
        home.register_parameter(f"{PART}_{block}", nn.Parameter(part, requires_grad=False))
        self._homes.append(home)

    def _part(self, block: int) -> Tensor:
        part = self._homes[block]._parameters[f"{PART}_{block}"]
        assert part is not None
        return part.detach()

    # -- rounds --------------------------------------------------------------------------------------------------

    def _numbers(self, block: int, dtype: torch.dtype) -> Tensor:
        """All numbers of a block, in its own type or in that of mixed precision."""
        if block not in self._kept:
            self._gather(block)
        self._kept.move_to_end(block)
        types = self._kept[block]
        if dtype not in types:
            with torch.no_grad():
                self._keep(block, next(iter(types.values())).to(dtype))
        return types[dtype]

    def _gather(self, block: int) -> None:
        self._drop(KEPT - 1)
        part = self._part(block)
        with torch.inference_mode(False):
            # taken before the round begins: where there is no room for it, no other process waits for this one
            numbers = torch.empty(self.world_size * len(part), dtype=part.dtype, device=self.device)
            self._round(block, numbers)
            self._kept[block] = {}
            self._keep(block, numbers.to(part.device))

    def _keep(self, block: int, numbers: Tensor) -> None:
        self._kept[block][numbers.dtype] = numbers
        self._addresses[numbers.untyped_storage().data_ptr()] = (block, numbers.dtype)

    def _drop(self, leave: int) -> None:
        """Let the blocks go that were read longest ago."""
        while len(self._kept) > leave:
            _, types = self._kept.popitem(last=False)
            for numbers in types.values():
                del self._addresses[numbers.untyped_storage().data_ptr()]

    @torch.no_grad()
    def _round(self, wanted: int, numbers: Tensor | None) -> bool:
        """Say what this process wants, contribute to what all want, and fill `numbers` with its block.

        Returns:
            whether any process wanted something.
        """
        answers = torch.empty(self.world_size, dtype=torch.long, device=self.device)
        all_gather(answers, torch.tensor([wanted], device=self.device))
        asked = answers.tolist()
        for block in sorted(set(asked) - {NOTHING}):
            # as bytes: not every backend knows every type of numbers
            part = self._part(block).to(self.device).view(torch.uint8)
            if asked.count(block) == self.world_size:
                assert numbers is not None
                all_gather(numbers.view(torch.uint8), part)
                continue
            for rank, other in enumerate(asked):  # no whole block where nobody reads it
                if other == block:
                    mine = None
                    if rank == self.rank:
                        assert numbers is not None
                        mine = list(numbers.view(torch.uint8).chunk(self.world_size))
                    torch.distributed.gather(part, mine, dst=rank)
        return any(block != NOTHING for block in asked)

    # -- backward ------------------------------------------------------------------------------------------------

    def _pack(self, tensor: Tensor) -> Tensor | Place:
        known = self._addresses.get(tensor.untyped_storage().data_ptr())
        if known is None:
            return tensor
        return Place(*known, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, packed: Tensor | Place) -> Tensor:
        return self.read(packed) if isinstance(packed, Place) else packed


def read_from(
    gathering: Gathering, module: nn.Module, name: str, block: int, shape: tuple[int, ...], offset: int
) -> None:
    """Make an attribute of a module a read of its block, by a class of its own, whose forward saves places alone.

    Args:
        name: of the attribute, which the module no longer has.
        block, shape, offset: where its numbers lie; they are contiguous.
    """
    kind: Any = type(module)
    linear = isinstance(module, nn.Linear | Conv1D)
    stride = torch.empty(shape, device="meta").stride()

    def read(self: Any) -> Tensor:
        dtype = gathering.type_of(block)
        if self.__dict__.get("_runs") and linear and torch.is_autocast_enabled(gathering.device.type):
            # autocast would make this copy by itself, and backward would then keep it
            dtype = torch.get_autocast_dtype(gathering.device.type)
        return gathering.read(Place(block, dtype, shape, stride, offset))

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        self.__dict__["_runs"] = True
        try:
            with gathering.saving():
                return kind.forward(self, *arguments, **named)
        finally:
            self.__dict__["_runs"] = False

    parts: dict[str, Any] = {name: property(read), "__module__": kind.__module__}
    if not getattr(kind, "saves_places", False):
        parts |= {"forward": forward, "saves_places": True}
    module.__class__ = type(kind.__name__, (kind,), parts)
