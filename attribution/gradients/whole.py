"""Scores from whole gradients of any linear layers: test gradients are held, train gradients pass by.

The score of train example i for test t is Σ_layers ⟨(H + λ)⁻¹G_t, G_i⟩. The solved test gradients stay in memory, as
many as fit; each train batch runs forward and backward once per block of tests, and inside the backward one layer's
gradients G_i after the other are formed and multiplied with all held ones. No train gradient is kept.

With curvature QΛQᵀ the tests are either rotated back, Q(Λ + λ)⁻¹QᵀG_t, or left in the eigenbasis, (Λ + λ)⁻¹QᵀG_t, where
train gradients have to be rotated too: the first takes operations for every test, the second for every train example.
Self-influence needs the rotated train gradients anyway.

Without curvature a test's gradient can also be held as its factors, and ⟨G_t, G_i⟩ = Σ_uv (a_u · a_v)(δ_u · δ_v) over
tokens u of one and v of the other. For few tokens, above all for a head, which reads one, that is fewer operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from twinlens.attribution.gradients.blocks import by_example, example_blocks, some_blocks
from twinlens.attribution.gradients.cotangents import target_cotangents, train_cotangents
from twinlens.attribution.gradients.fisher import (
    LayerBasis,
    example_chunks,
    in_blocks,
    rotated_sides,
    rotation_operations,
    solution_operations,
    solve_sides,
    weighted_squares,
)
from twinlens.attribution.gradients.tape import Tape
from twinlens.attribution.protocols import LinearLayer
from twinlens.attribution.targets import Targets


@dataclass(frozen=True)
class Inverse:
    """(H + λ)⁻¹ of one layer.

    Attributes:
        basis: H in its eigenbasis; None: no curvature, which leaves 1/λ.
        damping: λ, absolute.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.whole import Inverse
        >>> inputs, deltas = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])  # one example, one token
        >>> Inverse(damping=0.5).of(inputs, deltas)  # δ ⊗ a over λ
        tensor([[[ 6., 12.]]])
    """

    basis: LayerBasis | None = None
    damping: float = 1.0

    def of(self, inputs: Tensor, deltas: Tensor) -> Tensor:
        """Applied to the gradients of examples, [examples, d_out, d_in + bias].

        Args:
            inputs: a of each token, [examples, tokens, d_in + bias].
            deltas: δ of each token, [examples, tokens, d_out].
        """
        if self.basis is None:
            return example_blocks(inputs, deltas, len(inputs)) / self.damping
        return solve_sides(self.basis, self.damping, inputs, deltas)

    def to(self, device: torch.device) -> Inverse:
        """The same on another device."""
        if self.basis is None:
            return self
        parts = (self.basis.outputs, self.basis.inputs, self.basis.eigenvalues)
        return Inverse(LayerBasis(*(part.to(device) for part in parts)), self.damping)


@dataclass
class _Held:
    """One layer's solved test gradients: written out, [tests, d_out · (d_in + bias)], or batches of their factors.

    Those that are written out may be `rotated` into the eigenbasis of the layer's curvature.
    """

    dense: Tensor | None
    factors: list[tuple[Tensor, Tensor]]
    rotated: bool = False


class HeldTests:
    """Solved gradients of a block of tests, and what train batches are multiplied with.

    Args:
        layers: the layers that are differentiated.
        inverses: of each layer, where the model is.
        n_tests: tests of the block.
        n_train: train examples that will be scored.
        own: whether each of them is also scored against itself.
        workspace: bytes that a layer's gradients of some train examples may take.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.gradients.whole import HeldTests, Inverse
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> from twinlens.attribution.targets import Targets
        >>> module = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
        >>> _ = torch.nn.init.zeros_(module.weight)  # so that every probability is ½
        >>> layers = [LinearLayer("score", module, d_in=2, d_out=2, has_bias=False)]
        >>> held = HeldTests(layers, [Inverse()], n_tests=1, n_train=2, own=False, workspace=2**20)
        >>> with recording(layers) as tape:
        ...     held.add(tape, module(torch.tensor([[1.0, 1.0]])), Targets(torch.tensor([0])))
        >>> with recording(layers) as tape:
        ...     train = module(torch.tensor([[1.0, 0.0], [0.5, 0.0]]))
        ...     scores, _ = held.scores(tape, train, labels=torch.tensor([0, 1]))
        >>> scores  # [tests, train]: row 1 has the other label
        tensor([[ 0.5000, -0.2500]], dtype=torch.float64)
    """

    def __init__(
        self,
        layers: Sequence[LinearLayer],
        inverses: Sequence[Inverse],
        n_tests: int,
        n_train: int,
        own: bool,
        workspace: int,
    ) -> None:
        self.layers = layers
        self.inverses = inverses
        self.n_tests = n_tests
        self.n_train = n_train
        self.with_own = own
        self.workspace = workspace
        self.own = torch.zeros(n_tests, dtype=torch.float64)
        self._held: dict[int, _Held] = {}
        self._memory: Tensor | None = None
        self._filled = 0

    def add(self, tape: Tape, scores: Tensor, targets: Targets | None) -> None:
        """Hold the next tests, whose forward the tape has recorded.

        Args:
            scores: logits, [examples, classes]; of completions and functionals of their own what is explained less its
                sign, [examples].
            targets: what is explained of them; None: `scores` say it.
        """
        first, n = self._filled, len(scores)
        own = torch.zeros(n, dtype=torch.float64, device=scores.device)

        def consume(number: int, inputs: Tensor, deltas: Tensor) -> None:
            a, d = by_example(self.layers[number], inputs, deltas, n)
            held = self._layer(number, a, d)
            if held.dense is not None and held.rotated:
                self._hold_rotated(number, a, d, held.dense[first : first + n], own)
                return
            own.add_(self._own(number, a, d))
            if held.dense is None:
                held.factors.append((a, d / self.inverses[number].damping))
                return
            rows = held.dense[first : first + n].view(n, d.shape[2], a.shape[2])
            for start, stop in example_chunks(n, rows[0].numel(), self._numbers(a)):
                rows[start:stop] = self.inverses[number].of(a[start:stop], d[start:stop])

        cotangents = train_cotangents(scores, None) if targets is None else target_cotangents(scores, targets)
        tape.gradients(scores, cotangents, consume)
        self.own[first : first + n] = own.cpu()
        self._filled += n

    def hold(self, number: int, solved: Tensor) -> None:
        """Hold one layer's solved gradients of all tests, [tests, d_out · (d_in + bias)], that were made elsewhere."""
        self._held[number] = _Held(solved, [])

    def scores(self, tape: Tape, scores: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Scores of a train batch, whose forward the tape has recorded.

        Args:
            scores: logits, [examples, classes], or the losses themselves, [examples].
            labels: class whose loss is differentiated, [examples]; None: `scores` are losses.

        Returns:
            [tests, examples], and of each example against itself, [examples], unless that was not asked for; float64,
            where the model is.
        """
        n = len(scores)
        total = torch.zeros(self.n_tests, n, dtype=torch.float64, device=scores.device)
        itself = torch.zeros(n, dtype=torch.float64, device=scores.device)

        def consume(number: int, inputs: Tensor, deltas: Tensor) -> None:
            a, d = by_example(self.layers[number], inputs, deltas, n)
            held = self._held[number]
            if held.dense is None:
                self._add_pairs(total, held.factors, a, d)
                if self.with_own:
                    itself.add_(self._own(number, a, d))
                return
            weights = self._weights(number, a) if self.with_own else None
            for start, stop, block in self._blocks(number, a, d, held.rotated):
                total[:, start:stop] += held.dense @ block.T
                if weights is not None:
                    itself[start:stop] += _weighted(block.square_(), weights)

        tape.gradients(scores, train_cotangents(scores, labels), consume)
        return total, itself if self.with_own else None

    def _layer(self, number: int, a: Tensor, d: Tensor) -> _Held:
        """Where the layer's tests go; the first batch, which has the longest tests, decides on the form."""
        if number not in self._held:
            tokens, d_in, d_out = a.shape[1], a.shape[2], d.shape[2]
            no_basis = self.inverses[number].basis is None
            factored = no_basis and tokens**2 * (d_in + d_out) < d_in * d_out
            rotated = self.n_train * rotation_operations(tokens, d_in, d_out)
            cheaper = rotated < self.n_tests * solution_operations(d_in, d_out)
            dense = None if factored else a.new_zeros(self.n_tests, d_in * d_out)  # some may not reach the layer
            self._held[number] = _Held(dense, [], rotated=not no_basis and (self.with_own or cheaper))
        return self._held[number]

    def _hold_rotated(self, number: int, a: Tensor, d: Tensor, rows: Tensor, own: Tensor) -> None:
        """Write solved gradients in the basis to `rows`, [examples, …], and add G · (H + λ)⁻¹G to `own`, [examples]."""
        weights = self._weights(number, a)
        for start, stop, block in self._blocks(number, a, d, rotated=True):
            torch.mul(block, weights, out=rows[start:stop])
            own[start:stop] += _weighted(block.square_(), weights)

    def _blocks(self, number: int, a: Tensor, d: Tensor, rotated: bool) -> Iterator[tuple[int, int, Tensor]]:
        """Gradients of some examples after the other, written out: (start, stop, [stop − start, …])."""
        basis = self.inverses[number].basis
        if rotated:
            assert basis is not None
            gradients = rotated_sides(basis, a, d, len(a))[2]
        else:
            gradients = partial(some_blocks, a, d)
        # rotated after the sum over tokens, a block stands beside what it is made of
        copies = 3 if rotated and a.shape[1] > min(a.shape[2], d.shape[2]) else 1
        for start, stop, block in in_blocks(gradients, len(a), self._buffer(a, d.shape[2], copies)):
            yield start, stop, block.flatten(1)

    def _buffer(self, like: Tensor, d_out: int, copies: int) -> Tensor:
        """Memory for gradients of some of the examples, [at most examples, d_out, d_in], the same for all layers.

        Anew for each layer of each batch it would have to be handed out and cleared by the system every time.

        Args:
            like: the inputs, [examples, tokens, d_in].
            copies: of such a block that stand side by side in the workspace.
        """
        n_examples, d_in = len(like), like.shape[2]
        size = max(1, min(n_examples, self._numbers(like) // (copies * d_out * d_in)))
        numbers = size * d_out * d_in
        if self._memory is None or self._memory.dtype != like.dtype or len(self._memory) < numbers:
            self._memory = None  # else both would stand side by side
            self._memory = like.new_empty(numbers)
        return self._memory[:numbers].view(size, d_out, d_in)

    def _weights(self, number: int, like: Tensor) -> Tensor:
        """1 / (eigenvalue + λ) of a layer, [d_out · (d_in + bias)]; without curvature [1]."""
        inverse = self.inverses[number]
        if inverse.basis is None:
            return like.new_full((1,), 1 / inverse.damping)
        return (1 / (inverse.basis.eigenvalues + inverse.damping)).flatten().to(like)

    def _own(self, number: int, a: Tensor, d: Tensor) -> Tensor:
        """Σ G · (H + λ)⁻¹G of a layer, [examples], float64."""
        inverse = self.inverses[number]
        if inverse.basis is not None:
            return weighted_squares(inverse.basis, inverse.damping, a, d, len(a))
        if a.shape[1] * (a.shape[2] + d.shape[2]) < a.shape[2] * d.shape[2]:
            return ((a @ a.mT) * (d @ d.mT)).sum((1, 2)).double() / inverse.damping
        parts = [block.square_().sum(1).double() for *_, block in self._blocks(number, a, d, rotated=False)]
        return torch.cat(parts) / inverse.damping

    def _add_pairs(self, total: Tensor, held: Sequence[tuple[Tensor, Tensor]], a: Tensor, d: Tensor) -> None:
        """Add ⟨G_t, G_i⟩ over pairs of tokens."""
        first = 0
        for test_a, test_d in held:
            tests, test_tokens = test_a.shape[:2]
            for start, stop in example_chunks(len(a), tests * test_tokens * a.shape[1], self._numbers(a) // 2):
                pairs = test_a.flatten(0, 1) @ a[start:stop].flatten(0, 1).T
                pairs *= test_d.flatten(0, 1) @ d[start:stop].flatten(0, 1).T
                total[first : first + tests, start:stop] += pairs.view(tests, test_tokens, stop - start, -1).sum((1, 3))
            first += tests

    def _numbers(self, like: Tensor) -> int:
        return self.workspace // like.element_size()


def _weighted(squares: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of squares [examples, …], by a weight each or by the same [1]; [examples], float64."""
    return (squares.sum(1) * weights if len(weights) == 1 else squares @ weights).double()


def cosines(scores: Tensor, tests: Tensor, train: Tensor) -> Tensor:
    """Inner products over both lengths; a vanishing gradient has no direction and a cosine of 0 with any other.

    Args:
        scores: inner products, [tests, examples].
        tests, train: squared lengths, [tests], [examples].
    """
    products = (tests.to(scores)[:, None] * train.to(scores)).sqrt()
    return torch.where(products > 0, scores / products, 0.0)
