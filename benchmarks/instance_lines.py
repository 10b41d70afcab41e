"""The benchmarks' lines about training instances and bridges."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

from benchmarks import bridge, first_answer, head_peers, instance, layers, rows, scaling, store_checks, trained
from benchmarks.measured import TOLERANCE, Outcome
from benchmarks.pairs import Comparison, compare, progress

PEER_TOLERANCE = 1e-4
"""Relative difference that rounding explains where a peer solves a linear system, or predicts, in float32."""


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


def benchmark_head_peers(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Gradient similarity and exact influence over a linear head beside captum and dattri, from cached head inputs."""
    n_train, n_test, hidden = (60, 8, 16) if arguments.smoke else (10_000, 1_000, 768)
    splits = instance.build_splits(n_train, n_test, hidden, 4, 10 if arguments.smoke else 100)
    note = f"n_train={n_train}, n_test={n_test}, hidden {hidden}, 4 classes, cached inputs, top {splits.top_k}, float32"
    peers = {"captum": ("weight", head_peers.captum_gradsim), "dattri": ("head", head_peers.dattri_gradsim)}
    for package, (params, peer) in peers.items():
        name = f"gradsim_head_vs_{package}"
        if outcome.skip_absent(name, package):
            continue
        measured = partial(head_peers.gradsim, splits, params), partial(peer, splits)
        for side in measured:
            side()
        outcome.add(compare(name, *measured, arguments.pairs, instance.relative_difference, TOLERANCE, note))
    name = "influence_head_vs_dattri"
    if outcome.skip_absent(name, "dattri"):
        return
    # the peer's Hessian at width 768 takes minutes
    splits = instance.build_splits(n_train, n_test, hidden // 3, 4, splits.top_k)
    damping = head_peers.absolute_damping(splits)
    note = note.replace(f"hidden {hidden}", f"hidden {hidden // 3}") + "; twinlens solves in float64"
    ours, theirs = partial(head_peers.influence, splits), partial(head_peers.dattri_influence, splits, damping)
    pairs = min(arguments.pairs, 3)
    outcome.add(compare(name, ours, theirs, pairs, instance.relative_difference, PEER_TOLERANCE, note))


def benchmark_trained(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Gradient similarity on a trained model beside captum: from cached head inputs, and from texts to scores."""
    names = "gradsim_trained_head_vs_captum", "gradsim_from_texts_vs_captum"
    absent = [outcome.skip_absent(name, "captum") for name in names]
    if any(absent):
        return
    n_train, n_test, hidden, top_k = (400, 40, 64, 10) if arguments.smoke else (10_000, 1_000, 768, 100)
    with tempfile.TemporaryDirectory() as folder:
        subject = trained.train(Path(folder), n_train, n_test, hidden, top_k)
    task = f"n_train={n_train}, n_test={n_test}, one block of width {hidden} fine-tuned on claims, top {top_k}, float32"
    measured = partial(head_peers.gradsim, subject.splits, "weight"), partial(head_peers.captum_gradsim, subject.splits)
    for side in measured:
        side()
    note = f"{task}; cached head inputs"
    difference = instance.relative_difference
    outcome.add(compare(names[0], *measured, arguments.pairs, difference, TOLERANCE, note))
    peer = trained.captum_from_texts(subject)
    note = f"{task}; predictions and attribution of a run of train.py, one run each, tokenised in advance"
    away = difference(subject.top_score, peer.result)
    outcome.add(Comparison(names[1], [subject.seconds], [peer.seconds], away, PEER_TOLERANCE, note))


def benchmark_layers(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """EK-FAC over all linear layers of GPT-2-small's shape beside kronfluence, each in its own process."""
    name = "ekfac_layers_vs_kronfluence"
    if arguments.smoke:
        outcome.skip(name, "skipped: takes minutes")
        return
    if outcome.skip_absent(name, "kronfluence"):
        return
    progress(f"{name}: two runs, of about half a minute and a minute for each block")
    words = ["--layers", str(arguments.layers), "--tokens", "64", "--train", "96", "--tests", "16"]
    ours, peer = (layers.alone(who, words) for who in ("ours", "peer"))
    note = f"python -m benchmarks.layers {' '.join(words)}; one run each, empirical labels, covariances in float64"
    difference = layers.relative_difference(ours.scores, peer.scores)
    outcome.add(Comparison(name, [ours.seconds], [peer.seconds], difference, PEER_TOLERANCE, note))
    outcome.add_value("ekfac_layers_peak_mib", ours.peak / 2**20)
    outcome.add_value("ekfac_layers_peak_mib_kronfluence", peer.peak / 2**20)


def benchmark_scaling(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Exponents of time in the number of train rows, and the gain of a second process.

    What 200 tests cost whatever the train split, above all filling their lists of 100, shows at 1000 rows. The second
    exponent is that of the time beyond these rows' in the rows beyond them. Then what a further row takes.
    """
    sizes = [100, 500, 1000] if arguments.smoke else [1_000, 3_000, 10_000, 30_000, 100_000]
    for name in scaling.METHODS:
        progress(f"{name}: {', '.join(map(str, sizes))} train rows")
        n_tests = 20 if arguments.smoke else 200
        seconds = scaling.seconds_over_n_train(name, sizes, n_tests, 256, arguments.pairs)
        outcome.add_value(f"{name}_exponent_of_n_train", scaling.fitted_exponent(sizes, seconds))
        beyond = [size - sizes[0] for size in sizes[1:]], [max(value - seconds[0], 1e-9) for value in seconds[1:]]
        outcome.add_value(f"{name}_exponent_of_n_train_beyond_{sizes[0]}", scaling.fitted_exponent(*beyond))
        for (size, after), (more, later) in pairwise(zip(sizes, seconds, strict=True)):
            outcome.add_value(f"{name}_us_per_row_{size}_to_{more}", 1e6 * (later - after) / (more - size))
    if not arguments.smoke:  # runs of the whole program
        outcome.add(scaling.compare_processes(arguments.pairs))


def benchmark_rows(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Scores over stored rows beside the plain matrix product that they are limited by: here the ratio is its share."""
    n_train, n_test, side, layers, top_k = (300, 8, 4, 3, 10) if arguments.smoke else (100_000, 1000, 16, 16, 100)
    with tempfile.TemporaryDirectory() as folder:
        progress("rows_vs_plain_product: writing")
        subject = rows.build_subject(Path(folder), n_train, n_test, side, layers, top_k)
        note = (
            f"n_train={n_train}, n_test={n_test}, {side * side * layers} numbers a row, top {top_k}, float32; the "
            "peer's column is the product alone, twinlens' adds ranking and summary"
        )
        measured = partial(rows.ours, subject), partial(rows.plain_product, subject)
        pairs = min(arguments.pairs, 3)
        outcome.add(compare("rows_vs_plain_product", *measured, pairs, rows.relative_difference, TOLERANCE, note))


def benchmark_store(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Share of the demo's time that checking the content of all it stored takes, and how fast files are checked."""
    progress("store_check: the demo, once")
    cost = store_checks.measure(arguments.smoke)
    speed = store_checks.bytes_per_second(2**24 if arguments.smoke else 2**29)
    outcome.add_value("store_check_share_of_demo", cost.check / cost.demo)
    outcome.add_value("store_check_seconds", cost.check)
    outcome.add_value("store_check_mb_of_demo", cost.size / 1e6)
    outcome.add_value("store_check_gb_per_second", speed / 1e9)


def benchmark_answer(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """The answer to a misspelt command line beside `import hydra`; at most three times as long is meant."""
    first_answer.answer()
    first_answer.hydra()
    note = "processes of their own; twinlens answers `python train.py method.ig.n_stepz=4`, the peer is `import hydra`"
    sides = first_answer.answer, first_answer.hydra
    outcome.add(compare("misspelt_vs_import_hydra", *sides, arguments.pairs, lambda a, b: abs(a - b), 0.5, note))


def benchmark_bridge(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """NA-Instances, streamed, against a double loop over the lists."""
    n, length, top_k, n_loop = (60, 20, 10, 2) if arguments.smoke else (10_000, 100, 100, 2)
    splits = bridge.build_splits(n, n, length, top_k, n_loop)
    bridge.ours(bridge.Splits(splits.train.rows(0, 50), splits.test.rows(0, 50), top_k, n_loop))
    note = f"{n} × {n} lists of {length} neurons, raw gains, top {top_k}; peer timed for {n_loop} tests and scaled up"
    measured = partial(bridge.ours, splits), partial(bridge.double_loop, splits)
    outcome.add(compare("dcns_vs_double_loop", *measured, arguments.pairs, bridge.relative_difference, TOLERANCE, note))
