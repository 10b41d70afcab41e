"""Per-example gradients of a classification head, kept as factors.

The gradient of an example's loss with respect to the weight of a linear layer is the outer product of δ, the gradient
at the layer's output, and a, the layer's input; with respect to the bias it is δ. Inner products of gradients are
therefore Σ_layers (a_i·a_j [+ 1 with a bias]) (δ_i·δ_j): two small matrix products, never a per-example gradient.

All is computed in float64, whatever the dtype of the features and of the head: the head is small, and influence
functions solve ill-conditioned systems.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.base import HeadInputs, UserError, require_finite
from attribution.instance.protocol import HeadParameters


@dataclass(frozen=True)
class LayerFactors:
    """One linear layer's share of a set of gradients; each example has `rows` gradients with the same input.

    Attributes:
        inputs: input of the layer, [examples, d_in].
        deltas: gradients at the layer's output, [examples, rows, d_out]; rows = 1 for loss gradients.
        has_bias: whether the gradient with respect to the bias, which is δ itself, belongs to the set.
    """

    inputs: Tensor
    deltas: Tensor
    has_bias: bool

    def examples(self, start: int, stop: int) -> LayerFactors:
        """A contiguous part of the examples."""
        return LayerFactors(self.inputs[start:stop], self.deltas[start:stop], self.has_bias)

    def to(self, dtype: torch.dtype) -> LayerFactors:
        """The same factors in another floating-point type."""
        return LayerFactors(self.inputs.to(dtype), self.deltas.to(dtype), self.has_bias)


@dataclass(frozen=True)
class DifferentiableHead:
    """A float64 copy of a head with its linear layers, in the order in which they run.

    Attributes:
        module: the copy; the caller's head is never touched.
        layers: its linear layers.
        has_bias: per layer, whether its bias is differentiated.
        is_linear: whether the logits are the output of the only layer, so that the loss is convex in the parameters.
    """

    module: nn.Module
    layers: tuple[nn.Linear, ...]
    has_bias: tuple[bool, ...]
    is_linear: bool

    @property
    def n_classes(self) -> int:
        """Width of the logits."""
        return self.layers[-1].out_features

    @property
    def n_parameters(self) -> int:
        """Number of differentiated parameters P; flat vectors hold, layer by layer, weight row by row, then bias."""
        return sum(
            layer.weight.numel() + bias * layer.out_features
            for layer, bias in zip(self.layers, self.has_bias, strict=True)
        )

    @property
    def widths(self) -> int:
        """Numbers per example that the factors of one gradient hold, Σ_layers (d_in + d_out)."""
        return sum(layer.in_features + layer.out_features for layer in self.layers)

    @property
    def factor_numbers(self) -> int:
        """Numbers per example that stand in memory while loss gradients are taken.

        A linear head's are the float64 features and δ; a deeper one keeps activations and gradients of every layer.
        """
        return self.widths * (1 if len(self.layers) == 1 else 3)

    @property
    def dense_copies(self) -> int:
        """Times a written-out gradient stands in memory: twice where it is put together from several parts."""
        return 1 + (len(self.layers) > 1 or any(self.has_bias))


def differentiable_head(head: nn.Module, params: HeadParameters) -> DifferentiableHead:
    """Copy a head to float64 and find its linear layers.

    Args:
        head: maps features [examples, hidden] to logits [examples, classes], each example on its own.
        params: `weight` differentiates the weight matrices only, `all` every parameter.

    Raises:
        UserError: if the head has parameters outside `nn.Linear`, a layer that runs other than once, or active dropout.
    """
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0 for m in head.modules()):
        raise UserError(
            "The head is in train mode with dropout, so that its gradients would be random; expected a deterministic "
            "head: call model.eval() before attribution."
        )
    linear = [(name, module) for name, module in head.named_modules() if isinstance(module, nn.Linear)]
    known = {id(parameter) for _, module in linear for parameter in (module.weight, module.bias)}
    foreign = [name for name, parameter in head.named_parameters() if id(parameter) not in known]
    if foreign or not linear:
        raise UserError(
            f"The head has {'parameters outside nn.Linear layers: ' + ', '.join(foreign) if foreign else 'no layer'}; "
            "expected nn.Linear layers with element-wise functions between them: use model.head=linear or "
            "model.head=mlp."
        )
    with torch.inference_mode(False), torch.no_grad():
        module = copy.deepcopy(head).double().eval().requires_grad_(False)
        order = _Recorder(module, [name for name, _ in linear])
        probe = torch.zeros(1, linear[0][1].in_features, dtype=torch.float64, device=linear[0][1].weight.device)
        logits = order.run(probe)
    miscounted = [name for name, _ in linear if order.names.count(name) != 1]
    if miscounted:
        raise UserError(
            f"The head's layer {miscounted[0]!r} runs {order.names.count(miscounted[0])} times in a forward; expected "
            "each nn.Linear to run exactly once: use a head without shared or idle layers."
        )
    layers = tuple(module.get_submodule(name) for name in order.names)
    return DifferentiableHead(
        module=module,
        layers=layers,  # type: ignore[arg-type]  # get_submodule is typed as Module
        has_bias=tuple(layer.bias is not None and params == "all" for layer in layers),
        is_linear=len(layers) == 1 and logits is order.outputs[0],
    )


class _Recorder:
    """Runs a head and records input and output of each linear layer, optionally after adding an offset to the output.

    Not a context manager on the module itself: the hooks live for one forward, so the copy stays clean.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.module = module
        self.watched = [(name, module.get_submodule(name)) for name in names]
        self.names: list[str] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def run(self, features: Tensor, offsets: Sequence[Tensor] | None = None) -> Tensor:
        """Logits of a forward; `offsets` in the order in which the layers run."""

        def record(name: str) -> Any:
            def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                if offsets is not None:
                    output = output + offsets[len(self.outputs)]
                self.names.append(name)
                self.inputs.append(args[0])
                self.outputs.append(output)
                return output

            return hook

        handles = [module.register_forward_hook(record(name)) for name, module in self.watched]
        try:
            return self.module(features)
        finally:
            for handle in handles:
                handle.remove()


def run_recorded(
    head: DifferentiableHead, features: Tensor, offsets: Sequence[Tensor] | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Forward of a head that keeps what its layers see.

    Args:
        head: the head.
        features: [examples, hidden], float64.
        offsets: added to the layers' outputs, each [examples, d_out].

    Returns:
        logits [examples, classes]; each layer's input [examples, d_in]; each layer's output [examples, d_out].
    """
    names = {id(module): name for name, module in head.module.named_modules()}
    recorder = _Recorder(head.module, [names[id(layer)] for layer in head.layers])
    logits = recorder.run(features, offsets)
    return logits, recorder.inputs, recorder.outputs


def head_logits(head: DifferentiableHead, features: Tensor) -> Tensor:
    """Logits in float64, [examples, classes]."""
    with torch.inference_mode(False), torch.no_grad():
        return head.module(features.to(torch.float64))


def head_factors(head: DifferentiableHead, features: Tensor, grad_logits: Tensor) -> list[LayerFactors]:
    """Factored gradients of ⟨grad_logits, logits⟩ with respect to the head's parameters, per example.

    Args:
        head: the head.
        features: [examples, hidden].
        grad_logits: cotangents of the logits, [examples, classes], or [examples, rows, classes] for several gradients
            per example.

    Returns:
        One `LayerFactors` per layer, float64.
    """
    cotangents = grad_logits[:, None] if grad_logits.dim() == 2 else grad_logits
    # A copy outside inference mode: tensors made inside it cannot take part in a backward pass.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = features.detach().to(torch.float64, copy=True).requires_grad_(True)
        logits, inputs, outputs = run_recorded(head, leaf)
        cotangents = cotangents.to(torch.float64, copy=True)
        grads = [
            torch.autograd.grad(logits, outputs, cotangents[:, row], retain_graph=True)
            for row in range(cotangents.shape[1])
        ]
    return [
        LayerFactors(a.detach(), torch.stack([grad[layer] for grad in grads], 1), bias)
        for layer, (a, bias) in enumerate(zip(inputs, head.has_bias, strict=True))
    ]


def loss_factors(head: DifferentiableHead, inputs: HeadInputs) -> list[LayerFactors]:
    """Factored gradients of each example's cross-entropy, whose cotangent at the logits is p − onehot(label)."""
    cotangents = head_logits(head, inputs.features).softmax(-1)
    labels = inputs.labels.to(cotangents.device)
    cotangents[torch.arange(len(labels), device=labels.device), labels] -= 1
    return head_factors(head, inputs.features, cotangents)


def gram(left: Sequence[LayerFactors], right: Sequence[LayerFactors]) -> Tensor:
    """Inner products of two sets of gradients.

    Returns:
        [left examples · left rows, right examples · right rows], rows of one example next to each other.
    """
    total: Tensor | None = None
    for a, b in zip(left, right, strict=True):
        shape = (len(a.inputs), a.deltas.shape[1], len(b.inputs), b.deltas.shape[1])
        product = (a.deltas.flatten(0, 1) @ b.deltas.flatten(0, 1).T).view(shape)
        shared = a.inputs @ b.inputs.T
        if a.has_bias:
            shared += 1
        product *= shared[:, None, :, None]
        total = product if total is None else total.add_(product)
    assert total is not None
    return total.flatten(0, 1).flatten(1, 2)


def squared_norms(factors: Sequence[LayerFactors]) -> Tensor:
    """Squared length of each gradient, [examples · rows]."""
    parts = [(f.inputs.square().sum(-1, keepdim=True) + float(f.has_bias)) * f.deltas.square().sum(-1) for f in factors]
    return torch.stack(parts).sum(0).flatten()


def dense(factors: Sequence[LayerFactors]) -> Tensor:
    """The gradients written out, [examples · rows, P], in the order of `DifferentiableHead.n_parameters`."""
    parts = []
    for f in factors:
        parts.append((f.deltas[..., None] * f.inputs[:, None, None, :]).flatten(0, 1).flatten(1))
        if f.has_bias:
            parts.append(f.deltas.flatten(0, 1))
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def check_inputs(inputs: HeadInputs, n_classes: int, index: Tensor, what: str) -> None:
    """Refuse what no gradient can be taken of.

    Args:
        inputs: the examples.
        n_classes: width of the logits.
        index: [examples], row of each in its split.
        what: name of the split for the message.

    Raises:
        UserError: for NaN or infinite features and for labels outside 0 … n_classes − 1, naming the rows.
    """
    require_finite(inputs.features, f"The head input of {what} examples", index)
    wrong = (inputs.labels < 0) | (inputs.labels >= n_classes)
    if bool(wrong.any()):
        rows = index[wrong.to(index.device)].tolist()
        raise UserError(
            f"{len(rows)} {what} example(s) have no label within 0 … {n_classes - 1} (index "
            f"{', '.join(map(str, rows[:10]))}{' …' if len(rows) > 10 else ''}); expected one for the loss gradient: "
            "set the method's labels=predicted or explain labelled examples."
        )
