"""A large random language model read in bfloat16 and in float32: peaks of memory, and whether they rank neurons alike.

    python -m benchmarks.large_model [--smoke] [--shape SHAPE] [--stored TYPE] [--prompts N]

A checkpoint of a Llama's shape is written in several files, and read with each type by a process of its own, one after
the other: the language model with its parts found and checked, then the methods' lists for some prompts of random
tokens. Counted is how far the process's resident memory (VmHWM of /proc/self/status, reset before) rises above what it
was with all libraries loaded and used once. Pages of the checkpoint's files that are mapped count: a weight that is
read in the type in which it is stored is such a page, and stands nowhere else. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.memory import growth, resident
from benchmarks.record import environment
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.callbacks.passes.memory import return_freed_memory
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel
from twinlens.models.weight_types import TYPES

SHAPES: dict[str, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
           "num_key_value_heads": 4, "vocab_size": 32000},  # TinyLlama's: 1.1 billion parameters
    "smoke": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 2304},
}  # fmt: skip
METHODS: dict[str, Any] = {
    "ig": lambda: IntegratedGradients(preset="gauss", n_steps=4, top_k=100),
    "logprob_increase": lambda: NeuronScore("logprob_increase", top_k=100),
}
TOKENS, BUDGET = 16, 2**28
FIRST = 10
"""Length of the list whose share is told."""


def write_checkpoint(folder: Path, shape: str, stored: str) -> None:
    """A random model in files of a fifth of its size each, with the project's small tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], dtype=TYPES[stored])
    before = torch.get_default_dtype()
    torch.set_default_dtype(TYPES[stored])
    try:
        lm = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    size = sum(value.numel() * value.element_size() for value in lm.parameters())
    lm.save_pretrained(folder, max_shard_size=size // 5)
    load_tokenizer("models/tiny").save_pretrained(folder)


def batch_of(prompts: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Prompts of random tokens, the same in every process; of each, one token is explained."""
    ids = torch.randint(3, vocabulary, (prompts, TOKENS), generator=torch.Generator().manual_seed(1))
    return {
        "index": torch.arange(prompts),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.full((prompts,), -1),
        "target": ids[:, 0].flip(0),  # the same in each type, where predictions of a random model may not be
    }


def lists_of(model: LanguageModel, batch: dict[str, torch.Tensor]) -> dict[str, list[list[tuple[int, int]]]]:
    """(layer, unit) of each method's best neurons for every prompt, best first."""
    found: dict[str, list[list[tuple[int, int]]]] = {}
    for name, make in METHODS.items():
        method = make()
        engine: Any = model.residual_engine() if method.engine == "residual" else model.engine()
        scores = method.attribute(engine, batch, BUDGET)
        found[name] = [
            list(zip(layer.tolist(), unit.tolist(), strict=True))
            for layer, unit in zip(scores.layer, scores.unit, strict=True)
        ]
    return found


def read(folder: Path, dtype: str, prompts: int) -> dict[str, Any]:
    """Peaks of reading a checkpoint in a type and of explaining prompts with it, and the lists."""
    return_freed_memory()
    with tempfile.TemporaryDirectory() as small:
        write_checkpoint(Path(small), "smoke", "bfloat16")
        warm = LanguageModel("warm", load_tokenizer(small), path=small, dtype=dtype).eval().requires_grad_(False)
        lists_of(warm, batch_of(1, SHAPES["smoke"]["vocab_size"]))
        del warm
    tokenizer, held = load_tokenizer(str(folder)), {}

    def load() -> None:
        held["lm"] = LanguageModel("lm", tokenizer, path=str(folder), dtype=dtype).eval().requires_grad_(False)
        held["lm"].engine()

    start = resident("VmRSS")
    reading = growth(load)
    anonymous, mapped = resident("RssAnon"), resident("RssFile")
    model = held["lm"]
    batch, before = batch_of(prompts, model.n_tokens), resident("VmRSS")
    explaining = before - start + growth(lambda: held.update(lists=lists_of(model, batch)))
    return {
        "parameters": sum(value.numel() for value in model.lm.parameters()),
        "weights": sum(value.numel() * value.element_size() for value in model.lm.parameters()),
        "reading": reading,
        "explaining": explaining,
        "anonymous": anonymous,
        "mapped": mapped,
        "lists": held["lists"],
    }


def share_of_first(one: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]], k: int = FIRST) -> float:
    """Mean share of the first k of each list that are among the first k of the other's."""
    pairs = [({*map(tuple, a[:k])}, {*map(tuple, b[:k])}) for a, b in zip(one, other, strict=True)]
    return sum(len(a & b) / max(1, len(a)) for a, b in pairs) / len(pairs)


def compared(folder: Path, shape: str, stored: str, prompts: int) -> dict[str, Any]:
    """What processes of their own found, one after the other, and how their lists agree."""
    words = [sys.executable, "-m", "benchmarks.large_model", "--prompts", str(prompts)]
    given = [*words, "--shape", shape, "--stored", stored, "--folder", str(folder)]
    subprocess.run([*given, "--write"], check=True, cwd=Path(__file__).parents[1])
    by_type = {}
    for dtype in TYPES:
        done = subprocess.run(
            [*given, "--read", dtype], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
        )
        by_type[dtype] = json.loads(done.stdout.splitlines()[-1])
    lists = {dtype: found.pop("lists") for dtype, found in by_type.items()}
    half = by_type["bfloat16"]["weights"]
    return {
        "shape": shape,
        "stored": stored,
        "prompts": prompts,
        "types": by_type,
        "peak_over_bf16_size": {name: by_type["bfloat16"][name] / half for name in ("reading", "explaining")},
        "share_of_first_10": {m: share_of_first(lists["float32"][m], lists["bfloat16"][m]) for m in METHODS},
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_model", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny model, to see that all of it runs")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--stored", choices=sorted(TYPES), default="bfloat16", help="type of the checkpoint's files")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", choices=sorted(TYPES), default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> int:
    """Print what was found as JSON; 0 always: the figures are for a reader."""
    arguments = parse(sys.argv[1:] if given is None else given)
    if arguments.write:
        write_checkpoint(arguments.folder, arguments.shape, arguments.stored)
    elif arguments.read:
        print(json.dumps(read(arguments.folder, arguments.read, arguments.prompts)), flush=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            shape = "smoke" if arguments.smoke else arguments.shape
            found = compared(Path(folder), shape, arguments.stored, arguments.prompts)
        print(json.dumps({"machine": environment(), **found}, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
