"""Proof on one batch that rows of gradients are what autograd gives for single examples.

A row is Σ δ ⊗ a over what a layer reads and gives for an example. That is the gradient of the example's value where
nothing beside the layer reads its weight, and where no example depends on another one. Both are tried with the first
and the last example of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import by_example
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.protocols import LinearLayer
from twinlens.task_batches import refuse_overwritten

Differentiated = Callable[[], tuple[Tensor, Tensor]]
"""Runs a forward: values [examples, …], and gradients at them [rank, examples, …]."""
Sides = tuple[Tensor, Tensor]
"""What a layer reads, with a 1 for the bias, and the gradients at what it gives: [examples, places, …]."""


def prove_rows(layers: Sequence[LinearLayer], differentiated: Differentiated, what: str) -> int:
    """Refuse a batch whose rows are not the gradients of its examples.

    Args:
        layers: of a module whose parameters are frozen; they are frozen again afterwards.
        differentiated: see `Differentiated`.
        what: name of the values, for messages.

    Returns:
        How many examples the batch has.

    Raises:
        UserError: examples that do not lie along the first axis or depend on each other, a weight that something beside
            its layer reads, or values that are others at every forward.
    """
    n, wrong = _wrong(layers, differentiated, what, ends=True)
    if wrong is None:
        return n
    if _wrong(layers, differentiated, what, ends=False)[1] is None:
        raise _no_example(
            wrong, what, "an example's gradient there has a part in which other examples of the batch are read"
        )
    raise UserError(
        f"the weight of {wrong} is read outside of the layer as well, so that the layer sees a part of its gradient in "
        f"{what} alone; expected layers whose weights nothing else reads: leave {wrong} out of modules, if another "
        "layer or an embedding shares its weight, and take what reads weights (weight decay) out of the loss."
    )


def _wrong(
    layers: Sequence[LinearLayer], differentiated: Differentiated, what: str, ends: bool
) -> tuple[int, str | None]:
    """How many examples there are, and the first layer whose rows are not what autograd gives: of the first and the
    last example, or of the sum of all."""
    sides: dict[int, Sides] = {}
    types: set[torch.dtype] = set()  # under autocast products are of another type than weights and values
    with recording(layers) as tape:
        values, cotangents = differentiated()
        refuse_overwritten(tape.overwritten())
        if not (n := len(values)):
            return 0, None
        picks = [[0], [n - 1]] if ends else [list(range(n))]

        def keep(number: int, inputs: Tensor, deltas: Tensor) -> None:
            layer = layers[number]
            types.update({inputs.dtype, deltas.dtype})
            if len(inputs) % n:
                raise _no_example(layer.name, what, f"the layer reads {len(inputs)} rows for {n} examples")
            a, d = by_example(layer, inputs, deltas, n)
            sides[number] = (a[[0, n - 1]], d[[0, n - 1]]) if ends else (a, d)

        tape.gradients(values, cotangents[0], keep)
    ran = [(layers[number], seen) for number, seen in sides.items()]
    weights = [weight for layer, _ in ran for weight in _weights(layer)]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            again, cotangents = differentiated()
        types.update(each.dtype for each in (values, *weights))
        tolerance = 4 * max(torch.finfo(each).eps for each in types) ** 0.5
        if not torch.allclose(again.detach(), values.detach(), rtol=tolerance, atol=tolerance, equal_nan=True):
            raise UserError(
                f"{what} is another one each time the module runs; expected the same for the same batch: draw no "
                "random numbers (F.dropout needs training=module.training), and keep nothing from batch to batch."
            )
        weighted = (again * cotangents[0].to(again.dtype)).reshape(n, -1).sum(1)
        for place, picked in enumerate(picks):
            value = weighted[picked].sum()
            found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True) if weights else ()
            parts = iter(found)
            for layer, (a, d) in ran:
                own = [next(parts) for _ in _weights(layer)]
                chosen = slice(place, place + 1) if ends else slice(None)
                if not _same(layer, own, a[chosen].flatten(0, 1), d[chosen].flatten(0, 1), tolerance):
                    return n, layer.name
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    return n, None


def _same(layer: LinearLayer, own: Sequence[Tensor | None], a: Tensor, d: Tensor, tolerance: float) -> bool:
    """Whether Σ δ ⊗ a is what autograd gives, to the rounding of a sum; NaN is refused where rows are."""
    found = [torch.zeros_like(w) if part is None else part for part, w in zip(own, _weights(layer), strict=True)]
    matrix = found[0].T if hasattr(layer.module, "nf") else found[0].flatten(1)  # GPT-2's Conv1D is the other way
    whole = torch.cat([matrix, found[1][:, None]], 1) if layer.has_bias else matrix
    size = torch.maximum(whole.abs().max(), (d.abs().T @ a.abs()).max())
    return not bool((d.T @ a - whole).abs().max() > tolerance * size)


def _weights(layer: LinearLayer) -> list[Tensor]:
    module: Any = layer.module
    return [module.weight, *([module.bias] if layer.has_bias else [])]


def _no_example(layer: str, what: str, seen: str) -> UserError:
    return UserError(
        f"{what} gives the layer {layer} no example of its own in each row ({seen}); expected examples along the first "
        "axis of what every layer reads, each with a value that depends on it alone: use batch_first=True, and neither "
        "a mean over the batch nor a comparison within it."
    )
