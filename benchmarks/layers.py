"""Influence over all linear layers of a GPT-2-shaped classifier by EK-FAC: ours beside kronfluence.

`python -m benchmarks.layers` runs both, each in a process of its own, and prints seconds, peak memory and how far the
scores lie apart; with `--truth` also how far each lies from ours in float64 throughout.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GPT2Config

from benchmarks.kronfluence_peer import as_dataset, kronfluence_scores
from benchmarks.memory import growth
from benchmarks.pairs import Timed, timed
from twinlens.attribution.gradients.factor_sums import FactorSums, ekfac_bases, kfac_bases
from twinlens.attribution.gradients.fisher import absolute_damping
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse
from twinlens.attribution.targets import Targets
from twinlens.callbacks.passes.memory import return_freed_memory
from twinlens.models.forwards import answer_positions, at_positions
from twinlens.models.linear_layers import linear_layers

N_CLASSES = 3
DAMPING = 0.1
WORKSPACE = 2**28
"""Bytes of per-example gradients that stand side by side."""


class Classifier(nn.Module):
    """A decoder and a linear head at the answer position."""

    def __init__(self, backbone: Any, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[examples, classes]."""
        hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return self.head(at_positions(hidden, answer_positions(attention_mask)))


Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """A model with random weights and two splits of random tokens, of equal length."""

    model: Classifier
    train: Batch
    test: Batch
    batch_size: int


def build_task(config: GPT2Config, n_tokens: int, n_train: int, n_test: int, batch_size: int) -> Task:
    """Weights of a fresh model, labels drawn at random."""
    torch.manual_seed(0)
    backbone = AutoModel.from_config(config).eval()
    head = nn.Linear(config.n_embd, N_CLASSES, bias=False)
    model = Classifier(backbone, head).requires_grad_(False)

    def split(n: int) -> Batch:
        ids = torch.randint(0, config.vocab_size, (n, n_tokens))
        mask, labels = torch.ones_like(ids), torch.randint(0, N_CLASSES, (n,))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return Task(model, split(n_train), split(n_test), batch_size)


def ours(task: Task, dtype: torch.dtype = torch.float32) -> Timed[Tensor]:
    """Scores [tests, train examples]; covariances in float64, all else in `dtype`. Part: the decompositions."""
    parts_of_time: list[float] = []

    def run() -> Tensor:
        task.model.to(dtype)
        layers = linear_layers(task.model, task.model.head, "all")
        n_train = len(task.train["labels"])

        def summed(bases: Any = None) -> dict[str, Tensor]:
            factors = FactorSums(layers, "empirical", bases)
            for batch in _batches(task.train, task.batch_size):
                with recording(layers) as tape:
                    factors.add(tape, _scores(task.model, batch), batch["labels"], batch["attention_mask"])
            return factors.sums

        covered = summed()
        began = time.perf_counter()
        bases = kfac_bases(layers, covered, n_train, dtype)
        parts_of_time.append(time.perf_counter() - began)
        bases = ekfac_bases(layers, bases, summed(bases), n_train)
        inverses = [
            Inverse(basis, absolute_damping(basis, DAMPING, layer.name))
            for basis, layer in zip(bases, layers, strict=True)
        ]
        held = HeldTests(layers, inverses, len(task.test["labels"]), n_train, False, WORKSPACE)
        for batch in _batches(task.test, task.batch_size):
            with recording(layers) as tape:
                held.add(tape, _scores(task.model, batch), Targets(batch["labels"]))
        parts = []
        for batch in _batches(task.train, task.batch_size):
            with recording(layers) as tape:
                parts.append(held.scores(tape, _scores(task.model, batch), batch["labels"])[0])
        return torch.cat(parts, 1)

    done = timed(run)
    return Timed(done.seconds, done.result, parts_of_time)


def peer(task: Task) -> Timed[Tensor]:
    """The same by kronfluence in float32, its factors kept on a temporary disk as it does.

    Its covariances are float64 as twinlens' are: rounded to float32 they turn eigenvectors so far that scores are off
    by 4e-4 of a test's largest and more.
    """
    parts_of_time: list[float] = []

    def run() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            splits = as_dataset(task.test), as_dataset(task.train)
            given = task.model, *splits, task.batch_size, folder, torch.float32, "ekfac"
            return kronfluence_scores(*given, parts_of_time, covariance_dtype=torch.float64).double()

    done = timed(run)
    return Timed(done.seconds, done.result, parts_of_time)


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference of a test's scores relative to its largest score, both [tests, train examples]."""
    return float(((scores - reference).abs().amax(1) / reference.abs().amax(1)).max())


def _scores(model: Classifier, batch: Batch) -> Tensor:
    return model(batch["input_ids"], batch["attention_mask"])


def _batches(split: Batch, size: int) -> list[Batch]:
    starts = range(0, len(split["labels"]), size)
    return [{name: values[start : start + size] for name, values in split.items()} for start in starts]


@dataclass(frozen=True)
class Run:
    """One side, run in a process of its own.

    Attributes:
        seconds: of everything from text ids to scores.
        decomposing: seconds of these in eigendecompositions.
        peak: growth of resident memory, in bytes.
        scores: [tests, train examples].
    """

    seconds: float
    decomposing: float
    peak: int
    scores: Tensor


def alone(who: str, words: Sequence[str]) -> Run:
    """Run one of `SIDES` in a process of its own; `words` are the options of the command line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.pt"
        command = [sys.executable, "-m", "benchmarks.layers", *words, "--single", who, "--scores", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        scores = torch.load(file, weights_only=True)
    return Run(measured["seconds"], measured["decomposing"], measured["bytes"], scores)


SIDES = {"ours": ours, "peer": peer, "ours_float64": partial(ours, dtype=torch.float64)}


def main(given: Sequence[str] | None = None) -> int:
    """One row for each of the two; 0 always: the figures are for a reader."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description="EK-FAC beside kronfluence.")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--train", type=int, default=48)
    parser.add_argument("--tests", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--truth", action="store_true", help="also compare both with ours in float64 throughout")
    parser.add_argument("--single", choices=SIDES, help="one of them, here, as JSON")
    parser.add_argument("--scores", type=Path, help="where a single run leaves its scores")
    words = list(sys.argv[1:] if given is None else given)
    asked = parser.parse_args(words)
    if asked.single:
        return_freed_memory()
        config = GPT2Config(
            n_layer=asked.layers, n_embd=asked.hidden, n_head=asked.hidden // 64, vocab_size=1000, bos_token_id=0,
            eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        task = build_task(config, asked.tokens, asked.train, asked.tests, asked.batch)
        small = build_task(GPT2Config(n_layer=1, n_embd=64, n_head=1, vocab_size=60, pad_token_id=0), 4, 4, 2, 2)
        work = SIDES[asked.single]
        work(small)
        found: list[Timed[Tensor]] = []
        peak = growth(lambda: found.append(work(task)))
        torch.save(found[0].result, asked.scores)
        print(json.dumps({"seconds": found[0].seconds, "decomposing": found[0].parts[0], "bytes": peak}))
        return 0
    print("| who | seconds | of these in eigendecompositions | peak, MiB |\n|---|---|---|---|")
    one, other = (alone(who, words) for who in ("ours", "peer"))
    for who, run in (("ours", one), ("peer", other)):
        print(f"| {who} | {run.seconds:.1f} | {run.decomposing:.1f} | {run.peak / 2**20:.0f} |", flush=True)
    print(f"largest relative difference: {relative_difference(one.scores, other.scores):.1e}")
    if asked.truth:
        truth = alone("ours_float64", words).scores
        for who, run in (("ours", one), ("peer", other)):
            print(f"{who} from float64 throughout: {relative_difference(run.scores, truth):.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
