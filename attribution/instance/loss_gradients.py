"""The head gradients of a split's losses, in factors, by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twinlens.attribution.instance.factors import LayerFactors, squared_norms
from twinlens.attribution.instance.head_gradients import DifferentiableHead, loss_cotangents, loss_factors
from twinlens.attribution.instance.inputs import HeadInputs

_EXAMPLES_AT_ONCE = 1024
"""Examples that are differentiated at a time: larger blocks fall out of the caches."""


@dataclass(frozen=True)
class LossGradients:
    """Gradients of each example's loss, taken when they are asked for; see `take`.

    A linear head's gradient is its input times p − onehot(label): these few numbers are kept, so that asking again
    costs no forward.

    Attributes:
        head: the head.
        inputs: of the split.
        squares: squared length of each gradient, [examples], float64.
        cotangents: of a linear head on one sequence, [examples, classes], float64; else None.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> from twinlens.attribution.instance.loss_gradients import LossGradients
        >>> train, _ = example_head_inputs()
        >>> gradients = LossGradients.take(differentiable_head(train.head, "head"), train, BUDGET)
        >>> gradients.squares.round(decimals=2)
        tensor([0.1100, 3.1000, 0.1100, 0.0600], dtype=torch.float64)
        >>> gradients.at(slice(0, 2), torch.float64)[0].deltas[:, 0, 0].round(decimals=2)  # p − onehot(label)
        tensor([[-0.1200,  0.1200],
                [ 0.8800, -0.8800]], dtype=torch.float64)
    """

    head: DifferentiableHead
    inputs: HeadInputs
    squares: Tensor
    cotangents: Tensor | None

    @staticmethod
    def take(head: DifferentiableHead, inputs: HeadInputs, memory_budget: int) -> LossGradients:
        """Differentiate every example once; `memory_budget` in bytes bounds what stands side by side."""
        size = max(1, min(_EXAMPLES_AT_ONCE, memory_budget // (8 * head.squares_numbers)))
        is_linear = head.is_linear and head.sequences == 1
        squares, cotangents = [], []
        for start in range(0, len(inputs), size):
            part = inputs.rows(start, start + size)
            if is_linear:
                part = replace(part, features=part.features.to(torch.float64))
                cotangents.append(loss_cotangents(head, part))
                shared = torch.linalg.vector_norm(part.features, dim=1).square() + float(head.has_bias[0])
                squares.append(shared * cotangents[-1].square().sum(1))
            else:
                squares.append(squared_norms(loss_factors(head, part)))
        return LossGradients(head, inputs, torch.cat(squares), torch.cat(cotangents) if is_linear else None)

    def at(self, rows: Tensor | slice, dtype: torch.dtype) -> list[LayerFactors]:
        """Gradients of some examples.

        Args:
            rows: their row numbers, [rows], or consecutive ones.
            dtype: of the factors; they are computed in float64.
        """
        part = self.inputs.rows(rows.start, rows.stop) if isinstance(rows, slice) else self.inputs.at(rows)
        if self.cotangents is None:
            return [f.to(dtype) for f in loss_factors(self.head, part)]
        deltas = self.cotangents[rows].to(dtype)
        return [LayerFactors(part.features[:, None].to(dtype), deltas[:, None, None], self.head.has_bias[0])]
