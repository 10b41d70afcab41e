"""One model over several devices (`trainer=fsdp`): each holds a part of every block and gathers it for its turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from attribution.base import UserError
from callbacks.gathering import Gathering


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallelism on GPUs or CPU processes, for the fit and for all passes.

    A fit runs every block in the same order in all processes: PyTorch's `fully_shard` gathers ahead of it and shards
    gradients and moments too; checkpoints are written whole, so that a fit in the store is the same as of any other
    strategy. A pass runs and reads blocks in its own order: `callbacks.gathering` gathers each when it is read.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._gathering: Gathering | None = None

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
            self._gathering = spread(self.model, self.root_device)
        self.model_to_device()
        self.barrier()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        if self._gathering is None:
            return super().predict_step(*args, **kwargs)
        with self._gathering.saving_references():
            return super().predict_step(*args, **kwargs)

    def on_predict_end(self) -> None:
        """Go on giving until every process has computed its share: these differ in size."""
        if self._gathering is not None:
            self._gathering.serve()


def owner_of(module: nn.Module | None) -> Any:
    """The classifier or language model inside a module, None where there is none."""
    parts = () if module is None else module.modules()
    return next((part for part in parts if hasattr(part, "backbone") and hasattr(part, "head")), None)


def shard(module: nn.Module, mesh: Any) -> None:
    """Shard a classifier or language model that is to be fitted, in place; one sharded before stays as it is.

    Args:
        module: the model.
        mesh: the devices.

    Raises:
        UserError: a head that shares its weights with the embeddings cannot be sharded apart from them.
    """
    owner = owner_of(module)
    if owner is None or isinstance(owner.backbone, FSDPModule):
        return
    head = set(owner.head.parameters())
    shared = head & set(owner.backbone.parameters())
    if shared:
        raise UserError(
            f"trainer=fsdp cannot train model={owner.name}, whose output weights are its embeddings: expected a model "
            "with output weights of its own: use trainer=ddp, or fit=false."
        )
    for block in blocks_of(owner.backbone):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(owner.backbone, mesh=mesh, reshard_after_forward=True)
    fully_shard(owner.head, mesh=mesh)


def spread(module: nn.Module, device: torch.device) -> Gathering | None:
    """Share out the language model inside a module in place, once; None where there is none.

    Matrices are shared out block by block, and each embedding by itself. What is small stays whole everywhere: vectors,
    which engines keep, and the head, whose weights methods read; so does an embedding that is the head's weight.

    Args:
        module: a pass, or what it runs on.
        device: where the parts are kept.
    """
    owner = owner_of(module)
    if owner is None:
        return None
    backbone = owner.backbone
    if "gathering" not in vars(backbone):
        whole = set(owner.head.parameters())
        blocks = list(blocks_of(backbone))
        inside = {part for block in blocks for part in block.modules()}
        outside = [part for part in backbone.modules() if part not in inside]
        embeddings = [part for part in outside if isinstance(part, nn.Embedding)]
        units = [matrices_of(part, whole) for part in (*blocks, *embeddings)]
        # on the backbone, which outlives the Trainers of its passes
        vars(backbone)["gathering"] = Gathering([unit for unit in units if unit], device, next(owner.head.parameters()))
    return vars(backbone)["gathering"]


def matrices_of(module: nn.Module, whole: set[nn.Parameter]) -> list[tuple[nn.Module, str]]:
    """The parameters inside a module that have two axes or more and are not to stay whole."""
    return [
        (part, name)
        for part in module.modules()
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.dim() > 1 and parameter not in whole
    ]


def blocks_of(backbone: nn.Module) -> nn.ModuleList:
    """The blocks of a language model: its longest list of modules."""
    return max((part for part in backbone.modules() if isinstance(part, nn.ModuleList)), key=len)


def whole_model(model: LightningModule, make_model: Any, state: Mapping[str, Any]) -> LightningModule:
    """The model with the weights of a whole checkpoint; a sharded one is built anew: loading would need all ranks."""
    whole = make_model() if is_sharded(model) else model
    whole.load_state_dict(state)
    return whole


def is_sharded(model: nn.Module) -> bool:
    """Whether a model is one that `shard` has sharded for its fit."""
    return any(isinstance(part, FSDPModule) for part in model.modules())
