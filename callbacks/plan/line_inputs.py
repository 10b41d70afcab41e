"""Inputs of every line of a plan: shapes, times and the splits' lengths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.needed_memory import Need
from twinlens.callbacks.fit.stage import is_stored_whole, load_inputs, source_of
from twinlens.callbacks.passes import costs
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.plan.table import Line
from twinlens.callbacks.plan.times import Times
from twinlens.callbacks.run.parts import Parts, keeps_epochs
from twinlens.callbacks.store.weights import known_weights_hash
from twinlens.data.sampling import token_lengths
from twinlens.models.backbone import resolve

UNKNOWN_WEIGHTS = "weights not yet read"


@dataclass
class PlanBase:
    """What lines of a plan are made with.

    Args:
        session: of the run; its model stays unread.
        parts: of the run.
        shape: of the classifier.
        device: of the passes over the model.
        times: how long operations take there and on the host.
        tokenizer: of the model.
        shared_reads: what the lines so far have counted of the second paper's shared pass.
    """

    session: Session
    parts: Parts
    shape: costs.Shape
    device: torch.device
    times: Times
    tokenizer: Any
    shared_reads: Reads = field(default_factory=Reads)

    def __post_init__(self) -> None:
        # what is found in the store is put into a session of the plan's own
        self.session = replace(self.session, predictions={}, epoch_examples={}, scores={})
        self.model_bytes = self.shape.weight_bytes
        self.keeps_epochs = keeps_epochs(self.parts.methods)
        self.lengths = {split: token_lengths(rows) for split, rows in self.session.data.splits.items()}

    def source(self, path: str | None) -> Any:
        """What the weights start from, as far as it is known without reading them."""
        if path is None:
            return "scratch"
        return source_of(
            self.session, {"path": path}, lambda folder: known_weights_hash(folder, self.session.store.root)
        )

    def loaded_weights(self) -> str:
        """Hash of the weights of a model that is used as it is, empty where no run of this store has read them."""
        settings, store = self.parts.settings["model"], self.session.store
        found: Path | None = Path(resolve(settings["path"]))
        if is_stored_whole(settings):
            source = self.source(settings["path"])
            entry = None if source is None else store.peek("fit", load_inputs(settings, source))
            found = None if entry is None else entry / "model"
        return "" if found is None else known_weights_hash(found, store.root) or ""

    def model_line(
        self, title: str, split: str, found: Path | None, need: Need, seconds: float | None, disk: int
    ) -> Line:
        """A pass over the model, and what its largest batch needs."""
        working, stored = self.pass_memory(split, need), self.said(bool(self.session.weights), found)
        rows = len(self.lengths[split])
        return Line(title, rows, stored, seconds, disk, working, self.model_bytes + working, self.device.type)

    def pass_memory(self, split: str, need: Need) -> int:
        """What the largest batch of a pass over the model needs."""
        session = self.session
        return costs.peak_of(need, session.shards(split), self.lengths[split], session.memory_budget)

    @property
    def n_epochs(self) -> int:
        """Epochs of the fit: those that it has kept, else those that are configured."""
        named = len(self.parts.settings.get("checkpoints") or ())
        return len(self.session.epochs) or named or int(self.parts.settings["trainer"].get("max_epochs") or 1)

    @property
    def engine_sizes(self) -> EngineSizes:
        """Sizes of the model's engines."""
        return EngineSizes(self.shape.footprint, self.session.sequences, self.shape.residual)

    def said(self, known: bool, found: Path | None) -> str:
        """Whether the store has a pass, as far as that can be known without reading weights."""
        if found is not None:
            return "yes"
        path = self.parts.settings["model"]["path"]
        unread = not known and path is not None and self.source(path) is None
        return UNKNOWN_WEIGHTS if unread else "no"
