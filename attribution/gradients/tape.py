"""Record of linear layers in a forward and its backward: their inputs and the gradients at their outputs.

The gradient of an example's loss with respect to W is Σ_tokens δ_t ⊗ a_t, a the layer's input and δ the gradient at
its output. The tape hands (a, δ) of one layer after the other to a consumer while the backward runs, so that nothing
but one layer's δ stands in memory at a time; parameters need no gradients of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import LinearLayer

Consumer = Callable[[int, Tensor, Tensor], None]
"""(number of the layer, inputs [sequences, tokens, d_in], output gradients [sequences, tokens, d_out]) → None.

A layer that sees no token axis (a head at the answer position) has one token."""


class Tape:
    """Inputs and outputs of some layers in one forward; made by `recording`.

    Args:
        layers: the layers, each of which runs at most once in a forward.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> module = torch.nn.Linear(2, 2, bias=False).requires_grad_(False)
        >>> found = []
        >>> with recording([LinearLayer("score", module, d_in=2, d_out=2, has_bias=False)]) as tape:
        ...     scores = module(torch.tensor([[1.0, 3.0]]))
        ...     tape.gradients(scores, torch.tensor([[1.0, -1.0]]), lambda *seen: found.append(seen))
        >>> found  # (number of the layer, its inputs, the gradients at its outputs)
        [(0, tensor([[[1., 3.]]]), tensor([[[ 1., -1.]]]))]
    """

    def __init__(self, layers: Sequence[LinearLayer]) -> None:
        self.layers = layers
        self.inputs: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._leaves: list[Tensor] = []
        self._versions: dict[int, tuple[int, int]] = {}

    def gradients(self, scores: Tensor, cotangents: Tensor, consume: Consumer, more: bool = False) -> None:
        """Run the backward of ⟨cotangents, scores⟩ and hand over what each layer sees, the last layer first.

        Args:
            scores: what the forward gave, [examples, classes].
            cotangents: gradient at the scores, of the same shape; an example's own loss, not a mean over the batch.
            consume: called once for each layer that the scores depend on.
            more: whether another backward of the same forward follows.
        """
        handles = []
        for number, output in self._outputs.items():

            def hand_over(delta: Tensor, number: int = number) -> None:
                # under mixed precision sums over tokens and examples stay in the type that the consumer chooses
                with torch.no_grad(), torch.autocast(delta.device.type, enabled=False):
                    layer = self.layers[number]
                    inputs = _with_tokens(self.inputs[number], layer.inputs_of)
                    consume(number, inputs, _with_tokens(delta, layer.outputs_of))

            handles.append(output.register_hook(hand_over))
        try:
            torch.autograd.grad(scores, self._leaves, cotangents.to(scores.dtype), retain_graph=more, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, number: int, given: Tensor, output: Tensor) -> Tensor:
        if number in self.inputs:
            raise UserError(
                f"the layer {self.layers[number].name} runs more than once in a forward; expected layers that run "
                "once: leave it out of the method's params, or of a task's modules."
            )
        if not output.requires_grad:  # nothing recorded below: the backward ends here
            output = output.detach().requires_grad_(True)
            self._leaves.append(output)
        self.inputs[number] = given.detach()
        self._outputs[number] = output
        self._versions[number] = _version(given), _version(output)
        return output

    def overwritten(self) -> list[str]:
        """Layers whose inputs or outputs were overwritten after they were recorded. What an addition in place does to
        an output leaves its gradient as it is; other changes do not."""
        return [
            self.layers[number].name
            for number, versions in self._versions.items()
            if versions != (_version(self.inputs[number]), _version(self._outputs[number]))
        ]


@contextmanager
def recording(layers: Sequence[LinearLayer]) -> Iterator[Tape]:
    """Record one forward over frozen parameters.

    Gradients are enabled inside; the forward's result and the tape are used inside too.
    """
    tape = Tape(layers)

    def hook_of(number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda _, arguments, output: tape._record(number, arguments[0], output)

    handles = [layer.module.register_forward_hook(hook_of(number)) for number, layer in enumerate(layers)]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield tape
    finally:
        for handle in handles:
            handle.remove()


def _version(values: Tensor) -> int:
    """How often a tensor was overwritten, as far as that is counted."""
    return 0 if values.is_inference() else values._version


def _with_tokens(values: Tensor, arranged: Callable[[Tensor], Tensor] | None) -> Tensor:
    """[sequences, tokens, d] as the layer arranges it, else from [sequences, d] or [sequences, tokens, d]; further axes
    are tokens."""
    if arranged is not None:
        values = arranged(values)
    return values[:, None] if values.dim() == 2 else values.flatten(1, -2)
