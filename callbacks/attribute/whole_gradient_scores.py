"""Instance scores from whole gradients of linear layers: a pass over the train split for each block of tests.

A block holds as many tests as the memory budget allows. Every segment of the train split leaves the best and the worst
of its train examples for each test, and of each train example what its scores add to the train summary; nothing of
size tests × train is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_convert

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.gradients.curvature_sums import WrittenGradients
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse, cosines
from twinlens.attribution.instance.leaders import Leaders
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.train_summary import TrainSummary, count_votes
from twinlens.attribution.memory_amounts import bytes_in_words
from twinlens.attribution.protocols import Batch, LinearLayer
from twinlens.callbacks.attribute.explained_outputs import (
    explained_columns,
    explained_inputs,
    explained_words,
    left_out_of,
    with_empty_lists,
)
from twinlens.callbacks.attribute.explained_scores import explained_batch, explained_scores
from twinlens.callbacks.attribute.instance_scores import write_instance_scores
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.score_files import write_description
from twinlens.callbacks.attribute.whole_gradient_costs import EXPECTED_STEPS, step_work, whole_work
from twinlens.callbacks.attribute.whole_gradient_factors import covariance_inputs, factor_bytes, stored_factors
from twinlens.callbacks.attribute.whole_gradient_inputs import (
    covered_by,
    cut_batch,
    gradient_need,
    layers_of,
    require_layers,
    train_labels,
    train_losses,
)
from twinlens.callbacks.attribute.whole_gradient_solves import (
    StepwiseSolve,
    forget_solutions,
    held_copies,
    solve_memory,
    told_solves,
)
from twinlens.callbacks.passes.costs import batch_shapes
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import PassResult, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS, Progress, score_segments
from twinlens.callbacks.store.store import Finish
from twinlens.data.sampling import token_lengths
from twinlens.models.linear_layers import linear_layers

Holder = TypeVar("Holder", HeldTests, WrittenGradients)
LISTS = ("top_index", "top_score", "bottom_index", "bottom_score")


class LayerReads(Reads):
    """Whole gradients of linear layers, as a backward finds them."""

    covers_layers = True

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
        blocks = test_blocks(session, layers, bases is not None, len(asked), held_copies(method))
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
        n_train, n_test = len(lengths["train"]), self.n_tests(len(lengths[split]))
        copies = held_copies(method)
        blocks = test_blocks(session, layers, factors, n_test, copies)
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


def test_blocks(
    session: Session, layers: Sequence[LinearLayer], factors: bool, n_tests: int, copies: int = 1
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


@dataclass
class GradientBlock:
    """A pass over the train split against some tests; called with one train batch after the other.

    `add_tests`, `longest_first` and `of_train` are what other functionals than an example's own have of their own.

    Args:
        tests: their rows in the split, [tests], rising.
        own: whether each train example is scored against itself; with solves by steps it never is.
        place: folder of the pass.
    """

    session: Session
    title: str
    method: OverLayers
    layers: list[LinearLayer]
    inverses: list[Inverse]
    split: str
    tests: Tensor
    shards: list[list[list[int]]]
    own: bool
    place: Path

    def __post_init__(self) -> None:
        self.labels = train_labels(self.session, self.method)
        need = gradient_need(self.layers, self.session.footprint, self.session.sequences)
        self.cut = WithinMemory(self.title, self._scores, self.session.memory_budget // 4, need)
        self.progress = Progress(self.shards)
        self.held: HeldTests | None = None
        self.solve_facts: dict[str, Tensor] = {}
        self.order = self.longest_first()
        self._start_segment()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        if self.held is None:  # the model is on its device by now
            self.held = self.hold(batch["input_ids"].device)
        done = self.cut(batch)
        scores, own = done["scores"].T, done["own"]
        index = torch.tensor(self.order, device=scores.device)
        require_finite(scores, "An instance score", index)
        ranked = scores.float()
        for leaders in (self.best, self.worst):
            leaders.update(ranked, done["index"])
        kept = {"index": done["index"], "sum": scores.sum(0), "max": ranked.amax(0).double(), "own": own}
        self.rows.append({**kept, **self.of_train(ranked)})
        if not self.progress.ends(batch["index"]):
            return {}
        back = torch.tensor(self.order).argsort()  # to the order of the split
        lists = (*self.best.result(), *self.worst.result())
        result = {name: torch.cat([part[name] for part in self.rows]) for name in self.rows[0]}
        result |= {f"{PARTIAL_SUMS}{name}": values[back] for name, values in zip(LISTS, lists, strict=True)}
        result |= {f"{PARTIAL_SUMS}{name}": value for name, value in self.solve_facts.items()}
        self._start_segment()
        return result

    def of_train(self, scores: Tensor) -> dict[str, Tensor]:
        """What else is kept of each train example of a batch, [examples, …]; nothing, unless the block says otherwise.

        Args:
            scores: [tests, examples], float32, the tests in `order`.
        """
        return {}

    def _start_segment(self) -> None:
        self.best, self.worst = (Leaders(self.method.top_k, largest) for largest in (True, False))
        self.rows: list[dict[str, Tensor]] = []

    def _scores(self, batch: Batch, budget: int) -> dict[str, Tensor]:
        assert self.held is not None
        with recording(self.layers) as tape:
            scores, own = self.held.scores(tape, *train_losses(self.session, self.labels, batch))
        if own is None:
            own = scores.new_full(scores.shape[1:], torch.nan)
        if self.method.cosine:
            scores, own = cosines(scores, self.held.own, own), (own > 0).double()
        return {"index": batch["index"], "scores": scores.T, "own": own}

    def hold(self, device: torch.device) -> HeldTests:
        """Solved gradients of the tests; every process takes all of them, as train batches are shared, not tests."""
        if self.method.iterates:
            inverses = [inverse.to(device) for inverse in self.inverses]
            held = self.nothing_held([Inverse()] * len(self.layers), with_own=False)
            solve = StepwiseSolve(self.session, self.title, self.method, self.layers, inverses, self.labels, self.place)
            gradients = WrittenGradients(self.layers, len(self.tests))
            solutions, self.solve_facts = solve(lambda: self.add_tests(gradients, device).parts, device)
            for number, solution in enumerate(solutions):
                held.hold(number, solution)
            return held
        inverses = [inverse.to(device) for inverse in self.inverses]
        return self.add_tests(self.nothing_held(inverses, self.own or self.method.cosine), device)

    def add_tests(self, holder: Holder, device: torch.device) -> Holder:
        """Give a holder every test's recorded forward, in `order`."""
        model: Any = self.session.readable
        targets = self.session.targets("instance", self.split)
        for batch in self.batches(self.order, device):
            for part in cut_batch(explained_batch(targets, batch), self.cut.need, self.cut.budget):
                own = targets.at(part["index"].cpu()).to(device)
                with recording(self.layers) as tape:
                    holder.add(tape, explained_scores(model, own, part), own)
        return holder

    def nothing_held(self, inverses: list[Inverse], with_own: bool) -> HeldTests:
        """Room for the tests' gradients, on the device of the inverses."""
        n_train = sum(len(batch) for shard in self.shards for batch in shard)
        workspace = self.session.memory_budget // 8
        return HeldTests(self.layers, inverses, len(self.tests), n_train, with_own, workspace)

    def batches(self, rows: Sequence[int], device: torch.device) -> Iterator[Batch]:
        """Rows of the explained split in their order, in batches."""
        size = self.session.eval_batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        for loaded in self.session.loader(self.split)([list(part) for part in parts]):
            yield {key: value.to(device) for key, value in default_convert(loaded).items()}

    def longest_first(self) -> list[int]:
        """The tests by length, so that little is computed on padding."""
        lengths = token_lengths(self.session.data.splits[self.split])
        return sorted(self.tests.tolist(), key=lambda row: (-lengths[row], row))


def merged_lists(result: PassResult, tests: Tensor, top_k: int) -> InstanceScores:
    """The best and the worst of all segments."""
    best, worst = (Leaders(top_k, largest) for largest in (True, False))
    for part in result.partials:
        best.update(part["top_score"], part["top_index"])
        worst.update(part["bottom_score"], part["bottom_index"])
    return InstanceScores(tests, *best.result(), *worst.result())
