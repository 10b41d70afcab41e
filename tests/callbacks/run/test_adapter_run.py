"""Runs whose model.path is an adapter of PEFT: both lenses over it, its fit, and what is stored under which name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from tests.adapters import needs_peft, write_adapter, write_base
from tests.running import CommandLine
from twinlens.callbacks.store.weights import weights_hash
from twinlens.data.demo_sentences import LABELS
from twinlens.models.backbone import load_tokenizer
from twinlens.models.module import TextClassifier

pytestmark = needs_peft
SMALL = {"num_hidden_layers": 2, "max_position_embeddings": 512}
RUN = ("model=local", "model.path=adapter", "evaluation=accuracy", "explain=gold")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A classifier of the demo's labels, made of a language model by LoRA, with a base beside it."""
    base = write_base(tmp_path / "base_model", "gpt_neox", causal=True, **SMALL)
    write_adapter(tmp_path / "adapter", base, n_labels=len(LABELS))
    settings = tmp_path / "adapter" / "adapter_config.json"
    relative = {**json.loads(settings.read_text()), "base_model_name_or_path": "../base_model"}
    settings.write_text(json.dumps(relative))
    return tmp_path / "adapter"


def scores(run: Path, method: str, split: str = "test") -> datasets.Dataset:
    return datasets.load_from_disk(str(run / "scores" / method / split))


def test_both_lenses_over_the_trained_matrices(command: CommandLine, adapter: Path) -> None:
    methods = ("method=[ig,gradsim]", "method.gradsim.params='*lora*'", "fit=false")
    kept = command(*RUN, *methods)
    assert kept.code == 0, kept.err
    merged = command(*RUN, "model.adapter=merge", "method=ig", "fit=false")
    assert merged.code == 0, merged.err
    for a, b in zip(scores(kept.folder, "ig"), scores(merged.folder, "ig"), strict=True):
        assert a["score"] == pytest.approx(b["score"], rel=1e-3, abs=1e-6)
    assert (kept.folder / "model" / "base" / "model.safetensors").is_file()
    assert (merged.folder / "model" / "model.safetensors").is_file()
    require_scores_of_autograd(kept.folder)


def require_scores_of_autograd(run: Path) -> None:
    """The first test's scores are products of gradients with respect to lora_A and lora_B, and of nothing else."""
    folder = str(run / "model")
    model = TextClassifier("kept", LABELS, load_tokenizer(folder), path=folder).eval().double()
    parameters = [p for name, p in model.named_parameters() if "lora_" in name]

    def gradient(row: dict) -> torch.Tensor:
        ids = torch.tensor([row["input_ids"]])
        loss = cross_entropy(
            model({"input_ids": ids, "attention_mask": torch.ones_like(ids)}), torch.tensor([row["label"]])
        )
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])

    tests, train = (datasets.load_from_disk(str(run / "examples" / split)) for split in ("test", "train"))
    found = scores(run, "gradsim")[0]
    rows = {row["index"]: row for row in train}
    test = gradient(next(row for row in tests if row["index"] == found["index"]))
    for index, score in list(zip(found["top_index"], found["top_score"], strict=True))[:5]:
        assert score == pytest.approx(float(test @ gradient(rows[index])), rel=1e-3, abs=1e-7)


def test_a_fit_trains_the_matrices_and_the_head(command: CommandLine, adapter: Path) -> None:
    fit = command(*RUN, "method=gradsim", "method.gradsim.params='*lora*'", "model.learning_rate=0.01")
    assert fit.code == 0, fit.err
    before, after = (
        load_file(adapter / "adapter_model.safetensors"),
        load_file(fit.folder / "model" / "adapter_model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]
    base, saved = (
        load_file(f / "model.safetensors") for f in (adapter.parent / "base_model", fit.folder / "model" / "base")
    )
    layers = [name for name in base if name in saved and "score" not in name]
    assert len(layers) > 20
    assert all(torch.equal(base[name][: len(saved[name])], saved[name][: len(base[name])]) for name in layers)
    again = command(
        "fit=false", "model=local", f"model.path={fit.folder / 'model'}", "method=gradsim", "evaluation=accuracy"
    )
    assert again.code == 0, again.err
    accuracy = [
        json.loads((run / "metrics.json").read_text())["accuracy/accuracy"] for run in (fit.folder, again.folder)
    ]
    assert accuracy[0] == accuracy[1]


def test_the_name_in_the_store_follows_adapter_and_base(command: CommandLine, adapter: Path, tmp_path: Path) -> None:
    def in_store() -> set[str]:
        """What a plan says of its passes over the model: whether the store has them."""
        plan = command(*RUN, "fit=false", "method=bm25", "plan=true")
        assert plan.code == 0, plan.err
        rows = [re.split(r"\s{2,}", line) for line in plan.out.splitlines() if line.startswith("predict")]
        assert rows
        return {row[2] for row in rows}

    assert command(*RUN, "fit=false", "method=bm25").code == 0
    assert in_store() == {"yes"}
    for file in (adapter / "adapter_model.safetensors", adapter.parent / "base_model" / "model.safetensors"):
        before = weights_hash(adapter, tmp_path / "cache.json")
        weights = load_file(file)
        name = next(name for name in weights if "dense" in name)
        save_file({**weights, name: weights[name] + 0.1}, file, metadata={"format": "pt"})
        assert weights_hash(adapter, tmp_path / "cache.json") != before
        if file.name == "model.safetensors":  # of the base
            assert "yes" not in in_store()
        save_file(weights, file, metadata={"format": "pt"})
        assert weights_hash(adapter, tmp_path / "cache.json") == before
