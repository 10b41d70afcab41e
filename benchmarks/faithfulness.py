"""Faithfulness of several neuron lists against the plain forward over the same examples.

All edits of an example share one prefix, so the cost is that of the forward and of one token more for each edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import GPT2Config

from benchmarks.ig import MEMORY_BUDGET, build_subject
from benchmarks.pairs import Timed, timed
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.questions import PROBABILITY, NeuronList
from twinlens.models.last_token import LastTokenEngine


@dataclass(frozen=True)
class Task:
    """A frozen random classifier, unpadded inputs and random neuron lists for them."""

    engine: LastTokenEngine
    batch: dict[str, Tensor]
    lists: dict[str, NeuronList]
    evaluation: Faithfulness


def build_task(config: GPT2Config, n_tokens: int, n_examples: int, n_lists: int, top_k: int, seed: int = 0) -> Task:
    """`n_lists` lists of `top_k` neurons; the tests keep the best one and switch off all of them."""
    engine = build_subject(config, n_tokens, 1, seed).engine
    input_ids = torch.randint(0, config.vocab_size, (n_examples, n_tokens))
    batch = {
        "index": torch.arange(n_examples),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": torch.full((n_examples,), -1),
    }
    draw = partial(torch.randint, 0, size=(n_examples, top_k), dtype=torch.int32)
    lists = {f"list{i}": (draw(high=engine.n_layers), draw(high=engine.n_neurons)) for i in range(n_lists)}
    return Task(engine, batch, lists, Faithfulness([1], [top_k]))


def edits(task: Task) -> Timed[Tensor]:
    """All lists, both tests; its forward over the prefix is on the clock. The clean probabilities, [examples]."""
    run = timed(lambda: task.evaluation.answers(task.engine, task.batch, task.lists, MEMORY_BUDGET))
    return Timed(run.seconds, run.result[PROBABILITY])


def forward(task: Task) -> Timed[Tensor]:
    """The plain forward. The predicted classes' probabilities, [examples]."""
    run = timed(lambda: task.engine.scores(task.batch))
    return Timed(run.seconds, run.result.softmax(-1).amax(-1))


def difference(left: Tensor, right: Tensor) -> float:
    """Largest relative difference of two vectors."""
    return float(((left - right).abs() / right).max())
