"""Peak memory of a pass beside what the plan says: `python -m benchmarks.memory`.

Each measurement runs in a process of its own: the model is built, one short example warms the libraries up, and the
growth of the process's resident memory from there to its highest (VmHWM, reset before the pass) is compared with the
plan's figure. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GPT2Config

from twinlens.attribution.bridge.neuron_instances import NeuronInstances
from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.instance.costs import PassSizes
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.stream import stream_scores
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.memory import WithinMemory, return_freed_memory
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.weight_types import TYPES

MODEL_PASSES = ("predict", "ig", "ig_all", "faithfulness", "faithfulness_all")
PASSES = (*MODEL_PASSES, "gradsim", "influence", "gradsim_mlp", "influence_mlp", "na_instances")
N_CLASSES = 4
TESTS = 200
TOP_K = 100


def resident(field: str) -> int:
    """A line of /proc/self/status in bytes: VmRSS now, VmHWM the highest since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this benchmark needs Linux")


def growth(work: Callable[[], Any], device: torch.device | None = None) -> int:
    """How far resident memory rises above its present value during `work`, in bytes; on a CUDA device how far what is
    allocated there does."""
    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - allocated
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def engine_of(
    layers: int, hidden: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> LastTokenEngine:
    """A frozen GPT-2-shaped decoder with random weights of a type and a linear head in float32."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_embd=hidden, n_head=hidden // 64, vocab_size=1000, bos_token_id=0, eos_token_id=0
    )
    backbone = AutoModel.from_config(config).eval().requires_grad_(False)
    head = nn.Linear(hidden, N_CLASSES, bias=False).requires_grad_(False)
    head.register_forward_pre_hook(lambda module, args: (args[0].to(module.weight.dtype),))
    return LastTokenEngine(build_anatomy(backbone.to(device, dtype)), head.to(device))


def random_batch(n: int, tokens: int, device: torch.device | None = None) -> dict[str, Tensor]:
    """Examples of equal length."""
    ids = torch.randint(0, 1000, (n, tokens)).to(device)
    return {
        "index": torch.arange(n, device=device),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.zeros(n, dtype=torch.int64, device=device),
    }


def model_pass(
    name: str, arguments: argparse.Namespace, budget: int, device: torch.device | None = None
) -> tuple[int, int]:
    """(measured, planned) growth of a pass over one batch."""
    engine = engine_of(arguments.layers, arguments.hidden, TYPES[arguments.dtype], device)
    evaluation = Faithfulness(positions="all" if name == "faithfulness_all" else "last")
    gradients = IntegratedGradients(positions="all" if name == "ig_all" else None)

    def predict(batch: Batch, size: int) -> dict[str, Tensor]:
        with torch.no_grad():
            hidden = engine.anatomy.backbone(batch["input_ids"], use_cache=False).last_hidden_state
        return {"index": batch["index"], "features": hidden[:, -1].clone()}

    def ig(batch: Batch, size: int) -> dict[str, Tensor]:
        return {"index": batch["index"], "score": gradients.attribute(engine, batch, size).score}

    def faithfulness(batch: Batch, size: int) -> dict[str, Tensor]:
        index = torch.arange(100, dtype=torch.int32, device=device).expand(len(batch["index"]), -1)
        lists = {f"m{number}": (torch.zeros_like(index), index) for number in range(arguments.lists)}
        return {"index": batch["index"], **evaluation.answers(engine, batch, lists, size)}

    sizes, n_questions = (
        EngineSizes(engine.footprint),
        len(evaluation.questions(list(map(str, range(arguments.lists))))),
    )
    edited = faithfulness, evaluation.need(sizes, n_questions, ())
    compute, need = {
        "predict": (predict, prediction_need(engine.footprint)),
        "ig": (ig, gradients.need(sizes)),
        "ig_all": (ig, gradients.need(sizes)),
        "faithfulness": edited,
        "faithfulness_all": edited,
    }[name]
    WithinMemory(name, compute, budget, need)(random_batch(1, 4, device))
    batch = random_batch(arguments.batch, arguments.tokens, device)
    measured = growth(lambda: WithinMemory(name, compute, budget, need)(batch), device)
    return measured, need.peak(arguments.batch, arguments.tokens, budget)


def instance_pass(name: str, arguments: argparse.Namespace, budget: int) -> tuple[int, int]:
    """(measured, planned) growth of preparing a method, scoring all tests and self-influence."""
    torch.manual_seed(0)
    method: Any = GradientSimilarity(top_k=TOP_K) if name.startswith("gradsim") else Influence(top_k=TOP_K)

    def head_of(width: int) -> nn.Module:
        if name.endswith("_mlp"):
            return nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, N_CLASSES))
        return nn.Linear(width, N_CLASSES, bias=False)

    def inputs(n: int, width: int, of: nn.Module) -> HeadInputs:
        return HeadInputs(torch.randn(n, width), torch.randint(0, N_CLASSES, (n,)), of)

    def work(train: HeadInputs, test: HeadInputs) -> None:
        scorer = method.prepare(train, budget)
        stream_scores(scorer, test, torch.arange(len(test)), TOP_K, budget)
        scorer.self_influence()

    small, head = head_of(8), head_of(arguments.hidden)
    work(inputs(20, 8, small), inputs(4, 8, small))
    train, test = inputs(arguments.train, arguments.hidden, head), inputs(TESTS, arguments.hidden, head)
    measured = growth(lambda: work(train, test))
    return measured, method.cost(PassSizes(head, arguments.train, TESTS, TESTS, budget)).memory


def bridge_pass(name: str, arguments: argparse.Namespace, budget: int) -> tuple[int, int]:
    """(measured, planned) growth of NA-Instances over lists drawn so that some neurons stand in most of them."""
    torch.manual_seed(0)
    method = NeuronInstances(source="ig", top_k=TOP_K)
    layers, neurons = arguments.layers, 4 * arguments.hidden

    def lists(n: int) -> NeuronLists:
        popularity = torch.arange(1, layers * neurons + 1).double().reciprocal()
        drawn = torch.multinomial(popularity.expand(n, -1), method.train_list)
        score = torch.rand(n, method.train_list).sort(descending=True).values
        return NeuronLists((drawn // neurons).int(), (drawn % neurons).int(), score, layers, neurons)

    def work(train: NeuronLists, test: NeuronLists) -> None:
        scorer = method.prepare(train, budget)
        stream_scores(scorer, test, torch.arange(len(test)), TOP_K, budget)
        scorer.self_influence()

    work(lists(20), lists(4))
    train, test = lists(arguments.train), lists(TESTS)
    measured = growth(lambda: work(train, test))
    return measured, method.cost(PassSizes(None, arguments.train, TESTS, TESTS, budget)).memory


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Measured and planned peaks.")
    parser.add_argument("--passes", nargs="+", default=list(PASSES), choices=PASSES)
    parser.add_argument("--budgets", nargs="+", type=int, default=[64, 128, 256, 1024], help="in MiB")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lists", type=int, default=10, help="neuron lists that faithfulness tests")
    parser.add_argument("--train", type=int, default=4000, help="train examples of the instance methods")
    parser.add_argument("--dtype", choices=sorted(TYPES), default="float32", help="of the model's weights")
    parser.add_argument("--single", action="store_true", help="the first pass at the first budget, here, as JSON")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> int:
    """Print one row per pass and budget; 0 always: the ratios are for a reader."""
    words = list(sys.argv[1:] if given is None else given)
    arguments = parse(words)
    if arguments.single:
        return_freed_memory()
        measure = model_pass if arguments.passes[0] in MODEL_PASSES else instance_pass
        measure = bridge_pass if arguments.passes[0] == "na_instances" else measure
        try:
            measured, planned = measure(arguments.passes[0], arguments, arguments.budgets[0] * 2**20)
        except Exception as error:  # a budget that no solver fits is a result too
            print(json.dumps({"refused": str(error)}))
            return 0
        print(json.dumps({"measured": measured, "planned": planned}))
        return 0
    print("| pass | memory_budget | planned | measured | measured / planned |\n|---|---|---|---|---|")
    for name in arguments.passes:
        for budget in arguments.budgets:
            command = [sys.executable, "-m", "benchmarks.memory", *words, "--single"]
            command += ["--passes", name, "--budgets", str(budget)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            if "refused" in found:
                print(f"| {name} | {budget} MiB | refused: does not fit | | |", flush=True)
                continue
            measured, planned = found["measured"] / 2**20, found["planned"] / 2**20
            ratio = f"{measured / planned:.2f}"
            print(f"| {name} | {budget} MiB | {planned:.0f} MiB | {measured:.0f} MiB | {ratio} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
