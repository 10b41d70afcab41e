"""One model over several devices (`trainer=fsdp`): each holds a part of every layer and gathers it for its turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from attribution.base import UserError
from callbacks.method_graph import kind_of, reads_of

TARGET = "callbacks.sharded.ShardedStrategy"


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallelism (PyTorch's `fully_shard`) for fits and predictions, on GPUs or CPU processes.

    The blocks of the language model are sharded one by one, what remains of it together, and its head by itself while
    it is trained: predictions leave the head whole, as methods read its weights. Checkpoints are written whole, so that
    a fit in the store is the same as of any other strategy.
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
        shard(self.model, self.device_mesh["data_parallel"], with_head=fitting)
        self.model_to_device()
        self.barrier()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def on_predict_start(self) -> None:
        """From here on every forward tells the other processes that it takes place, as all must gather with it."""
        owner = owner_of(self.model)
        self._forward = None if owner is None else owner.backbone
        if self._forward is not None:
            self._hook = self._forward.register_forward_pre_hook(self._tell, prepend=True)

    def on_predict_end(self) -> None:
        """Go on gathering until every process has computed its share: these differ in size."""
        if self._forward is None:
            return
        self._hook.remove()
        token = torch.zeros(1, 1, dtype=torch.long, device=self.root_device)
        while self._any(False):
            with torch.no_grad():
                self._forward(input_ids=token, attention_mask=torch.ones_like(token), use_cache=False)

    def _tell(self, *forward: Any) -> None:
        self._any(True)

    def _any(self, mine: bool) -> bool:
        """Whether any process still computes."""
        working = torch.tensor(float(mine), device=self.root_device)
        torch.distributed.all_reduce(working)
        return bool(working > 0)


def owner_of(module: nn.Module | None) -> Any:
    """The classifier or language model inside a module, None where there is none."""
    parts = () if module is None else module.modules()
    return next((part for part in parts if hasattr(part, "backbone") and hasattr(part, "head")), None)


def shard(module: nn.Module, mesh: Any, with_head: bool) -> None:
    """Shard the language model inside a module in place; a module without one, or one sharded before, stays as it is.

    Args:
        module: a classifier or language model, or a pass over one.
        mesh: the devices.
        with_head: shard the head, too.

    Raises:
        UserError: a head that shares its weights with the embeddings cannot be sharded apart from them.
    """
    owner = owner_of(module)
    if owner is None or isinstance(owner.backbone, FSDPModule):
        return
    head = set(owner.head.parameters())
    shared = head & set(owner.backbone.parameters())
    if with_head and shared:
        raise UserError(
            f"trainer=fsdp cannot train model={owner.name}, whose output weights are its embeddings: expected a model "
            "with output weights of its own: use trainer=ddp, or fit=false."
        )
    for block in blocks_of(owner.backbone):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(owner.backbone, mesh=mesh, reshard_after_forward=True, ignored_params=shared)
    if with_head:
        fully_shard(owner.head, mesh=mesh)


def blocks_of(backbone: nn.Module) -> nn.ModuleList:
    """The blocks of a language model: its longest list of modules."""
    return max((part for part in backbone.modules() if isinstance(part, nn.ModuleList)), key=len)


def is_sharded(trainer: Mapping[str, Any]) -> bool:
    """Whether the Trainer's settings shard the model."""
    strategy = trainer.get("strategy")
    return isinstance(strategy, Mapping) and strategy.get("_target_") == TARGET


def refuse_what_needs_whole_blocks(methods: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Refuse methods that read or call single layers of the model, of which no device holds all.

    Raises:
        UserError: naming the methods.
    """
    if not is_sharded(trainer):
        return
    refused = [
        name for name, method in methods.items() if kind_of(method) == "neuron" or reads_of(method) not in READABLE
    ]
    if refused:
        raise UserError(
            f"trainer=fsdp holds no layer whole on any device, but method={','.join(refused)} reads single layers or "
            "the weights of epochs; expected methods that read the head or texts: fine-tune with trainer=fsdp, then "
            "explain with trainer=ddp fit=false model.path=RUN/model, or leave them out."
        )


READABLE = ("head", "text")
"""What instance methods may read of a sharded model, see `callbacks.method_graph.reads_of`."""


def whole_model(model: LightningModule, make_model: Any, state: Mapping[str, Any]) -> LightningModule:
    """The model with the weights of a whole checkpoint; a sharded one is built anew: loading would need all ranks."""
    whole = make_model() if any(isinstance(part, FSDPModule) for part in model.modules()) else model
    whole.load_state_dict(state)
    return whole
