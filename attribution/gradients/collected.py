"""Rows of gradients of a split that is read batch by batch and held in memory, with the sums that (EK-)FAC needs."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.tape import Tape

EVERY_TOKEN = torch.ones(0)
"""An attention mask that masks nothing."""


class CollectedRows:
    """Gradients of one split, example by example.

    Args:
        plan: layers, and what is kept of their gradients.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.blocks import UNPROJECTED
        >>> from twinlens.attribution.gradients.collected import CollectedRows
        >>> from twinlens.attribution.gradients.row_pass import RowPass
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> module = torch.nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> layers = [LinearLayer("fit", module, d_in=2, d_out=1, has_bias=False)]
        >>> rows = CollectedRows(RowPass(layers, [UNPROJECTED], shapes=[(1, 2)]))
        >>> for batch in (torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]])):
        ...     with recording(layers) as tape:
        ...         outputs = module(batch)
        ...         rows.add(tape, outputs, torch.ones(1, *outputs.shape))
        >>> rows.rows().groups[0]  # the gradient of each output is its input
        tensor([[1., 2.],
                [0., 3.]])
    """

    def __init__(self, plan: RowPass) -> None:
        self.plan = plan
        self._rows: list[list[Tensor]] = []
        self._sums: list[tuple[Tensor, Tensor, int]] = []
        self._rank = 1
        self._examples = 0

    def add(self, tape: Tape, values: Tensor, cotangents: Tensor) -> None:
        """Take in the next batch, whose forward the tape has recorded.

        Args:
            values: what is differentiated, [examples, …].
            cotangents: gradients at the values, a backward and a row of each example for each, [rank, examples, …].
        """
        found, sums = self.plan.of_batch(tape, values, cotangents, EVERY_TOKEN)
        self._rows.append([part.reshape(len(values) * len(cotangents), -1).cpu() for part in found])
        sums = [(a.cpu(), d.cpu(), n) for a, d, n in sums]
        before = self._sums or [(torch.zeros_like(a), torch.zeros_like(d), 0) for a, d, _ in sums]
        self._sums = [(a + b, c + d, n + m) for (a, c, n), (b, d, m) in zip(before, sums, strict=True)]
        self._rank = len(cotangents)
        self._examples += len(values)

    def covariances(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """A and S of each layer, see `GradientRows.covariances`.

        Raises:
            UserError: nothing was taken in, or a layer that the values do not depend on.
        """
        if not self._sums:
            raise UserError("there is no example to differentiate; expected at least one batch: pass more rows.")
        unread = [layer.name for layer, (*_, n) in zip(self.plan.layers, self._sums, strict=True) if not n]
        if unread:
            raise UserError(
                f"the layer {unread[0]} does not run, or takes no part in what is differentiated, so that no gradient "
                "of it is seen; expected layers that do: name the others in modules."
            )
        return tuple((a / n, d / self._examples) for a, d, n in self._sums)

    def rows(self) -> GradientRows:
        """All of them.

        Raises:
            UserError: see `covariances`.
        """
        covariances = self.covariances()
        groups = tuple(torch.cat(parts) for parts in zip(*self._rows, strict=True))
        return GradientRows(self.plan.layout, groups, self._rank, covariances)
