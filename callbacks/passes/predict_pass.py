"""Predict passes: a computation per batch, run in Lightning's predict loop, written shard by shard."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.memory import return_freed_memory
from twinlens.callbacks.passes.progress import progress_callbacks
from twinlens.callbacks.passes.shards import Shards, concatenated, merge_shards, missing_shards, write_shard
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.processes.watchdog import watch_processes

Compute = Callable[[Batch], dict[str, Tensor]]

TRUE_TYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
"""Precisions in which the weights themselves are of another type than float32."""


@dataclass
class TrainerFactory:
    """Makes one Trainer per pass from the same settings.

    Attributes:
        make: builds a Trainer from keyword arguments on top of the configured ones.
        precision: the configured precision, part of what predictions depend on.
        weights_in: type in which the model's weights are read, likewise.
    """

    make: Callable[..., Trainer]
    precision: str = "32-true"
    weights_in: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.precision = str(self.precision)  # YAML reads 32 as a number

    @property
    def casts_to(self) -> torch.dtype | None:
        """The type into which the precision casts the weights themselves; None: it leaves them as they are."""
        return TRUE_TYPES.get(self.precision)

    @property
    def numbers(self) -> str:
        """In which numbers the model computes: the precision, and the type of weights that are read in another than
        float32. What was stored before there was a choice keeps its key."""
        return self.precision if self.weights_in == torch.float32 else f"{self.precision} on {self.weights_in}"

    def for_pass(self, callbacks: list[Callback]) -> Trainer:
        """A Trainer for a predict pass; gradients stay possible and every rank keeps its own batches."""
        settings: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": bool(callbacks) and any("Progress" in type(c).__name__ for c in callbacks),
            "inference_mode": False,
            "use_distributed_sampler": False,
        }
        return self.make(callbacks=callbacks, **settings)


class AttributionPass(LightningModule):
    """A computation over batches as a LightningModule, so that strategy, device and precision come from the Trainer.

    Args:
        model: modules that the computation uses; moved to the device by Lightning.
        compute: batch → tensors with one row per example, `index` among them.
    """

    def __init__(self, model: nn.Module, compute: Compute) -> None:
        super().__init__()
        self.model = model
        self.compute = compute

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.compute(batch).items()}


class ShardWriter(Callback):
    """Writes a shard when the last of its batches has been computed.

    Args:
        folder: where shards go.
        last_batch: for each batch of this process, the number of the shard it completes, or None.
    """

    def __init__(self, folder: Path, last_batch: Sequence[int | None]) -> None:
        self.folder = folder
        self.last_batch = last_batch
        self._outputs: list[dict[str, Tensor]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._outputs.append({name: tensor.cpu() for name, tensor in outputs.items()})
        shard = self.last_batch[batch_idx]
        if shard is not None:
            write_shard(self.folder, shard, concatenated(self._outputs))
            self._outputs.clear()


@dataclass(frozen=True)
class PassResult:
    """Merged output of a pass; empty in all processes but the first.

    Attributes:
        rows: tensors with one row per example, in the order of `index`.
        partials: tensors that each shard left for itself, in the order of shards.
    """

    rows: dict[str, Tensor]
    partials: list[dict[str, Tensor]]


def run_pass(
    name: str,
    model: nn.Module,
    compute: Compute,
    shards: Shards,
    loader: Callable[[list[list[int]]], DataLoader],
    folder: Path,
    trainers: TrainerFactory,
) -> PassResult:
    """Run a computation over all shards and merge what they wrote, see `run_shards`."""
    run_shards(name, model, compute, shards, loader, folder, trainers)
    if not is_first_process():  # which alone goes on with the whole, and may rename the folder at any time
        return PassResult({}, [])
    return PassResult(*merge_shards(folder, len(shards)))


def run_shards(
    name: str,
    model: nn.Module,
    compute: Compute,
    shards: Shards,
    loader: Callable[[list[list[int]]], DataLoader],
    folder: Path,
    trainers: TrainerFactory,
) -> None:
    """Run a computation over all shards; each writes its file.

    A batch for which `compute` returns nothing adds nothing to its shard. Shards found complete in `folder` are not
    computed again. Every process takes every world_size-th missing shard; the merged result does not depend on the
    number of processes. One for which none is left, of a few examples or behind a killed run, computes the first again
    and writes nothing, since a computation may have steps at which all processes meet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = missing_shards(folder, len(shards))
    if len(missing) < len(shards) and is_first_process():
        print(f"{name}: {len(shards) - len(missing)} of {len(shards)} shards are there, going on", flush=True)
    if missing:
        return_freed_memory()
        n_rows = sum(len(batch) for number in missing for batch in shards[number])
        callbacks = progress_callbacks(name, n_rows)
        trainer = trainers.for_pass(callbacks)
        mine = missing[trainer.global_rank :: trainer.world_size]
        batches, last_batch = _batches_of(shards, mine or missing[:1])
        if mine:
            trainer.callbacks.append(ShardWriter(folder, last_batch))  # type: ignore[attr-defined]
        was_training = model.training
        flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        # frozen: gradients are taken with respect to activations only
        model.eval().requires_grad_(False)
        try:
            with interruptible(trainer):
                trainer.predict(AttributionPass(model, compute), loader(batches), return_predictions=False)
        finally:
            model.train(was_training)
            for name, parameter in model.named_parameters():  # a strategy may have spread some of them
                parameter.requires_grad_(flags.get(name, False))
        trainer.strategy.barrier()


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Let a signal end a run as KeyboardInterrupt: Lightning shuts its loop down, then exits and ignores the signal.

    From here on several processes also watch each other.
    """
    handler = signal.getsignal(signal.SIGINT)
    watch_processes(trainer)
    # Lightning's own answer to SIGTERM waits for the other processes, for ever where these are not at the same place
    trainer._signal_connector._sigterm_notifier_fn = lambda signum, _: None  # type: ignore[method-assign, assignment]
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():  # no other one has signals, nor may set them
            signal.signal(signal.SIGINT, handler)


def _batches_of(shards: Shards, numbers: Sequence[int]) -> tuple[list[list[int]], list[int | None]]:
    """The batches of some shards in order, and which shard each batch completes."""
    batches: list[list[int]] = []
    completes: list[int | None] = []
    for number in numbers:
        batches += [list(batch) for batch in shards[number]]
        completes += [None] * (len(shards[number]) - 1) + [number]
    return batches, completes


class IndexBatches(torch.utils.data.Dataset):
    """Row numbers as batches, for passes that read cached tensors instead of text."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        return {"index": torch.tensor(self.batches[item])}


def index_loader(batches: list[list[int]]) -> DataLoader:
    """A loader over ready batches of row numbers."""
    return DataLoader(IndexBatches(batches), batch_size=None)
