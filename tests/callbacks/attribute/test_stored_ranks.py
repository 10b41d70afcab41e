"""Ranks of a split's targets: one pass whatever the method, kept in the store, equal to plain counting."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file

from tests.tiny_llama import LLAMA
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.callbacks.attribute import stored_ranks
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.attribute.stored_ranks import STAGE, targets_of
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.store import Store
from twinlens.data.knowledge import KnowledgeDataModule
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel

METHODS = {
    "inverse_rank": NeuronScore("inverse_rank", top_k=8),
    "coefficient_inverse_rank": NeuronScore("coefficient_inverse_rank", top_k=8),
    "both": NeuronScore("inverse_rank", site="both", top_k=8),
    "coefficient": NeuronScore("coefficient", top_k=8),
}
SETTINGS = {name: {"score": method.score, "site": method.site} for name, method in METHODS.items()}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A tiny language model with its predictions, batches of two prompts."""
    data = KnowledgeDataModule(types=["month", "colour"], only_known=False, limit={"test": 6}, eval_batch_size=2)
    tokenizer = load_tokenizer("models/facts")
    data.prepare(tokenizer)
    trainers = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))
    made = Session(tmp_path / "run", Store(tmp_path / "store", False), trainers, data, "test", 2**28, 0)
    made.model = LanguageModel("tiny", tokenizer, architecture=LLAMA, seed=1).eval().requires_grad_(False)
    made.weights = "w"
    examples_stage(made, "test")
    return made


def lists(session: Session, name: str) -> datasets.Dataset:
    """The stored lists of a method."""
    attribute_stage(session, name, METHODS, SETTINGS)
    return datasets.load_from_disk(str(session.scores[name, "test"] / "test"))


@torch.no_grad()
def test_one_pass_per_site_serves_all_methods(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    found = {name: lists(session, name) for name in METHODS}
    out = capsys.readouterr().out
    assert "\ninverse_rank, ranks (ffn): computed in " in f"\n{out}"
    for line in ("coefficient_inverse_rank, ranks (ffn): read", "both, ranks (ffn): read", "both, ranks (attn): comp"):
        assert line in out
    assert "coefficient, ranks" not in out
    engine = session.readable.residual_engine()
    stored = [load_file(path / "ranks.safetensors") for path in (session.store.root / STAGE).iterdir()]
    assert len(stored) == 2
    targets = targets_of(session, "test")
    by_units = {kept["ranks"].shape[2]: kept for kept in stored}
    for site, n_units in (("ffn", engine.n_neurons), ("attn", engine.n_heads * engine.head_dim)):
        kept = by_units[n_units]
        assert torch.equal(kept["targets"], targets)
        for layer in range(engine.n_layers):
            values = engine.values(layer) if site == "ffn" else engine.attention_values(layer)
            scores = engine.final_direction(values).double() @ engine.output_weight.double().T
            expected = torch.stack([1 + (scores > scores[:, [target]]).sum(1) for target in targets.tolist()])
            apart = (kept["ranks"][:, layer] - expected).abs()
            assert int(apart.max()) <= 1  # float32 against float64
            assert float((apart > 0).float().mean()) < 0.01
    ranks = by_units[engine.n_neurons]
    place = {target: row for row, target in enumerate(targets.tolist())}
    for row in found["inverse_rank"]:
        best = ranks["ranks"][place[row["target"]]].flatten().sort(stable=True)
        assert [layer * engine.n_neurons + unit for layer, unit in zip(row["layer"], row["unit"], strict=True)] == (
            best.indices[:8].tolist()
        )
        assert row["score"] == pytest.approx((1 / best.values[:8]).tolist())


def test_ranks_beyond_their_part_of_the_budget_are_computed_batch_by_batch(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lists(session, "coefficient_inverse_rank")
    monkeypatch.setattr(stored_ranks, "PARTS_OF_BUDGET", 2**28)
    other = replace(session, store=Store(tmp_path / "other", False), scores={})
    capsys.readouterr()
    found = lists(other, "coefficient_inverse_rank")
    assert "more than a quarter of memory_budget" in capsys.readouterr().out
    assert not (tmp_path / "other" / stored_ranks.STAGE).exists()
    assert found["unit"][:] == expected["unit"][:]
