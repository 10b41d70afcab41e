"""The benchmarks' lines about neurons."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from transformers import GPT2Config, PretrainedConfig

from benchmarks import device, engine, faithfulness, ig, logprob_increase, neuron_level, neuron_level_pass
from benchmarks.measured import TINY, TOLERANCE, Outcome
from benchmarks.pairs import Timed, compare, progress
from twinlens.attribution.neuron.ig import PRESETS
from twinlens.attribution.neuron.static_scores import SCORES

LOOP_TOLERANCE = 1e-3
"""Relative difference that rounding explains where scores are the small difference of two logarithms in float32."""
RANK_TOLERANCE = 0.02
"""Share of ranks by which two float32 products of another order may differ, each by 1."""


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
        if name == "captum" and outcome.skip_absent(line, "captum"):
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


def benchmark_engine(arguments: argparse.Namespace, outcome: Outcome, n_tokens: int) -> None:
    """Integrated gradients against the work that no implementation avoids; here twinlens is the peer."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    compare_with_floor(arguments, outcome, config, f"ig_in_floors_T{n_tokens}", n_tokens)


def benchmark_families(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """The same for a model of every family, at one input length."""
    n_tokens = 16 if arguments.smoke else 128
    for family in engine.FAMILIES:
        config = engine.config_of(family, arguments.smoke)
        compare_with_floor(arguments, outcome, config, f"ig_in_floors_{family}_T{n_tokens}", n_tokens)


def compare_with_floor(
    arguments: argparse.Namespace, outcome: Outcome, config: PretrainedConfig, name: str, n_tokens: int
) -> None:
    """One line: what integrated gradients of one example take, in floors."""
    subject = ig.build_subject(config, n_tokens, arguments.steps)
    ig.ours(subject)
    engine.floor(subject)
    rows = subject.n_layers * subject.n_steps // 2
    note = (
        f"batch 1, {n_tokens} tokens, {subject.n_layers} layers of width {config.hidden_size}, m={subject.n_steps}; "
        f"the floor is one forward without gradients and one forward and backward over {rows} single-token rows; the "
        "peer's column is twinlens, the ratio its cost in floors"
    )
    measured = partial(engine.floor, subject), partial(ig.ours, subject)
    outcome.add(compare(name, *measured, arguments.pairs, None, None, note))


def benchmark_device(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """The device's matrix and copy rates; on a CUDA device integrated gradients of pythia-410m's shape beside them."""
    on_gpu = torch.cuda.is_available()
    where = torch.device("cuda" if on_gpu else "cpu")
    side = 64 if arguments.smoke else 8192 if on_gpu else 2048
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates[dtype] = device.matrix_rate(where, dtype, side)
        outcome.add_value(f"device_flops_{str(dtype).removeprefix('torch.')}", rates[dtype])
    outcome.add_value("device_copy_bytes_per_s", device.copy_rate(where, 2**16 if arguments.smoke else 2**30))
    n_tokens, n = (16, 2) if arguments.smoke else (512, 8)
    name = f"ig_pythia410m_vs_loop_T{n_tokens}"
    if not on_gpu and not arguments.smoke:
        outcome.skip(name, "skipped: needs a CUDA device")
        return
    task = device.build_task(where, torch.bfloat16, n, n_tokens, arguments.steps, arguments.smoke)
    seconds = device.best_seconds(lambda: device.attribute(task))
    outcome.add_value("ig_pythia410m_instances_per_s", n / seconds)
    outcome.add_value("ig_pythia410m_share_of_flops", device.operations(task) / seconds / rates[torch.bfloat16])
    layers = ig.chosen_layers(task.subject.n_layers, arguments.peer_layers)
    note = f"batch {n}, {n_tokens} tokens, m={arguments.steps}, bf16, time per instance; loop timed at layers {layers}"
    measured = partial(device.per_instance, task), partial(ig.plain_loop, task.subject, layers)
    for side_of_pair in measured:
        side_of_pair()
    outcome.add(compare(name, *measured, arguments.pairs, None, None, note))


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


def benchmark_logprob_increase(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Log-probability increase: the search against the dense form, the dense form against one neuron at a time."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    shape = f"{config.n_layer} layers, width {config.n_embd}, vocabulary {config.vocab_size}, random weights"
    pairs = min(arguments.pairs, 2)  # the dense form takes most of a minute
    subject = logprob_increase.build_subject(config, 1, 16, 100)
    logprob_increase.search(subject)
    measured = partial(logprob_increase.search, subject), partial(logprob_increase.dense, subject)
    note = f"1 sentence, {shape}; exact top {subject.top_k} of all FFN neurons against scoring every one"
    outcome.add(compare("lpi_topk_vs_dense", *measured, pairs, logprob_increase.list_difference, TOLERANCE, note))
    subject = logprob_increase.build_subject(config, 4, 16, 100)
    layer, n_units = config.n_layer // 2, 16 if arguments.smoke else 100
    parts = (logprob_increase.dense_part, logprob_increase.loop_part)
    ours, peer = (partial(part, subject, layer, n_units) for part in parts)
    note = f"4 sentences, {shape}; layer {layer}, the loop timed at {n_units} of its neurons and scaled to all"
    difference = logprob_increase.score_difference
    outcome.add(compare("lpi_dense_vs_loop", ours, peer, pairs, difference, LOOP_TOLERANCE, note))


def benchmark_neuron_level(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Every score of the second paper's Table 2 in log-probability increases, and ranks against the former form."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    n_prompts, top_k = (3, 5) if arguments.smoke else (100, 100)
    prompts = neuron_level.build_prompts(config, n_prompts)
    neuron_level.best(neuron_level.build_prompts(config, 2), "logprob_increase", top_k)
    shape = f"{config.n_layer} layers, width {config.n_embd}, vocabulary {config.vocab_size}, random weights"
    increase = partial(neuron_level.best, prompts, "logprob_increase", top_k)
    for score in SCORES:
        if score != "logprob_increase":
            note = (
                f"{n_prompts} prompts of 8 to 16 tokens, {shape}; twinlens' column is logprob_increase, the peer's "
                f"{score}, forwards and ranks included: the ratio is its cost in logprob_increase"
            )
            measured = increase, partial(neuron_level.best, prompts, score, top_k)
            outcome.add(compare(f"table2_cost_{score}", *measured, 1, None, None, note))
    n_targets, n_units = (3, 16) if arguments.smoke else (32, 512)
    targets = torch.randint(0, config.vocab_size, (n_targets,)).unique()
    values = prompts.model.values(config.n_layer // 2)[:n_units]
    both = (neuron_level.shared_ranks, neuron_level.ranks_by_prompt)
    ours, peer = (partial(ranks, prompts.model, values, targets) for ranks in both)
    note = f"{len(targets)} targets, {n_units} neurons of a layer, {shape}; the share of other ranks, by 1 at most"
    pairs, difference = min(arguments.pairs, 2), neuron_level.share_of_other_ranks
    outcome.add(compare("ranks_vs_by_prompt", ours, peer, pairs, difference, RANK_TOLERANCE, note))
    prompts = neuron_level.build_prompts(config, 3 if arguments.smoke else 8)
    for site in ("attention", "ffn"):
        readout, units = neuron_level.one_layer(prompts, site, config.n_layer // 2)
        ours, peer = (partial(of, readout, units) for of in (neuron_level.by_series, neuron_level.by_exponentials))
        note = f"{len(readout)} prompts of 8 to 16 tokens, all {site} neurons of a layer, {shape}; sums of increases"
        name, difference = f"increase_sums_{site}_vs_dense", logprob_increase.score_difference
        outcome.add(compare(name, ours, peer, min(arguments.pairs, 2), difference, TOLERANCE, note))


def benchmark_neuron_level_pass(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """The second paper's evaluations of a run together against each alone; sums of all neurons for many prompts."""
    config = GPT2Config(**(TINY if arguments.smoke else {"n_layer": arguments.layers}))
    shape = f"{config.n_layer} layers, width {config.n_embd}, vocabulary {config.vocab_size}, random weights"
    prompts, asked = neuron_level.build_prompts(config, 2 if arguments.smoke else 4), neuron_level_pass.evaluations()
    both = (neuron_level_pass.together, neuron_level_pass.each_alone)
    ours, peer = (partial(form, prompts, asked) for form in both)
    note = f"{len(prompts.batch['index'])} prompts of 8 to 16 tokens, {shape}; {len(asked)} evaluations as shipped"
    pairs, apart = min(arguments.pairs, 2), neuron_level_pass.difference
    outcome.add(compare("evaluations_together_vs_alone", ours, peer, pairs, apart, LOOP_TOLERANCE, note))
    prompts = neuron_level.build_prompts(config, 3 if arguments.smoke else 35)
    part, few = config.n_layer // 2, 1 if arguments.smoke else 7
    sizes = len(prompts.batch["index"]), few
    ours, peer = (partial(neuron_level_pass.sums_in_batches, prompts, part, size) for size in sizes)
    note = f"{sizes[0]} prompts of 8 to 16 tokens, {shape}; FFN neurons of a layer, at once and {few} at a time"
    outcome.add(compare("sums_at_once_vs_batches", ours, peer, pairs, apart, LOOP_TOLERANCE, note))
