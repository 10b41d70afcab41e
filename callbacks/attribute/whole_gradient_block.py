"""Pass over the train split for one block of tests: their gradients held, every train example's scored as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import default_convert

from twinlens.attribution.errors import require_finite
from twinlens.attribution.gradients.curvature_sums import WrittenGradients
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse, cosines
from twinlens.attribution.instance.leaders import Leaders
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.attribution.protocols import Batch, LinearLayer
from twinlens.callbacks.attribute.explained_scores import explained_batch, explained_scores
from twinlens.callbacks.attribute.whole_gradient_inputs import (
    cut_batch,
    gradient_need,
    train_labels,
    train_losses,
)
from twinlens.callbacks.attribute.whole_gradient_solves import (
    StepwiseSolve,
)
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS, Progress
from twinlens.data.sampling import token_lengths

Holder = TypeVar("Holder", HeldTests, WrittenGradients)
LISTS = ("top_index", "top_score", "bottom_index", "bottom_score")


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
