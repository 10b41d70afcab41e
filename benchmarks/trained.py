"""Gradient similarity on a really trained model, beside captum: from cached head inputs, and from texts to scores.

A model of one 768-wide block is fine-tuned on generated claims by train.py, which also predicts and attributes. Its
head inputs then serve both sides, and its own times stand against captum's over the whole model.

On random features every score can enter a list. After training most gradients are short, and twinlens leaves out the
pairs that the product of two lengths bounds away (`twinlens.attribution.instance.bounded`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModel

from benchmarks.instance import Splits
from benchmarks.layers import Classifier
from benchmarks.pairs import Timed, progress, timed
from twinlens.attribution.instance.inputs import HeadInputs

PREDICTION_BATCH = 128
"""Examples of a forward, on both sides."""


@dataclass(frozen=True)
class Trained:
    """A finished run of train.py with gradient similarity, no biases in its head.

    Attributes:
        model: as saved, for the peer, whose forward is transformers' own.
        splits: head inputs that the run has stored.
        texts: token ids of each split's examples, in order.
        seconds: of the run's predictions and attribution; reading the model and tokenising not counted.
        top_score: what the run found, [tests, top_k].
    """

    model: Classifier
    splits: Splits
    texts: dict[str, list[list[int]]]
    seconds: float
    top_score: Tensor


def train(folder: Path, n_train: int, n_test: int, hidden: int, top_k: int) -> Trained:
    """Run train.py in a process of its own and read what it left.

    The run is one epoch over the demo's claims: its rule is learnt within it, and its labels are wrong for one row in
    twenty, whose gradients stay long.
    """
    command = [
        sys.executable, str(Path(__file__).parents[1] / "train.py"), "method=gradsim", "evaluation=accuracy",
        "logger=none", f"paths.output_dir={folder}", f"data.n_train={n_train}", f"data.n_test={n_test}",
        f"data.n_twins={n_test // 10}", "data.n_validation=100", f"data.eval_batch_size={PREDICTION_BATCH}",
        f"model.architecture.hidden_size={hidden}", f"model.architecture.intermediate_size={hidden}",
        "model.architecture.num_hidden_layers=1", f"model.architecture.num_attention_heads={max(1, hidden // 64)}",
        "model.architecture.initializer_range=0.02", "model.batch_size=32", "trainer.max_epochs=1",
        f"method.gradsim.top_k={top_k}", "method.gradsim.dtype=float32",
    ]  # fmt: skip
    progress(f"trained: fine-tuning on {n_train} claims, {hidden} wide")
    subprocess.run(command, check=True, capture_output=True, text=True)
    (run,) = (folder / "runs").iterdir()
    head = nn.Linear(hidden, 3, bias=False)
    head.weight.data = load_file(run / "model" / "model.safetensors")["score.weight"]
    rows = {split: datasets.load_from_disk(str(run / "examples" / split)) for split in ("train", "test")}
    inputs = {split: _head_inputs(run, split, rows[split], head) for split in rows}
    # captum needs gradients at the scores alone
    backbone = AutoModel.from_pretrained(run / "model").eval().requires_grad_(False)
    scores = datasets.load_from_disk(str(run / "scores" / "gradsim" / "test")).with_format("torch")
    times = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return Trained(
        Classifier(backbone, head),
        Splits(inputs["train"], inputs["test"], top_k),
        {split: rows[split]["input_ids"][:] for split in rows},
        times["time/predict"] + times["time/attribute"],
        torch.stack([*scores["top_score"][:]]),
    )


def _head_inputs(run: Path, split: str, rows: datasets.Dataset, head: nn.Linear) -> HeadInputs:
    """Stored beside the examples that the run names; labels as they were trained and tested on."""
    stored = (run / "examples" / split).resolve().parent / "features.safetensors"
    return HeadInputs(load_file(stored)["features"], torch.tensor(rows["label"][:]), head)


def captum_from_texts(trained: Trained) -> Timed[Tensor]:
    """captum's TracInCPFast over the whole model with one checkpoint of rate 1: best scores, [tests, top_k].

    All tests in one call, since each call runs the model over the whole train split again.
    """
    from captum.influence import TracInCPFast

    train_texts, test_texts = (
        [*zip(trained.texts[split], labels.tolist(), strict=True)]
        for split, labels in (("train", trained.splits.train.labels), ("test", trained.splits.test.labels))
    )

    def run() -> Tensor:
        peer = TracInCPFast(
            trained.model,
            trained.model.head,
            DataLoader(train_texts, PREDICTION_BATCH, collate_fn=padded),  # type: ignore[arg-type]
            checkpoints=[0],
            checkpoints_load_func=lambda *_: 1.0,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        )
        return peer.influence(padded(test_texts), k=trained.splits.top_k).influence_scores

    return timed(run)


def padded(rows: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels of some texts with their labels, as long as the longest."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    return ids, mask, torch.tensor([label for _, label in rows])
