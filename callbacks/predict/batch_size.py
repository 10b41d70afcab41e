"""The batch size of the passes that change no weights, found once per device and shape (`data.eval_batch_size=auto`).

It is the largest number of examples, doubling from one, whose forward at the longest example's length the counted
footprint puts within `memory_budget`. On a CUDA device a forward of that many copies of the longest example must
succeed, too, and leave a share of the free memory. Scores do not depend on the number, so nothing but itself is stored
under it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import default_convert

from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.memory import attempt
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.fsdp import ShardedStrategy
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.data.sampling import token_lengths
from twinlens.models.footprint import Footprint

AT_MOST = 1024
"""Shards of up to 256 rows end most batches before; scores from whole gradients alone take longer ones."""
SAFETY_SHARE = 0.8
"""Share of the free device memory that a trial may take: what lies beside a pass, and fragmentation, take the rest."""
STAGE = "batch_size"
FILE = "batch_size.json"


@dataclass(frozen=True)
class Search:
    """What the number depends on.

    Attributes:
        device: see `device_name`.
        footprint: sizes of the model.
        bytes_per_example: counted peak of the longest example's forward.
        split, row, longest: where the longest example stands, and its tokens.
        at_most: rows of the largest split, no more than `AT_MOST`.
    """

    device: str
    footprint: Footprint
    bytes_per_example: int
    split: str
    row: int
    longest: int
    at_most: int

    def inputs(self, session: Session) -> dict[str, Any]:
        """What the number is remembered by."""
        return {
            "device": self.device,
            "shape": asdict(self.footprint),
            "bytes_per_example": self.bytes_per_example,
            "precision": session.trainers.numbers,
            "longest": self.longest,
            "at_most": self.at_most,
            "memory_budget": session.memory_budget,
            "code": code_of(__name__, prediction_need),
        }

    def within(self, budget: int) -> Callable[[int], bool]:
        """Whether the counted peak of so many examples is within a budget in bytes."""
        return lambda count: count * self.bytes_per_example <= budget


def batch_size_stage(session: Session, splits: Sequence[str]) -> None:
    """Find or read the number where `data.eval_batch_size` is auto, put it into the session and say it in one line.

    Of several processes the first one decides, the others read what it has stored.

    Args:
        session: with its model; gets `found_batch_size`.
        splits: those that are predicted.
    """
    if session.data.eval_batch_size != "auto":
        return
    trainer = session.trainers.for_pass([])
    search = search_of(session, session.footprint, splits, trainer)

    def build(folder: Path) -> None:
        if is_first_process():
            write_json(folder / FILE, {"eval_batch_size": _find(session, search, trainer)})

    labels = {"model": session.readable.name, "device": search.device, "tokens": search.longest}
    entry = session.store.get(STAGE, search.inputs(session), build, labels)
    session.found_batch_size = _read(entry.path)
    if is_first_process():
        origin = "read from the store" if entry.reused else f"found on {search.device}"
        print(f"eval_batch_size={session.found_batch_size}: {origin}", flush=True)


def planned_batch_size(session: Session, footprint: Footprint, splits: Sequence[str]) -> int | None:
    """The stored number or, where there is none, the counted one, which a trial can only lower; says which in one line.

    Nothing is tried or written.

    Args:
        session: without a model.
        footprint: of the configured model.
        splits: those that are predicted.

    Returns:
        None where `data.eval_batch_size` is a number.
    """
    if session.data.eval_batch_size != "auto":
        return None
    search = search_of(session, footprint, splits, session.trainers.for_pass([]))
    stored = session.store.peek(STAGE, search.inputs(session))
    if stored is None:
        number, origin = largest(search.at_most, search.within(session.memory_budget)), f"counted for {search.device}"
    else:
        number, origin = _read(stored), "read from the store"
    if is_first_process():
        print(f"eval_batch_size={number}: {origin}", flush=True)
    return number


def search_of(session: Session, footprint: Footprint, splits: Sequence[str], trainer: Trainer) -> Search:
    """What is to be found, from shapes and data alone.

    Args:
        session: with its data prepared.
        footprint: of the model.
        splits: those that are predicted.
        trainer: of a pass.
    """
    lengths = {split: token_lengths(session.data.splits[split]) for split in splits}
    longest, split = max(((max(found), split) for split, found in lengths.items()), key=lambda pair: pair[0])
    each = prediction_need(footprint, session.sequences).least(longest)
    at_most = min(AT_MOST, max(map(len, lengths.values())))
    return Search(device_name(trainer), footprint, each, split, lengths[split].index(longest), longest, at_most)


def device_name(trainer: Trainer) -> str:
    """Name of the devices, the same in all processes of a run, which must all look for the same number.

    Of several devices of a machine the first one's; of several machines, whose devices may differ, their count.
    """
    device = (getattr(trainer.strategy, "parallel_devices", None) or [trainer.strategy.root_device])[0]
    if trainer.num_nodes > 1:
        return f"{device.type} of {trainer.num_nodes} machines"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def largest(at_most: int, fits: Callable[[int], bool]) -> int:
    """The last of 1, 2, 4, … and `at_most` before the first that does not fit; one is never asked."""
    size = 1
    while size < at_most and fits(min(2 * size, at_most)):
        size = min(2 * size, at_most)
    return size


def _find(session: Session, search: Search, trainer: Trainer) -> int:
    counted = search.within(session.memory_budget)
    device = trainer.strategy.root_device
    # of a sharded model every forward needs all processes, but they wait for the first
    if device.type != "cuda" or isinstance(trainer.strategy, ShardedStrategy):
        return largest(search.at_most, counted)
    model: Any = session.readable
    home = next(model.parameters()).device
    try:
        if attempt(partial(model.to, device)) is None:
            return 1
        return largest(search.at_most, lambda count: counted(count) and _fits(session, search, trainer, count))
    finally:
        model.to(home)
        torch.cuda.empty_cache()


def _fits(session: Session, search: Search, trainer: Trainer, count: int) -> bool:
    """Whether copies of the longest example go through the model on a CUDA device with room to spare."""
    device = trainer.strategy.root_device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free, _ = torch.cuda.mem_get_info(device)
    before = torch.cuda.memory_reserved(device)
    if attempt(partial(predict_copies, session, search, trainer, count)) is None:
        return False
    return torch.cuda.max_memory_reserved(device) - before <= SAFETY_SHARE * free


def predict_copies(session: Session, search: Search, trainer: Trainer, count: int) -> Tensor:
    """Probabilities of `count` copies of the longest example, [count, classes], on the Trainer's device."""
    model: Any = session.readable
    loaded = next(iter(session.loader(search.split)([[search.row]])))
    device = trainer.strategy.root_device
    batch = {
        key: value.repeat(count, *[1] * (value.dim() - 1)).to(device) for key, value in default_convert(loaded).items()
    }
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        return model.scores(model.features(batch)).float().softmax(-1)


def _read(folder: Path) -> int:
    return int(json.loads((folder / FILE).read_text(encoding="utf-8"))["eval_batch_size"])
