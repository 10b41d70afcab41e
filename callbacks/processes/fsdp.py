"""One model over several devices (`trainer=fsdp`): each holds a part of every layer and gathers it for its turn.

Fits shard by PyTorch's `fully_shard`, whose gathering follows whole forwards and backwards that all processes make
together. Passes look inside the model, each process in its own order: theirs is `fsdp_gathering.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.fsdp_gathering import Gathering
from twinlens.models.structure import structure_of
from twinlens.models.twin import longest_list


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallelism for fits and passes, on GPUs or CPU processes.

    In a fit the blocks of the language model are sharded one by one, what remains of it together, and its head by
    itself; in passes the head stays whole. Checkpoints are written whole, so that a fit in the store is the same as of
    any other strategy.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Shard what Lightning's own leaves to each model's `configure_model`."""
        assert self.model is not None
        assert self.accelerator is not None
        fitting = trainer.state.fn == "fit"
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.model)
        if fitting:
            shard(self.model, self.device_mesh["data_parallel"])
        else:
            spread(self.model, self.root_device)
        self.model_to_device()
        self.barrier()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def on_predict_end(self) -> None:
        """Go on serving until every process has computed its share: these differ in size."""
        gathering = gathering_of(self.model)
        if gathering is not None:
            gathering.finish()

    def teardown(self) -> None:
        """Leave the model where other strategies do after a pass: in main memory."""
        super().teardown()
        if self.lightning_module is not None and gathering_of(self.lightning_module) is not None:
            self.lightning_module.cpu()


def owner_of(module: nn.Module | None) -> Any:
    """The classifier or language model inside a module, None where there is none."""
    parts = () if module is None else module.modules()
    return next((part for part in parts if hasattr(part, "backbone") and hasattr(part, "head")), None)


def shard(module: nn.Module, mesh: Any) -> None:
    """Shard the language model inside a module in place for a fit; a module without one stays as it is.

    Args:
        module: a classifier or language model.
        mesh: the devices.

    Raises:
        UserError: a head that shares its weights with the embeddings cannot be sharded apart from them.
    """
    owner = owner_of(module)
    if owner is None or isinstance(owner.backbone, FSDPModule):
        return
    if set(owner.head.parameters()) & set(owner.backbone.parameters()):
        raise UserError(
            f"trainer=fsdp cannot train model={owner.name}, whose output weights are its embeddings: expected a model "
            "with output weights of its own: use trainer=ddp, or fit=false."
        )
    for block in longest_list(owner.backbone):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(owner.backbone, mesh=mesh, reshard_after_forward=True)
    fully_shard(owner.head, mesh=mesh)


def spread(module: nn.Module, device: torch.device) -> None:
    """Spread the language model inside a module over all processes in place, for passes; its head stays whole.

    A module without a language model, or one spread before, stays as it is.

    Args:
        module: a classifier or language model, or a pass over one.
        device: of this process.
    """
    owner = owner_of(module)
    if owner is None or gathering_of(module) is not None:
        return
    with suppress(Exception):  # passes that read no parts go on; what reads them says what is wrong
        structure_of(owner.backbone)  # once it is spread, no process could look into it
    blocks = [list(block.modules()) for block in longest_list(owner.backbone)]
    inside = {part for block in blocks for part in block}
    rest = [part for part in owner.backbone.modules() if part not in inside]
    owner.gathering = Gathering([*blocks, rest], set(owner.head.parameters()), device)


def gathering_of(module: nn.Module | None) -> Gathering | None:
    """What puts the blocks of the language model inside a module together; None where it is not spread."""
    return getattr(owner_of(module), "gathering", None)


def is_sharded(model: nn.Module) -> bool:
    """Whether a fit has sharded the model."""
    return any(isinstance(part, FSDPModule) for part in model.modules())


def whole_model(model: LightningModule, make_model: Any, state: Mapping[str, Any]) -> LightningModule:
    """The model with the weights of a whole checkpoint; a sharded one is built anew: loading would need all ranks."""
    whole = make_model() if is_sharded(model) else model
    whole.load_state_dict(state)
    return whole
