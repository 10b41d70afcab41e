"""All benchmarks, one command: `python -m benchmarks.run`.

One line per ratio and value on stdout, progress on stderr, everything measured in `benchmarks/results/<date>.json`.
Exit code 1 where twinlens and a peer differ by more than rounding.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import instance_lines, neuron_lines, record, report_page, text_lines
from benchmarks.measured import TINY, Outcome
from benchmarks.pairs import CLOCKS, progress, use_clock

RESULTS = Path(__file__).parent / "results"
PER_LENGTH: dict[str, Callable[[argparse.Namespace, Outcome, int], None]] = {
    "ig": neuron_lines.benchmark_ig,
    "engine": neuron_lines.benchmark_engine,
    "faithfulness": neuron_lines.benchmark_faithfulness,
}
ONCE: dict[str, Callable[[argparse.Namespace, Outcome], None]] = {
    "device": neuron_lines.benchmark_device,
    "families": neuron_lines.benchmark_families,
    "instance": instance_lines.benchmark_instance,
    "head_peers": instance_lines.benchmark_head_peers,
    "trained": instance_lines.benchmark_trained,
    "bridge": instance_lines.benchmark_bridge,
    "logprob_increase": neuron_lines.benchmark_logprob_increase,
    "neuron_level": neuron_lines.benchmark_neuron_level,
    "neuron_level_pass": neuron_lines.benchmark_neuron_level_pass,
    "layers": instance_lines.benchmark_layers,
    "rows": instance_lines.benchmark_rows,
    "text_rows": text_lines.benchmark_text_rows,
    "bergson": text_lines.benchmark_bergson,
    "scaling": instance_lines.benchmark_scaling,
    "store": instance_lines.benchmark_store,
    "answer": instance_lines.benchmark_answer,
    "report": report_page.benchmark_report,
}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; refuses what cannot be run with argparse's own sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Time twinlens beside its peers.")
    parser.add_argument("--pairs", type=positive, default=5, help="interleaved pairs per ratio (5)")
    parser.add_argument("--lengths", type=lengths, default=[128, 384], help="tokens per input, at most 1024 (128,384)")
    parser.add_argument("--layers", type=positive, default=12, help="layers of the GPT-2-small-shaped model (12)")
    parser.add_argument("--steps", type=positive, default=20, help="quadrature steps of integrated gradients (20)")
    parser.add_argument(
        "--peer-layers",
        type=positive,
        default=3,
        help="layers at which loop and captum are timed, at even distances, scaled up to all (3)",
    )
    parser.add_argument("--full-loop", action="store_true", help="time loop and captum at all layers")
    parser.add_argument(
        "--captum-batch",
        type=positive,
        default=4,
        help="steps in one of captum's batches (4: on CPUs faster for captum than 1 and than all 20)",
    )
    parser.add_argument("--threads", type=positive, help="threads of torch (its own choice)")
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="clock of tasks in this process: processor time for a busy machine, with --threads 1 (wall)",
    )
    parser.add_argument(
        "--only",
        type=groups,
        default=[*PER_LENGTH, *ONCE],
        help=f"groups of lines: {','.join([*PER_LENGTH, *ONCE])} (all)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results (benchmarks/results)")
    parser.add_argument("--smoke", action="store_true", help="2 small layers, 16 tokens, 1 pair: does everything run?")
    parsed = parser.parse_args(arguments)
    if parsed.smoke:
        parsed.pairs, parsed.lengths, parsed.layers = 1, [16], TINY["n_layer"]
    return parsed


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}', expected a whole number of at least 1")
    return int(text)


def lengths(text: str) -> list[int]:
    """Input lengths, comma-separated, that fit GPT-2's 1024 positions."""
    found = [positive(part) for part in text.split(",")]
    if max(found) > 1024 or min(found) < 2:
        raise argparse.ArgumentTypeError(f"'{text}', expected numbers of tokens from 2 to 1024, comma-separated")
    return found


def groups(text: str) -> list[str]:
    """Names of groups of lines, comma-separated."""
    found, known = text.split(","), [*PER_LENGTH, *ONCE]
    if unknown := [name for name in found if name not in known]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}', expected some of {', '.join(known)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all benchmarks; 0 where all results agree, 1 otherwise."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parse(given)
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    use_clock(parsed.clock)
    outcome = Outcome()
    for n_tokens in parsed.lengths:
        for name in (name for name in PER_LENGTH if name in parsed.only):
            PER_LENGTH[name](parsed, outcome, n_tokens)
    for name in (name for name in ONCE if name in parsed.only):
        ONCE[name](parsed, outcome)
    settings = {name: value for name, value in vars(parsed).items() if name != "output"}
    command = shlex.join(["python", "-m", "benchmarks.run", *without_output(given)])
    file = record.write(parsed.output, command, settings, outcome.comparisons, outcome.values, outcome.skipped)
    progress(f"written: {file} and {file.with_suffix('.md').name}")
    differing = [item for item in outcome.comparisons if not item.agrees]
    for item in differing:
        progress(f"{item.name}: results differ by {item.difference:.1e}, expected below {item.tolerance:.0e}")
    return 1 if differing else 0


def without_output(arguments: Sequence[str]) -> list[str]:
    """The command line without the folder of the results, which says nothing about them."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--output"):
            kept.append(argument)
        skip = argument == "--output"
    return kept


if __name__ == "__main__":
    sys.exit(main())
