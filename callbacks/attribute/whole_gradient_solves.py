"""Test gradients solved for by conjugate gradients over all layers, a pass over the train split for each step.

Every process takes its share of the train batches, and their sums meet. The solutions of a block of tests are kept
until its scores are there, so that a killed run solves one block again at the most.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import isinf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_convert

from twinlens.attribution.gradients.curvature_sums import CurvatureSums
from twinlens.attribution.gradients.fisher import solve
from twinlens.attribution.gradients.preconditioned import COPIES, Parts, solved
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import LinearLayer
from twinlens.callbacks.attribute.whole_gradient_inputs import cut_batch, train_losses
from twinlens.callbacks.passes.predict_pass import PassResult
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import read_shard, write_shard
from twinlens.callbacks.processes.fsdp import gathering_of
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.models.footprint import Footprint

SOLUTIONS = "solutions"
"""Folder of a block's solutions, beside its shards."""


class StepwiseSolve:
    """(H + λ)⁻¹ of the gradients of a block of tests, H of all layers together, λ of each layer its own.

    Args:
        session: of the run.
        title: of the pass, for a line.
        method: with `fisher`, `preconditioner`, `cg_tolerance` and `cg_max_steps`.
        layers: that are differentiated.
        inverses: of each layer alone, the preconditioner, where the model is.
        labels: of the train split's losses; None: those of whole texts.
        place: folder of the pass.
    """

    def __init__(
        self,
        session: Session,
        title: str,
        method: Any,
        layers: list[LinearLayer],
        inverses: Sequence[Inverse],
        labels: Tensor | None,
        place: Path,
    ) -> None:
        self.session = session
        self.title = title
        self.method = method
        self.layers = layers
        self.inverses = inverses
        self.labels = labels
        self.place = place / SOLUTIONS
        self.need = product_need(layers, session.footprint, session.sequences.read)

    def __call__(self, gradients: Callable[[], Parts], device: torch.device) -> tuple[Parts, dict[str, Tensor]]:
        """The solutions of every layer and what is known of them, `residual` and `steps`; read where they are kept.

        Args:
            gradients: of the tests over every layer, to be solved for.

        Raises:
            UserError: the steps do not suffice, with the residual that was reached.
        """
        stored = read_shard(self.place, 0)
        if _all(stored is not None, device):
            assert stored is not None
            facts = {name: stored.pop(name) for name in ("residual", "steps")}
            if is_first_process():
                print(f"{self.title}: its solutions are there, going on", flush=True)
            # copied: a product with a file's memory may round otherwise than one with memory of its own
            return [stored[str(number)].clone().to(device) for number in range(len(self.layers))], facts
        start, right = time.monotonic(), gradients()
        for part, inverse in zip(right, self.inverses, strict=True):
            if isinf(inverse.damping):  # an expert that no train example is sent to: it has no share in any score
                part.zero_()
        if _world_size() > 1:
            for part in right:  # equal to the last bit, so that all processes take the same steps
                torch.distributed.broadcast(part, 0)
        tolerance, most = self.method.cg_tolerance, self.method.cg_max_steps
        found = solved(right, partial(self._product, device), self._precondition, tolerance, most)
        facts = {"residual": found.residual.max().cpu(), "steps": torch.tensor(found.steps)}
        if is_first_process():
            seconds = time.monotonic() - start
            print(
                f"{self.title}: solved by {found.steps} passes over the train split in {seconds:.1f} s, largest "
                f"relative residual {float(facts['residual']):.2g}",
                flush=True,
            )
            self.place.mkdir(parents=True, exist_ok=True)
            write_shard(self.place, 0, {**{str(number): part for number, part in enumerate(found.parts)}, **facts})
        return found.parts, facts

    def _precondition(self, number: int, residual: Tensor) -> Tensor:
        inverse = self.inverses[number]
        assert inverse.basis is not None
        if self.method.preconditioner == "none":  # but λ, without which layers of small curvature would wait
            return residual / inverse.damping
        shape = inverse.basis.eigenvalues.shape
        return solve(inverse.basis, inverse.damping, residual.unflatten(1, shape)).flatten(1)

    def _product(self, device: torch.device, vectors: Parts) -> Parts:
        """(H + λ) v over the whole train split."""
        session = self.session
        sums = CurvatureSums(self.layers, self.method.fisher, vectors, session.memory_budget // 8)
        for loaded in session.loader("train")(_share(session.shards("train"))):
            batch = {key: value.to(device) for key, value in default_convert(loaded).items()}
            for part in cut_batch(batch, self.need, session.memory_budget // 8):
                with recording(self.layers) as tape:
                    sums.add(tape, *train_losses(session, self.labels, part))
        n_train = len(session.data.splits["train"])
        gathering = gathering_of(session.readable)
        if gathering is not None:
            gathering.finish()  # others may still read blocks
        for total, vector, inverse in zip(sums.sums, vectors, self.inverses, strict=True):
            if _world_size() > 1:
                torch.distributed.all_reduce(total)
            if isinf(inverse.damping):
                total.zero_()
            else:
                total.div_(n_train).add_(vector, alpha=inverse.damping)
        return sums.sums


def held_copies(method: Any) -> int:
    """Vectors of a test that stand side by side while it is scored, or solved for by steps."""
    return COPIES if method.iterates else 1


def product_need(layers: Sequence[LinearLayer], footprint: Footprint, read: int) -> Need:
    """A forward with all that backward keeps, and for every layer inputs and output gradients of one backward."""
    kept = sum(2 * layer.d_in + layer.has_bias + layer.d_out for layer in layers)
    widest = max(layer.d_in + layer.d_out for layer in layers)

    def each(columns: int) -> int:
        scores = 3 * 4 * footprint.n_outputs * columns if footprint.n_outputs else 0  # of every token, for texts
        return read * (footprint.sequence(columns) + 4 * columns * (kept + widest) + scores)

    return Need(each, each)


def solve_memory(
    session: Session, layers: Sequence[LinearLayer], footprint: Footprint, batches: Sequence[tuple[int, int]]
) -> int:
    """Peak of a product's batches, (examples, columns) each, beside the vectors and the block of formed gradients."""
    need = product_need(layers, footprint, session.sequences.read)
    return max(need.peak(n, columns, session.memory_budget // 8) for n, columns in batches)


def told_solves(results: Sequence[PassResult]) -> dict[str, Any]:
    """What the passes over the blocks of tests tell of their solves, for `method.yaml`."""
    partials = [result.partials[0] for result in results if result.partials]
    steps = [int(part["steps"]) for part in partials]
    return {"residual": max(float(part["residual"]) for part in partials), "steps": steps}


def forget_solutions(shards: Path) -> None:
    """Remove the solutions of all blocks: they are as large as the tests' gradients, and have been used."""
    for folder in shards.glob(f"*/{SOLUTIONS}"):
        shutil.rmtree(folder)


def _share(shards: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """The batches that this process takes, every world_size-th."""
    batches = [list(batch) for shard in shards for batch in shard]
    return batches[torch.distributed.get_rank() :: _world_size()] if _world_size() > 1 else batches


def _all(here: bool, device: torch.device) -> bool:
    """Whether something holds in every process."""
    if _world_size() < 2:
        return here
    answer = torch.tensor(int(here), device=device)
    torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN)
    return bool(answer)


def _world_size() -> int:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1
