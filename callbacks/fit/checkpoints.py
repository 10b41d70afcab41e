"""Checkpoints of a fit that may be killed: written whole, read with care, and going on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from twinlens.callbacks.processes.fsdp import is_sharded, whole_model
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.checksums import checksum_of, checksums_hold, note_checksums, read_note
from twinlens.callbacks.store.files import put, write_json

BEST, LAST = "best.ckpt", "last.ckpt"
SUMS = "sums.json"
"""Beside checkpoints: their checksums. Of one that is being replaced both the old and the new stand there."""
EPOCH = "epoch.json"
"""What is known of a kept epoch beside its weights."""


class FitCheckpoint(ModelCheckpoint):
    """Keeps the best and the last epoch; remembers its files by name, so that the store may be moved meanwhile.

    Args:
        folder: where the checkpoints go.
        monitored: metric of the validation split by which the best is chosen, and whether its `max` or `min` is; None:
            there is none, and the last epoch counts.
    """

    def __init__(self, folder: Path, monitored: tuple[str, str] | None) -> None:
        super().__init__(
            dirpath=folder,
            filename=BEST.removesuffix(".ckpt"),
            monitor=None if monitored is None else monitored[0],
            mode="max" if monitored is None else monitored[1],
            save_top_k=1,
            save_last=True,
            enable_version_counter=False,
        )

    @property
    def best_name(self) -> str:
        """What the best value of the metric is called."""
        return f"best_{(self.monitor or 'validation/accuracy').replace('/', '_')}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


class EpochSeed(Callback):
    """Seeds every epoch by itself, so that a resumed fit draws what an undisturbed one would (dropout).

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank]).generate_state(1)
        torch.manual_seed(int(words[0]))


class EpochWeights(Callback):
    """Keeps the weights at the end of every epoch as a checkpoint of its own, `<folder>/<number>`, number from 1 on.

    They are written before the checkpoint that a killed fit goes on from, so that none is missing afterwards.

    Args:
        folder: where they go.
        make_model: builds the model anew, for weights that a strategy has shared out.
    """

    def __init__(self, folder: Path, make_model: Callable[[], LightningModule]) -> None:
        self.folder = folder
        self.make_model = make_model
        self._learning_rate: float | None = None
        self._rate_sum = 0.0
        self._epoch = -1
        self._written_at = -1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if self._epoch != trainer.current_epoch:
            self._rate_sum, self._epoch = 0.0, trainer.current_epoch
        self._learning_rate = float(optimizer.param_groups[0]["lr"])  # after the step the schedule has moved on
        self._rate_sum += self._learning_rate

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, pl_module)

    def _keep(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the epoch unless no step was made since; before the first step there is nothing to keep."""
        if self._learning_rate is None or self._written_at == trainer.global_step:
            return
        self._written_at = trainer.global_step
        # all processes have a part in it, so it comes before the first one goes on alone
        state = trainer.strategy.lightning_module_state_dict() if is_sharded(pl_module) else None
        if not trainer.is_global_zero:
            return
        whole: Any = pl_module if state is None else whole_model(pl_module, self.make_model, state)
        number = trainer.current_epoch + 1
        final, partial = self.folder / str(number), self.folder / f".{number}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        whole.save(partial)
        told = {"learning_rate": self._learning_rate, "rate_sum": self._rate_sum, "steps": trainer.global_step}
        write_json(partial / EPOCH, told)
        note_checksums(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)


def kept_epochs(folder: Path) -> Iterator[tuple[int, Path, float, float]]:
    """Of every epoch that `EpochWeights` has kept, in their order: number, checkpoint, learning rate of its last step
    and sum of those of all its steps."""
    for number in sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()):
        kept = folder / str(number)
        told = json.loads((kept / EPOCH).read_text(encoding="utf-8"))
        yield number, kept, float(told["learning_rate"]), float(told["rate_sum"])


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and renames: Lightning's own goes through a temporary folder, perhaps of another
    file system, and leaves its file there when it is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        partial = Path(path).with_name(f".{Path(path).name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as opened:
            torch.save(checkpoint, opened)
        sums = Path(path).with_name(SUMS)
        known = read_note(sums)
        old = known.get(Path(path).name)
        both = [*(old[-1:] if isinstance(old, list) else []), checksum_of(partial)]
        write_json(sums, {**known, Path(path).name: both})
        put(partial, Path(path))


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Use `WholeCheckpointIO` where the strategy writes plain single files."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpointIO()


def last_checkpoint(folder: Path, epochs: Path | None = None) -> Path | None:
    """The checkpoint to go on from, or None where there is none; a damaged one is named and the fit starts over.

    Args:
        folder: of the checkpoints.
        epochs: where `EpochWeights` has kept every epoch so far; None: nowhere.
    """
    last = folder / LAST
    if not last.is_file():
        return None
    damaged = [path for path in (last, folder / BEST) if not _is_sound(path)]
    if not damaged and epochs is not None:
        number = int(torch.load(last, map_location="cpu", weights_only=True)["epoch"]) + 1
        damaged = [path for path in (epochs / str(n + 1) for n in range(number)) if not checksums_hold(path)]
    if not damaged:
        return last
    print(f"{damaged[0]} is truncated or altered: the fit starts over", flush=True)
    if is_first_process():
        shutil.rmtree(folder)
        shutil.rmtree(epochs or folder, ignore_errors=True)
    return None


def _is_sound(path: Path) -> bool:
    """Whether a checkpoint is as it was written; torch.load does not look at the checksums inside one."""
    known = read_note(path.with_name(SUMS)).get(path.name, [])
    try:
        return isinstance(known, list) and checksum_of(path) in known
    except OSError:
        return False
