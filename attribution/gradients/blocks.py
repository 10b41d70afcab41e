"""Per-example gradients of one linear layer, full or projected, from what the tape hands over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.protocols import LinearLayer


@dataclass(frozen=True)
class TwoSided:
    """A projection of a layer's gradient G [d_out, d_in + bias] to Rᵀ G L, [k_out, k_in].

    Attributes:
        inputs: L, [d_in + bias, k_in]; None: the identity. The last row meets the 1 that stands for the bias.
        outputs: R, [d_out, k_out]; None: the identity.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.blocks import TwoSided, example_blocks, project_sides
        >>> projection = TwoSided(inputs=torch.eye(4)[:, :2], outputs=None)  # keep the first two inputs
        >>> a, d = project_sides(torch.randn(1, 5, 4), torch.randn(1, 5, 3), bias=False, projection=projection)
        >>> example_blocks(a, d, n_examples=1).shape  # [examples, k_out, k_in]
        torch.Size([1, 3, 2])
    """

    inputs: Tensor | None
    outputs: Tensor | None

    def to(self, device: torch.device) -> TwoSided:
        """The same on another device."""
        return TwoSided(*(None if side is None else side.to(device) for side in (self.inputs, self.outputs)))


UNPROJECTED = TwoSided(None, None)


def project_sides(inputs: Tensor, deltas: Tensor, bias: bool, projection: TwoSided) -> tuple[Tensor, Tensor]:
    """Inputs with a 1 for the bias, and deltas, each projected; float32 at least.

    Args:
        inputs: [sequences, tokens, d_in].
        deltas: [sequences, tokens, d_out].
        bias: whether the gradient with respect to the bias belongs to the layer's.
        projection: applied before any outer product, so that no gradient of full size exists.

    Returns:
        [sequences, tokens, k_in], [sequences, tokens, k_out].
    """
    dtype = torch.promote_types(deltas.dtype, torch.float32)
    inputs, deltas = inputs.to(dtype), deltas.to(dtype)
    if projection.inputs is not None:
        weights = projection.inputs.to(dtype)
        inputs = inputs @ weights[:-1] + weights[-1] if bias else inputs @ weights
    elif bias:
        inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:-1], 1)], -1)
    if projection.outputs is not None:
        deltas = deltas @ projection.outputs.to(dtype)
    return inputs, deltas


def by_example(layer: LinearLayer, inputs: Tensor, deltas: Tensor, n_examples: int) -> tuple[Tensor, Tensor]:
    """What the tape hands over of a layer by example: [examples, tokens, d_in + bias], [examples, tokens, d_out]."""
    a, d = project_sides(inputs, deltas, layer.has_bias, UNPROJECTED)
    return a.reshape(n_examples, -1, a.shape[-1]), d.reshape(n_examples, -1, d.shape[-1])


def example_blocks(inputs: Tensor, deltas: Tensor, n_examples: int, out: Tensor | None = None) -> Tensor:
    """Each example's gradient Σ_tokens δ_t ⊗ a_t.

    Args:
        inputs: [sequences, tokens, k_in], the sequences of one example next to each other.
        deltas: [sequences, tokens, k_out].
        n_examples: sequences are shared evenly among them.
        out: memory for the result, of its shape.

    Returns:
        [examples, k_out, k_in].
    """
    inputs = inputs.reshape(n_examples, -1, inputs.shape[-1])
    return torch.bmm(deltas.reshape(n_examples, -1, deltas.shape[-1]).mT, inputs, out=out)


def some_blocks(a: Tensor, d: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
    """The gradients of some of the examples; sides as `by_example` gives them, result as of `example_blocks`."""
    return example_blocks(a[start:stop], d[start:stop], stop - start, out)


def token_blocks(inputs: Tensor, deltas: Tensor) -> Tensor:
    """The share δ_t ⊗ a_t of each token; shares add up to the example's gradient.

    Args:
        inputs: a, [sequences, tokens, k_in].
        deltas: δ, [sequences, tokens, k_out].

    Returns:
        [sequences, tokens, k_out, k_in].
    """
    return deltas[..., :, None] * inputs[..., None, :]
