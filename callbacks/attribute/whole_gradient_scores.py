"""Instance scores from whole gradients of linear layers: a pass over the train split for each block of tests.

A block holds as many tests as the memory budget allows. Every segment of the train split leaves the best and the worst
of its train examples for each test, and of each train example what its scores add to the train summary; nothing of
size tests × train is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.leaders import Leaders
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.train_summary import TrainSummary, count_votes
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.protocols import LinearLayer
from twinlens.callbacks.attribute.explained_outputs import (
    explained_columns,
    explained_inputs,
    explained_words,
    left_out_of,
    with_empty_lists,
)
from twinlens.callbacks.attribute.instance_scores import write_instance_scores
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.score_files import write_description
from twinlens.callbacks.attribute.whole_gradient_block import GradientBlock
from twinlens.callbacks.attribute.whole_gradient_costs import EXPECTED_STEPS, step_work, whole_work
from twinlens.callbacks.attribute.whole_gradient_factors import (
    covariance_inputs,
    factor_bytes,
    require_room,
    stored_factors,
)
from twinlens.callbacks.attribute.whole_gradient_inputs import (
    covered_by,
    gradient_need,
    layers_of,
    require_layers,
)
from twinlens.callbacks.attribute.whole_gradient_solves import (
    forget_solutions,
    held_copies,
    solve_memory,
    told_solves,
)
from twinlens.callbacks.passes.costs import batch_shapes
from twinlens.callbacks.passes.predict_pass import PassResult, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import score_segments
from twinlens.callbacks.store.store import Finish
from twinlens.models.linear_layers import linear_layers


class LayerReads(Reads):
    """Whole gradients of linear layers, as a backward finds them."""

    covers_layers = True
    counts_room = True

    @classmethod
    def refuse(cls, method: OverLayers, architecture: Callable[[], Any]) -> None:
        """See `require_layers`."""
        require_layers(method, architecture)

    def inputs(self, split: str) -> dict[str, Any]:
        """Both splits' predictions, what is explained, and the factors."""
        session, method = self.session, self.method
        factors = covariance_inputs(session, method) if method.needs_factors else None
        predicted = {
            which: session.predictions[name].fingerprint for which, name in (("train", "train"), ("examples", split))
        }
        return {**predicted, "split": split, "factors": factors, **explained_inputs(session, method)}

    def build(self, split: str, folder: Path) -> Finish:
        """Score a split and write `<split>/`, `train_summary/` and `method.yaml`, as `Streamed.build` does."""
        session, name, method = self.session, self.name, self.method
        rows = session.data.splits["train"]
        asked = torch.nonzero(~left_out_of(session, method, split))[:, 0]
        layers, inverses, passes = self.passes(split, folder, asked, GradientBlock)

        def finish() -> None:
            parts: list[InstanceScores] = []
            summary, own = TrainSummary.empty(len(rows)), torch.empty(0)
            for number, (tests, result) in enumerate(passes):
                scores = merged_lists(result, tests, method.top_k)
                parts.append(scores)
                seen = (result.rows["sum"], result.rows["max"], count_votes(scores, len(rows)))
                none = torch.tensor(torch.nan, dtype=torch.float64)
                summary = summary.merge(TrainSummary(*seen, len(tests), none))
                own = result.rows["own"] if number == 0 else own
            every = torch.arange(len(session.data.splits[split]))
            lists = vars(with_empty_lists(parts, every, min(method.top_k, len(rows))))
            explained = explained_columns(session, method, split)
            write_instance_scores(folder, split, lists, summary, own, explained=explained)
            covered = covered_by(session, method.params)
            described = {"top_k": method.top_k, **method.describe_layers(layers, inverses), **covered}
            if method.iterates:
                described |= told_solves([result for _, result in passes])
                forget_solutions(folder / "shards")
            write_description(folder, name, method, {**described, **explained_words(session, method)})

        return finish

    def passes(
        self, split: str, folder: Path, asked: Tensor, block_of: Callable[..., GradientBlock]
    ) -> tuple[list[LinearLayer], list[Inverse], list[tuple[Tensor, PassResult]]]:
        """The layers, their inverses, and of each block of tests, [tests], what a pass over the train split found.

        Args:
            asked: numbers of all tests, rising.
            block_of: makes the pass of a block, see `GradientBlock`.
        """
        session, name, method = self.session, self.name, self.method
        layers = layers_of(session, method.params)
        bases = stored_factors(session, name, method)[0] if method.needs_factors else None
        inverses = method.inverses(layers, bases)
        shards = score_segments(session.data.splits["train"], session.eval_batch_size)
        passes: list[tuple[Tensor, PassResult]] = []
        blocks = blocks_of_tests(session, layers, bases is not None, len(asked), held_copies(method))
        for number, (start, stop) in enumerate(blocks):
            title = f"{name} on {split}" + (f", tests {start} to {stop - 1}" if len(blocks) > 1 else "")
            tests = asked[start:stop]
            # named by its tests: with another budget, blocks and shards would be others
            place = folder / "shards" / f"tests_{start:07d}_{stop:07d}"
            block = block_of(session, title, method, layers, inverses, split, tests, shards, number == 0, place)
            model, loader = session.readable, session.loader("train")
            passes.append((tests, run_pass(title, model, block, shards, loader, place, session.trainers)))
        return layers, inverses, passes

    def n_tests(self, n_examples: int) -> int:
        """Gradients on the side of the tests: one of each explained example, unless the form says otherwise."""
        return n_examples

    def cost(self, plan: Planned, split: str) -> PassCost:
        """Passes over the train split, for the factors and for each block of tests."""
        session, method, shape, lengths = self.session, self.method, plan.shape, plan.lengths
        layers = linear_layers(shape.lm, shape.head, method.params)
        factors = method.needs_factors
        if factors:
            require_room(session, layers, method)
        n_train, n_test = len(lengths["train"]), self.n_tests(len(lengths[split]))
        copies = held_copies(method)
        blocks = blocks_of_tests(session, layers, factors, n_test, copies)
        n_classes, read = len(session.data.label_names), session.sequences.read
        work = whole_work(layers, shape, method, n_classes, lengths["train"], n_test, len(blocks), read)
        rows = session.data.splits["train"]
        shards = score_segments(rows, session.eval_batch_size)
        need = gradient_need(layers, shape.footprint, session.sequences)
        batches = batch_shapes([batch for segment in shards for batch in segment], list(lengths["train"]))
        working = max(need.peak(n, columns, session.memory_budget // 4) for n, columns in batches)
        parameters = sum(layer.n_parameters for layer in layers)
        most = max(stop - start for start, stop in blocks)
        held = 4 * parameters * most * copies
        fixed = factor_bytes(layers) if factors else 0
        disk = n_test * method.top_k * 24 * (len(shards) + 1) + len(blocks) * n_train * 32 + n_train * 40 + fixed
        remark = f"{len(layers)} layers, {len(blocks)} block{'s' if len(blocks) > 1 else ''} of tests"
        seconds = plan.times.whole(self.name, method, n_classes, work)
        if method.iterates:
            step = step_work(layers, shape, method, n_classes, lengths["train"], most, read)
            each = plan.times.whole(self.name, method, n_classes, step)
            seconds += EXPECTED_STEPS * len(blocks) * each
            disk += 4 * parameters * n_test
            working = max(working, solve_memory(session, layers, shape.footprint, batches))
            remark += f", {EXPECTED_STEPS} steps of cg expected for each, {method.cg_max_steps} at most"
        return PassCost(seconds, disk, held + fixed + working + session.memory_budget // 8, remark=remark)


def blocks_of_tests(
    session: Session, layers: Sequence[LinearLayer], factors: bool, n_tests: int, copies: int
) -> list[tuple[int, int]]:
    """Cut tests into blocks whose gradients take half of the memory budget, the factors among it.

    Args:
        copies: of a test's gradient that stand side by side.

    Raises:
        UserError: a single test does not fit.
    """
    each = 4 * copies * sum(layer.n_parameters for layer in layers)
    held = factor_bytes(list(layers), 4) if factors else 0
    room = session.memory_budget // 2 - held
    if room < each:
        raise UserError(
            f"the gradient of one test and the factors take {bytes_in_words(each + held)}, more than half of "
            f"memory_budget={bytes_in_words(session.memory_budget)}; expected room for one test: raise the budget, "
            "name fewer layers in params or set projection=random."
        )
    size = min(n_tests, room // each)
    return [(start, min(start + size, n_tests)) for start in range(0, n_tests, size)]


def merged_lists(result: PassResult, tests: Tensor, top_k: int) -> InstanceScores:
    """The best and the worst of all segments."""
    best, worst = (Leaders(top_k, largest) for largest in (True, False))
    for part in result.partials:
        best.update(part["top_score"], part["top_index"])
        worst.update(part["bottom_score"], part["bottom_index"])
    return InstanceScores(tests, *best.result(), *worst.result())
