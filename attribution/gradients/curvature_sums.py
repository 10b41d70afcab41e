"""Products of a model's curvature with vectors over whole layers, and test gradients to solve for, written out.

The curvature of the mean train loss is 1/n Σ r rᵀ over gradients r: those that the GGN of the scores is made of,
classes − 1 for each example (`softmax_root`), or for the empirical Fisher matrix one, of its own loss. So a product
with vectors v is 1/n Σ r (rᵀv). Nothing is left out: r runs over all layers at once, and layers interact.

For each r the backward leaves a layer's inputs and output gradients. From these r is formed layer by layer, some
examples at a time, first for the products rᵀv over all layers, then for their sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from twinlens.attribution.gradients.blocks import by_example, example_blocks, some_blocks
from twinlens.attribution.gradients.cotangents import target_cotangents, train_cotangents
from twinlens.attribution.gradients.fisher import Fisher, fisher_cotangents, in_blocks
from twinlens.attribution.gradients.tape import Tape
from twinlens.attribution.protocols import LinearLayer
from twinlens.attribution.targets import Targets


class CurvatureSums:
    """Σ r (rᵀv) over the train examples seen so far, for some vectors v.

    Args:
        layers: the layers that are differentiated.
        fisher: labels in the curvature: `expectation`, the GGN itself, or `empirical`.
        vectors: v of every layer, [vectors, d_out · (d_in + bias)] each, where the model is.
        workspace: bytes that a layer's gradients of some examples may take.

    Attributes:
        sums: of every layer, as `vectors`; over the number of examples they are the curvature's products.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.curvature_sums import CurvatureSums
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> module = torch.nn.Linear(1, 2, bias=False).requires_grad_(False)
        >>> _ = torch.nn.init.zeros_(module.weight)  # so that every probability is ½
        >>> layers = [LinearLayer("score", module, d_in=1, d_out=2, has_bias=False)]
        >>> sums = CurvatureSums(layers, "expectation", [torch.eye(2)], workspace=2**20)
        >>> with recording(layers) as tape:
        ...     sums.add(tape, module(torch.tensor([[2.0]])), labels=torch.tensor([0]))
        >>> sums.sums[0].round(decimals=4)  # a² (diag(p) − p pᵀ)
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """

    def __init__(
        self, layers: Sequence[LinearLayer], fisher: Fisher, vectors: Sequence[Tensor], workspace: int
    ) -> None:
        self.layers = layers
        self.fisher: Fisher = fisher
        self.vectors = vectors
        self.workspace = workspace
        self.sums = [torch.zeros_like(vector) for vector in vectors]
        self._memory: Tensor | None = None

    def add(self, tape: Tape, scores: Tensor, labels: Tensor | None) -> None:
        """Take in a batch whose forward the tape has recorded.

        Args:
            scores: logits, [examples, classes], or the losses of whole texts, [examples].
            labels: [examples]; read where the curvature is empirical; None: `scores` are losses.

        Raises:
            UserError: an expectation over a vocabulary, or over whole texts.
        """
        n = len(scores)
        rows = fisher_cotangents(scores, labels, self.fisher)
        for row, cotangents in enumerate(rows):
            seen: dict[int, tuple[Tensor, Tensor]] = {}

            def keep(
                number: int, inputs: Tensor, deltas: Tensor, seen: dict[int, tuple[Tensor, Tensor]] = seen
            ) -> None:
                seen[number] = by_example(self.layers[number], inputs, deltas, n)

            tape.gradients(scores, cotangents, keep, more=row + 1 < len(rows))
            with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
                self._add(seen, n)

    def _add(self, seen: dict[int, tuple[Tensor, Tensor]], n: int) -> None:
        """Add r (rᵀv) of some examples with one r each, whose sides are in `seen`."""
        some = self.vectors[0]
        products = some.new_zeros(len(some), n)
        for number, start, stop, block in self._formed(seen, n):
            products[:, start:stop].addmm_(self.vectors[number], block.T)
        for number, start, stop, block in self._formed(seen, n):
            self.sums[number].addmm_(products[:, start:stop], block)

    def _formed(self, seen: dict[int, tuple[Tensor, Tensor]], n: int) -> Iterator[tuple[int, int, int, Tensor]]:
        """Gradients, written out: (layer, start, stop, [stop − start, d_out · (d_in + bias)])."""
        for number, (a, d) in seen.items():
            for start, stop, block in in_blocks(partial(some_blocks, a, d), n, self._buffer(a, d)):
                yield number, start, stop, block.flatten(1)

    def _buffer(self, a: Tensor, d: Tensor) -> Tensor:
        """Memory for gradients of some of the examples, [at most examples, d_out, d_in + bias], one for all layers."""
        each = a.shape[2] * d.shape[2]
        size = max(1, min(len(a), self.workspace // (a.element_size() * each)))
        if self._memory is None or self._memory.dtype != a.dtype or len(self._memory) < size * each:
            self._memory = None  # else both would stand side by side
            self._memory = a.new_empty(size * each)
        return self._memory[: size * each].view(size, d.shape[2], a.shape[2])


class WrittenGradients:
    """Gradients of tests over whole layers, written out, to be solved for.

    Args:
        layers: the layers that are differentiated.
        n_tests: how many will be added.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.curvature_sums import WrittenGradients
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> from twinlens.attribution.targets import Targets
        >>> module = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
        >>> _ = torch.nn.init.zeros_(module.weight)  # so that every probability is ½
        >>> layers = [LinearLayer("score", module, d_in=2, d_out=2, has_bias=False)]
        >>> gradients = WrittenGradients(layers, n_tests=1)
        >>> with recording(layers) as tape:
        ...     gradients.add(tape, module(torch.tensor([[1.0, 3.0]])), Targets(torch.tensor([0])))
        >>> gradients.parts  # δ ⊗ a of each layer, row by row
        [tensor([[-0.5000, -1.5000,  0.5000,  1.5000]])]
    """

    def __init__(self, layers: Sequence[LinearLayer], n_tests: int) -> None:
        self.layers = layers
        self.n_tests = n_tests
        self._parts: dict[int, Tensor] = {}
        self._filled = 0

    def add(self, tape: Tape, scores: Tensor, targets: Targets | None) -> None:
        """Take in the next tests, whose forward the tape has recorded; see `HeldTests.add`."""
        first, n = self._filled, len(scores)

        def write(number: int, inputs: Tensor, deltas: Tensor) -> None:
            a, d = by_example(self.layers[number], inputs, deltas, n)
            if number not in self._parts:
                self._parts[number] = a.new_zeros(self.n_tests, a.shape[2] * d.shape[2])
            rows = self._parts[number][first : first + n].view(n, d.shape[2], a.shape[2])
            example_blocks(a, d, n, out=rows)

        cotangents = train_cotangents(scores, None) if targets is None else target_cotangents(scores, targets)
        tape.gradients(scores, cotangents, write)
        self._filled += n

    @property
    def parts(self) -> list[Tensor]:
        """Every layer's, [tests, d_out · (d_in + bias)]; zeros of a layer that no test depends on."""
        like = next(iter(self._parts.values()))
        return [
            self._parts[number] if number in self._parts else like.new_zeros(self.n_tests, layer.n_parameters)
            for number, layer in enumerate(self.layers)
        ]
