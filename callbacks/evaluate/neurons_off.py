"""Explained examples with the first neurons of their lists at zero: what the head reads then, and what a model says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.evaluation.edits import edited_scores, kept_neurons, replacement_of
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.callbacks.attribute.anatomy import check_edited_tokens
from twinlens.callbacks.attribute.score_files import read_addresses
from twinlens.callbacks.evaluate.evaluation_inputs import score_folder
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish

WITHOUT = "log_prob_without"
"""Column of log-probabilities with the neurons at zero, in nats, float32 [examples, classes]."""
FEATURES = "features.safetensors"


@dataclass(frozen=True)
class NeuronsOff:
    """First neurons of every explained example, which are put to zero at the answer token; `MoreColumns` of refits.

    Attributes:
        layer, unit: of the neurons, [examples of the split, n]; −1 where a list is shorter, attention neurons as
            `read_addresses` gives them.
        site: what the lists rank, `ffn`, `attn` or `both`.
    """

    layer: Tensor
    unit: Tensor
    site: str

    @staticmethod
    def of_lists(session: Session, name: str, method: Any, n: int) -> NeuronsOff:
        """The first n neurons of a method's stored lists, of a method that draws under its first seed."""
        return NeuronsOff(
            *read_addresses(score_folder(session, name, method.seeds[0]) / session.split, n), method.ranks
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """See `MoreColumns`."""
        numbers = torch.stack([self.layer, self.unit]).contiguous().numpy().tobytes()
        return {"neurons_off": hashlib.sha256(numbers).hexdigest(), "site": self.site, "code": code_of(__name__)}

    def of(self, model: Any) -> Callable[[Batch, int], dict[str, Tensor]]:
        """Column `log_prob_without` under a model's own head; see `MoreColumns`."""
        engine = model.engine(tests=True)

        def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
            scores = self.scores(engine, batch).float()
            require_finite(scores, "the refitted model's score without neurons", batch["index"])
            return {WITHOUT: scores.log_softmax(-1)}

        return compute

    def scores(self, engine: NeuronModel, batch: Batch) -> Tensor:
        """An engine's scores of a batch without the neurons, [batch, outputs]."""
        rows = batch["index"].cpu()
        listed = self.layer[rows].to(batch["index"].device), self.unit[rows].to(batch["index"].device)
        states = engine.states(batch)
        kept = kept_neurons(engine, listed, self.layer.shape[1], sufficiency=False, site=self.site)[:, None]
        zeros = replacement_of("zero", None, states.activation, batch["index"], seed=0)
        return edited_scores(engine, states, kept.to(states.scores.device), zeros, "last")[:, 0]

    def features(self, session: Session, name: str) -> Tensor:
        """What the explained model's head reads without the neurons, stored, [examples of the split, hidden].

        Args:
            session: of the run.
            name: of the evaluation.
        """

        def build(folder: Path) -> Finish:
            check_edited_tokens(session)
            model: Any = session.readable
            engine = model.feature_engine()

            def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
                return {"index": batch["index"], "features": self.scores(engine, batch).float()}

            title = f"{name} on {session.split}"
            need = Faithfulness().need(session.engine_sizes, 1, ())
            within = WithinMemory(title, compute, session.memory_budget, need)
            shards, loader = session.shards(session.split), session.loader(session.split)
            rows = run_pass(title, session.readable, within, shards, loader, folder / "shards", session.trainers).rows

            def finish() -> None:
                save_file({"features": rows["features"].contiguous()}, folder / FEATURES)

            return finish

        inputs = self.features_inputs(session)
        labels = session.labels(evaluation=name, split=session.split)
        entry = session.store.get("evaluate", inputs, build, labels, name)
        return load_file(entry.path / FEATURES)["features"]

    def features_inputs(self, session: Session) -> dict[str, Any]:
        """Everything that `features` depends on."""
        examples = session.predictions[session.split].fingerprint
        return {"examples": examples, "without": dict(self.identity), **session.reading}
