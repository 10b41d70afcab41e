"""Mean hidden states of completions and documents, by which a similarity compares texts for a language model.

Of a document the states that say its tokens that count, of a query those that say its completion, whatever its foil.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.explain import completions_of
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish

FILE = "states.safetensors"


def completion_states(session: Session, split: str) -> Tensor:
    """Of a predicted split's rows, computed or read from the store, [examples, hidden], float32."""
    inputs = {"examples": session.predictions[split].fingerprint, "split": split, "code": code_of(__name__)}
    entry = session.store.get(
        "states", inputs, lambda folder: _build(session, split, folder), session.labels(split=split)
    )
    return load_file(entry.path / FILE)["states"]


def _build(session: Session, split: str, folder: Path) -> Finish:
    model: Any = session.readable
    predicted = session.predictions[split]
    need = prediction_need(session.footprint, session.sequences, session.window(split))
    completions = None
    if not session.readout.has_text_losses(split):
        first = session.readout.explained(predicted.column("label"), predicted.column("prediction"))
        completions = completions_of(predicted.dataset, first, foils=False)
        need = need.lengthened(completions.columns_of)

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        read = batch if completions is None else completions.at(batch["index"].cpu()).behind(batch)
        return {"index": batch["index"], "states": model.mean_states(read).float()}

    title = f"states of {split}"
    cut = WithinMemory(title, compute, session.memory_budget, need)
    shards, loader = session.shards(split), session.loader(split)
    result = run_pass(title, model, cut, shards, loader, folder / "shards", session.trainers)
    return lambda: save_file({"states": result.rows["states"].contiguous()}, folder / FILE)
