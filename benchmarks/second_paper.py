"""The second paper's tables and figures for many prompts at GPT-2-small's shape, one command from files to report.

`python -m benchmarks.second_paper` writes a model with random weights, a tokenizer of as many words, and prompts of 8
to 16 words whose answer is the model's own next token; then it runs train.py over them, Table 2 left out, whose scores
`--only neuron_level` of `benchmarks.run` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from benchmarks.measured import TINY
from benchmarks.run import positive

TYPES = ("capital", "colour", "language", "month")
EVALUATIONS = (
    "layer_importance", "head_importance", "importance_sums", "value_interventions", "query_layers",
    "query_interventions", "shared_neurons", "neuron_layers", "segments",
)  # fmt: skip
"""Tables 3 to 8 and 10 to 14, Figures 2 to 6 (and Table 9)."""
METHODS = ("logprob_increase", "log_prob", "prob_increase")
"""Of Figures 2 and 5."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        wall, processor: seconds of the whole command, start and reading of files included.
        printed: what it said.
    """

    wall: float
    processor: float
    printed: str


def write_case(folder: Path, config: GPT2Config, n_prompts: int, seed: int = 0) -> None:
    """The model, its tokenizer and `prompts.jsonl`; the same for the same seed."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0").save_pretrained(folder)
    rows = []
    for number in range(n_prompts):
        ids = torch.randint(1, config.vocab_size, (8 + number % 9,))
        with torch.no_grad():
            answer = int(model(ids[None]).logits[0, -1].argmax())
        prompt = " ".join(f"w{token}" for token in ids.tolist())
        rows.append({"prompt": prompt, "answer": f"w{answer}", "answer_id": answer, "type": TYPES[number % len(TYPES)]})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_case(folder: Path, threads: int) -> Run:
    """All tables and figures of the case, in a process of its own with an empty store.

    Raises:
        CalledProcessError: the run did not end well.
    """
    command = [
        sys.executable, str(Path(__file__).parents[1] / "train.py"), "experiment=neuron_level/all", "model=local",
        f"model.path={folder}", f"data.path={folder / 'prompts.jsonl'}", f"method=[{','.join(METHODS)}]",
        f"evaluation=[{','.join(EVALUATIONS)}]", f"paths.output_dir={folder / 'outputs'}", "trainer.accelerator=cpu",
        "logger=none",
    ]  # fmt: skip
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, processor, "".join(lines))


def main() -> None:
    """Print the seconds of both clocks; the run itself speaks on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.second_paper", description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=positive, default=100, help="prompts (100)")
    parser.add_argument("--layers", type=positive, default=12, help="layers of the GPT-2-small-shaped model (12)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="threads of torch (all cores)")
    parser.add_argument("--smoke", action="store_true", help="a small model and 8 prompts: does everything run?")
    parsed = parser.parse_args()
    config = GPT2Config(**(TINY if parsed.smoke else {"n_layer": parsed.layers}))
    n_prompts = 8 if parsed.smoke else parsed.prompts
    with tempfile.TemporaryDirectory() as name:
        write_case(Path(name), config, n_prompts)
        done = run_case(Path(name), parsed.threads)
    print(f"second_paper_prompts {n_prompts}")
    print(f"second_paper_wall_seconds {done.wall:.1f}")
    print(f"second_paper_processor_seconds {done.processor:.1f} (threads: {parsed.threads})")


if __name__ == "__main__":
    main()
