"""All benchmarks, one command: `python -m benchmarks.run`.

One line per ratio and value on stdout, progress on stderr, everything measured in `benchmarks/results/<date>.json`.
Exit code 1 where twinlens and a peer differ by more than rounding.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from transformers import GPT2Config

from attribution.neuron.ig import PRESETS
from benchmarks import bridge, faithfulness, ig, instance, knowledge, record, rows
from benchmarks.pairs import Comparison, Timed, compare, progress

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-5
"""Relative difference that rounding explains in float32."""
LOOP_TOLERANCE = 1e-3
"""Relative difference that rounding explains where scores are the small difference of two logarithms in float32."""
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 60, "bos_token_id": 0, "eos_token_id": 0}


@dataclass
class Outcome:
    """What has been measured so far; each addition is printed at once."""

    comparisons: list[Comparison] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, comparison: Comparison) -> None:
        """A ratio, and the difference of the results where they have to agree."""
        self.comparisons.append(comparison)
        print(f"{comparison.name} {comparison.ratio:.3g}", flush=True)
        if comparison.difference is not None:
            print(f"{comparison.name}_difference {comparison.difference:.1e}", flush=True)

    def add_value(self, name: str, value: float) -> None:
        """A number that is no ratio of times."""
        self.values[name] = value
        print(f"{name} {value:.1e}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """A comparison that this installation cannot make."""
        self.skipped[name] = reason
        print(f"{name} {reason}", flush=True)


def benchmark_ig(arguments: argparse.Namespace, outcome: Outcome, n_tokens: int) -> None:
    """Integrated gradients against both peers, and quadrature rules against each other, at one input length."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    subject = ig.build_subject(config, n_tokens, arguments.steps)
    layers = ig.chosen_layers(subject.n_layers, subject.n_layers if arguments.full_loop else arguments.peer_layers)
    scaled = "" if len(layers) == subject.n_layers else ", scaled to all layers by their mean"
    task = f"batch 1, {n_tokens} tokens, {subject.n_layers} layers, m={subject.n_steps}, right Riemann sum, float32"
    note = f"{task}; peer timed at layers {layers}{scaled}"

    def difference(scores: torch.Tensor, reference: torch.Tensor) -> float:
        return ig.relative_difference(scores[layers], reference)

    batch_size = arguments.captum_batch
    peers: dict[str, tuple[Callable[..., Timed[torch.Tensor]], str]] = {
        "loop": (ig.plain_loop, note),
        "captum": (partial(ig.captum_scores, internal_batch_size=batch_size), f"{note}; {batch_size} steps per batch"),
    }
    for name, (peer, its_note) in peers.items():
        line = f"ig_vs_{name}_T{n_tokens}"
        if name == "captum" and not captum_is_installed():
            outcome.skip(line, "skipped: needs pip install twinlens[bench]")
            continue
        progress(f"{line}: warming up")
        ig.ours(subject)
        peer(replace(subject, n_steps=2), layers[-1:])
        measured = partial(ig.ours, subject), partial(peer, subject, layers)
        outcome.add(compare(line, *measured, arguments.pairs, difference, TOLERANCE, its_note))
    benchmark_quadrature(arguments, outcome, subject, f"T{n_tokens}")


def benchmark_quadrature(arguments: argparse.Namespace, outcome: Outcome, subject: ig.Subject, suffix: str) -> None:
    """Gauss–Legendre with 8 nodes and the right Riemann sum with 20, against Gauss–Legendre with 64."""
    gauss = partial(ig.ours, subject, PRESETS["gauss"])
    riemann = partial(ig.ours, subject, PRESETS["paper"])
    reference = gauss(64).result
    outcome.add_value(f"ig_gauss8_error_{suffix}", ig.relative_error(gauss(8).result, reference))
    outcome.add_value(f"ig_riemann20_error_{suffix}", ig.relative_error(riemann(20).result, reference))
    note = "twinlens with Gauss–Legendre, m=8, against twinlens with the right Riemann sum, m=20"
    name = f"ig_gauss8_vs_riemann20_{suffix}"
    outcome.add(compare(name, partial(gauss, 8), partial(riemann, 20), arguments.pairs, None, None, note))


def benchmark_instance(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Gradient similarity, streamed, against one backward per example."""
    sizes = (60, 8, 16, 3, 10) if arguments.smoke else (2000, 200, 768, 4, 100)
    splits = instance.build_splits(*sizes)
    instance.ours(splits)
    instance.autograd_loop(instance.Splits(splits.train.rows(0, 50), splits.test.rows(0, 2), 10))
    n_train, n_test, hidden, n_classes, top_k = sizes
    note = f"n_train={n_train}, n_test={n_test}, hidden {hidden}, {n_classes} classes, linear head, top {top_k}"
    measured = partial(instance.ours, splits), partial(instance.autograd_loop, splits)
    outcome.add(
        compare("gradsim_vs_autograd_loop", *measured, arguments.pairs, instance.relative_difference, TOLERANCE, note)
    )


def benchmark_bridge(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """NA-Instances, streamed, against a double loop over the lists."""
    n, length, top_k, n_loop = (60, 20, 10, 2) if arguments.smoke else (10_000, 100, 100, 2)
    splits = bridge.build_splits(n, n, length, top_k, n_loop)
    bridge.ours(bridge.Splits(splits.train.rows(0, 50), splits.test.rows(0, 50), top_k, n_loop))
    note = f"{n} × {n} lists of {length} neurons, raw gains, top {top_k}; peer timed for {n_loop} tests and scaled up"
    measured = partial(bridge.ours, splits), partial(bridge.double_loop, splits)
    outcome.add(compare("dcns_vs_double_loop", *measured, arguments.pairs, bridge.relative_difference, TOLERANCE, note))


def benchmark_faithfulness(arguments: argparse.Namespace, outcome: Outcome, n_tokens: int) -> None:
    """Faithfulness of ten lists in plain forwards over the same examples: here the ratio is twinlens' own cost."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    n_examples, n_lists, top_k = (2, 3, 5) if arguments.smoke else (8, 10, 100)
    task = faithfulness.build_task(config, n_tokens, n_examples, n_lists, top_k)
    faithfulness.edits(task)
    faithfulness.forward(task)
    note = (
        f"{n_lists} lists, sufficiency @1 and comprehensiveness @{top_k}, batch {n_examples}, {n_tokens} tokens, "
        f"{config.n_layer} layers, float32; the peer's column is faithfulness, twinlens' the plain forward"
    )
    measured = partial(faithfulness.forward, task), partial(faithfulness.edits, task)
    name = f"faithfulness_vs_prefix_T{n_tokens}"
    outcome.add(compare(name, *measured, arguments.pairs, faithfulness.difference, TOLERANCE, note))


def benchmark_knowledge(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Log-probability increase: the search against the dense form, the dense form against one neuron at a time."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    shape = f"{config.n_layer} layers, width {config.n_embd}, vocabulary {config.vocab_size}, random weights"
    pairs = min(arguments.pairs, 2)  # the dense form takes most of a minute
    subject = knowledge.build_subject(config, 1, 16, 100)
    knowledge.search(subject)
    measured = partial(knowledge.search, subject), partial(knowledge.dense, subject)
    note = f"1 sentence, {shape}; exact top {subject.top_k} of all FFN neurons against scoring every one"
    outcome.add(compare("lpi_topk_vs_dense", *measured, pairs, knowledge.list_difference, TOLERANCE, note))
    subject = knowledge.build_subject(config, 4, 16, 100)
    layer, n_units = config.n_layer // 2, 16 if arguments.smoke else 100
    ours, peer = (partial(part, subject, layer, n_units) for part in (knowledge.dense_part, knowledge.loop_part))
    note = f"4 sentences, {shape}; layer {layer}, the loop timed at {n_units} of its neurons and scaled to all"
    outcome.add(compare("lpi_dense_vs_loop", ours, peer, pairs, knowledge.score_difference, LOOP_TOLERANCE, note))


def benchmark_rows(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Scores over stored rows beside the plain matrix product that they are limited by: here the ratio is its share."""
    n_train, n_test, side, layers, top_k = (300, 8, 4, 3, 10) if arguments.smoke else (100_000, 1000, 16, 16, 100)
    with tempfile.TemporaryDirectory() as folder:
        progress("rows_vs_plain_product: writing")
        subject = rows.build_subject(Path(folder), n_train, n_test, side, layers, top_k)
        grown = rows.anonymous_growth(lambda: rows.ours(subject))
        note = (
            f"n_train={n_train}, n_test={n_test}, {side * side * layers} numbers a row, top {top_k}, float32; the "
            "peer's column is the product alone, twinlens' adds ranking and summary"
        )
        measured = partial(rows.ours, subject), partial(rows.plain_product, subject)
        pairs = min(arguments.pairs, 3)
        outcome.add(compare("rows_vs_plain_product", *measured, pairs, rows.relative_difference, TOLERANCE, note))
    outcome.add_value("rows_anonymous_gb", grown / 2**30)


def captum_is_installed() -> bool:
    """Whether the extra `bench` is there."""
    try:
        return importlib.util.find_spec("captum") is not None
    except ValueError:  # a module without a specification stands in sys.modules
        return False


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all benchmarks; 0 where all results agree, 1 otherwise."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parse(given)
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    outcome = Outcome()
    for n_tokens in parsed.lengths:
        benchmark_ig(parsed, outcome, n_tokens)
        benchmark_faithfulness(parsed, outcome, n_tokens)
    benchmark_instance(parsed, outcome)
    benchmark_rows(parsed, outcome)
    benchmark_bridge(parsed, outcome)
    benchmark_knowledge(parsed, outcome)
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
