"""Ranks of a split's targets for all neurons of a vocabulary readout: one pass per site, kept in the store.

They depend on target and neuron alone, so that no prompt and no batch needs the product with the vocabulary again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.target_ranks import TargetRanks, bare_readout, target_ranks, values_of
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import row_shards
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.models.residual import ResidualEngine

STAGE = "ranks"
FILE = "ranks.safetensors"
PARTS_OF_BUDGET = 4
"""Ranks may take one part of the memory budget."""


def with_stored_ranks(session: Session, name: str, method: Any, engine: Any, split: str) -> Any:
    """The method with the ranks of the split's targets, itself where it reads none or they are no tokens.

    Ranks that would take more than a quarter of the memory budget are left to each batch, which is said.
    """
    linear = isinstance(engine, ResidualEngine) and engine.vocabulary and engine.output_weight is not None
    sites = getattr(method, "rank_sites", ())
    if not linear or not sites:
        return method
    found = {}
    for site in sites:
        targets = targets_of(session, split)
        size = 4 * len(targets) * engine.n_layers * _units(engine, site)
        if size > session.memory_budget // PARTS_OF_BUDGET:
            print(
                f"{name}: the ranks of {len(targets)} targets would take {bytes_in_words(size)}, more than a quarter "
                f"of memory_budget={bytes_in_words(session.memory_budget)}: they are computed batch by batch",
                flush=True,
            )
            continue
        inputs = rank_inputs(session, split, site)
        build = partial(_build, session, f"ranks of {split}, {site}", engine, site, targets)
        labels = session.labels(split=split, site=site)
        entry = session.store.get(STAGE, inputs, build, labels, f"{name}, ranks ({site})")
        kept = load_file(entry.path / FILE)
        found[site] = TargetRanks(kept["targets"], kept["ranks"])
    return method.with_ranks(found)


def rank_inputs(session: Session, split: str, site: str) -> dict[str, Any]:
    """What the ranks depend on; the examples' fingerprint covers weights, answers and predictions."""
    return {
        "examples": session.predictions[split].fingerprint,
        "explain": session.explain.neuron.identity,
        "split": split,
        "site": site,
        "code": code_of(__name__),
    }


def targets_of(session: Session, split: str) -> Tensor:
    """Every token that is explained, distinct and in rising order, int64."""
    return session.targets("neuron", split).target.unique()


def _units(engine: ResidualEngine, site: str) -> int:
    return engine.n_neurons if site == "ffn" else engine.n_heads * engine.head_dim


def _build(session: Session, title: str, engine: ResidualEngine, site: str, targets: Tensor, folder: Path) -> None:
    """A pass over neurons instead of examples, `index` being a neuron's place in [layers · units]."""
    n_units = _units(engine, site)
    there: list[ResidualEngine] = []

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        if not there:  # by the first batch the model is on its device, and so must be what is kept of its weights
            there.append(engine.where_it_is())
        model, index = there[0], batch["index"]
        own = targets.to(index.device)
        values = values_of(model.values if site == "ffn" else model.attention_values, n_units, index)
        ranks = target_ranks(bare_readout(model, own), values, own, budget)
        return {"index": index, "rank": ranks.T.int()}

    each = 8 * len(targets) + 32 * engine.hidden_size
    need = Need(lambda columns: each, lambda columns: each)
    rows = run_pass(
        title,
        session.readable,
        WithinMemory(title, compute, session.memory_budget, need),
        row_shards(engine.n_layers * n_units),
        index_loader,
        folder / "shards",
        session.trainers,
    ).rows
    if is_first_process():
        ranks = rows["rank"].T.unflatten(1, (engine.n_layers, n_units)).contiguous()
        save_file({"targets": targets, "ranks": ranks}, folder / FILE)
