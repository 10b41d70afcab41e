"""Instance scores over stored rows of projected gradients: one blocked float32 product per test and train block.

Curvature is solved for once per test, in float64 and in the projected space, so that every curvature costs the same
product as gradient similarity: score = x_t · g_i, x_t = (H + λ)⁻¹ g_t.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.gradients.rows import GradientRows

BYTES_PER_NUMBER = 4 + 3 * 8
"""Working memory of a test's numbers: the float32 query, beside the float64 gradient, its solution and a step of it."""


class Inverse(Protocol):
    """An inverse curvature in the projected space.

    Attributes:
        bytes_held: what it holds.
        description: of the curvature, for `method.yaml`.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projected import Inverse
        >>> from twinlens.attribution.gradients.projected_curvature import IdentityInverse
        >>> inverse: Inverse = IdentityInverse(damping=0.5)
        >>> inverse.apply([torch.ones(1, 3)])  # one group of rows
        [tensor([[2., 2., 2.]])]
    """

    bytes_held: int

    @property
    def description(self) -> dict[str, object]:
        """Damping and mean eigenvalues, for `method.yaml`."""

    def apply(self, groups: list[Tensor]) -> list[Tensor]:
        """(H + λ)⁻¹ g, of each group [rows, width], float64."""


class RowScorer:
    """`InstanceScorer` over stored rows.

    Args:
        train: the train split.
        description: settings, sign and unit; what the rows and the inverse say of themselves is added.
        memory_budget: bytes of working memory.
        inverse: of the curvature; None: scores are inner products of gradients.
        cosine: both sides of unit length; a vanishing gradient is similar to nothing.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.projected import RowScorer
        >>> from twinlens.attribution.gradients.layout import row_layout
        >>> from twinlens.attribution.gradients.rows import GradientRows
        >>> layout = row_layout(["score"], [(1, 2)])
        >>> train = GradientRows(layout, (torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]),))
        >>> scorer = RowScorer(train, {"sign": "positive: helps"}, memory_budget=2**20)
        >>> test = GradientRows(layout, (torch.tensor([[1.0, 1.0]]),))
        >>> scorer.scores(scorer.query(test, torch.tensor([0])), 0, 3)  # inner products of the rows
        tensor([[ 1.,  2., -1.]])
    """

    def __init__(
        self,
        train: GradientRows,
        description: dict[str, object],
        memory_budget: int,
        inverse: Inverse | None = None,
        cosine: bool = False,
    ) -> None:
        self.train = train
        self.inverse = inverse
        self.memory_budget = memory_budget
        self.n_train = len(train)
        self.bytes_per_query = train.layout.n_numbers * BYTES_PER_NUMBER
        self.bytes_per_row = 0  # train rows are mapped, not read into memory of their own
        self.scale = inverse_lengths(train) if cosine else None
        self.bytes_held = (0 if inverse is None else inverse.bytes_held) + 4 * self.n_train * cosine
        self.bytes_held += train.form.working_bytes(train.layout)
        curvature = {} if inverse is None else inverse.description
        numbers = {"dtype": "float32", "n_parameters": train.layout.n_numbers}
        self.description = {**train.options, **description, **curvature, **numbers}

    def describe(self) -> dict[str, object]:
        """Settings, λ, sign and unit; `n_parameters` counts the projected numbers."""
        return dict(self.description)

    def query(self, test: GradientRows, index: Tensor) -> list[Tensor]:
        """Left factors of the tests' scores, one [tests, width] per group, float32; `index` [tests], their rows.

        Raises:
            UserError: rows of other layers than the train split's, or NaN and infinite ones.
        """
        if test.layout != self.train.layout:
            raise UserError(
                "The explained split's gradients have other layers than the train split's; expected the same model and "
                "projection for both: run both with the same method."
            )
        test = test.formed()
        for group in test.groups:
            require_finite(group, "A gradient of the explained split", index)
        if self.inverse is not None:
            solved = self.inverse.apply([group.double() for group in test.groups])
            return [group.to(torch.float32) for group in solved]
        if self.scale is not None:
            scale = inverse_lengths(test)[:, None]
            return [group * scale for group in test.groups]
        return [group.clone() for group in test.groups]

    def scores(self, query: list[Tensor], start: int, stop: int) -> Tensor:
        """[tests, stop − start], float32."""
        total: Tensor | None = None
        part = self.train.rows(start, stop)
        for number, left in enumerate(query):
            total = part.form.products(part.layout, left, part.groups, number, total)
        assert total is not None
        return total if self.scale is None else total.mul_(self.scale[start:stop])

    def shares(self, query: list[Tensor], index: Tensor) -> Tensor:
        """Each layer's part of some scores, which they are the sum of, [tests, entries, layers], float32.

        Args:
            query: of some tests.
            index: train rows of each test, [tests, entries]; −1: none, whose shares are 0.
        """
        layout, rows = self.train.layout, index.clamp(min=0)
        listed = self.train.at(rows.flatten())
        found = torch.zeros(*index.shape, len(layout.names))
        for number, left in enumerate(query):
            products = left[:, None] * listed.group(number).unflatten(0, rows.shape)
            for layer, part in layout.parts(number):
                found[..., layer] = products[..., part].sum(-1)
        if self.scale is not None:
            found *= self.scale[rows][..., None]
        return found * (index >= 0)[..., None]

    def self_influence(self) -> Tensor:
        """Each train row's score against itself, [n_train], float64; for the cosine 1, or 0 for a vanishing row."""
        if self.inverse is None:
            norms = self.train.squared_norms()
            return norms if self.scale is None else (norms > 0).double()
        parts = []
        budget = max(0, self.memory_budget - self.bytes_held)
        for block in self.train.blocks(BYTES_PER_NUMBER, budget):
            gradients = [group.double() for group in block.groups]
            solved = self.inverse.apply(gradients)
            parts.append(sum((g * x).sum(1) for g, x in zip(gradients, solved, strict=True)))
        return torch.cat(parts)  # type: ignore[arg-type]


def inverse_lengths(rows: GradientRows) -> Tensor:
    """1 over each row's length, 0 for a vanishing row, [rows], float32."""
    norms = rows.squared_norms().sqrt()
    return torch.where(norms > 0, 1 / norms, 0.0).to(torch.float32)
