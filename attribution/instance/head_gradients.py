"""Per-example gradients of a classification head, in factors.

A multiple-choice example has one sequence per choice; its logits are the head's outputs on all of them, and its
gradient the sum over them. Classification is the case of one sequence.

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

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.options import HeadParameters
from twinlens.attribution.instance.factors import LayerFactors, compact, is_smaller_dense
from twinlens.attribution.instance.inputs import HeadInputs


@dataclass(frozen=True)
class DifferentiableHead:
    """A float64 copy of a head with its linear layers, in the order in which they run.

    Attributes:
        module: the copy; the caller's head is never touched.
        layers: its linear layers.
        has_bias: per layer, whether its bias is differentiated.
        is_linear: whether the logits are the output of the only layer, so that the loss is convex in the parameters.
        sequences: sequences per example: 1, or the number of choices.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        >>> head = differentiable_head(module, "head")
        >>> head.n_classes, head.n_parameters, head.is_linear
        (2, 23, False)
    """

    module: nn.Module
    layers: tuple[nn.Linear, ...]
    has_bias: tuple[bool, ...]
    is_linear: bool
    sequences: int = 1

    @property
    def n_classes(self) -> int:
        """Logits of an example, those of all its sequences."""
        return self.layers[-1].out_features * self.sequences

    @property
    def n_parameters(self) -> int:
        """Number of differentiated parameters P; flat vectors hold, layer by layer, weight row by row, then bias."""
        return sum(
            layer.weight.numel() + bias * layer.out_features
            for layer, bias in zip(self.layers, self.has_bias, strict=True)
        )

    @property
    def widths(self) -> int:
        """Numbers per example that the factors of one gradient hold, Σ_layers (d_in + d_out) for each sequence."""
        return self.sequences * sum(layer.in_features + layer.out_features for layer in self.layers)

    @property
    def factor_numbers(self) -> int:
        """Numbers per example that stand in memory while loss gradients are taken.

        A linear head's are the float64 features and δ; a deeper one keeps activations and gradients of every layer.
        """
        return self.widths * (1 if len(self.layers) == 1 else 3)

    @property
    def squares_numbers(self) -> int:
        """Numbers per example that stand in memory while lengths of loss gradients are taken: the factors while they
        are made, then beside their squares."""
        return max(self.factor_numbers, 2 * self.widths)

    @property
    def dense_copies(self) -> int:
        """Times a written-out gradient stands in memory: twice where it is put together from several parts."""
        return 1 + (len(self.layers) > 1 or any(self.has_bias))

    def pair_operations(self, rows: int) -> float:
        """Floating-point operations of the inner products between two examples of `rows` gradients each."""
        total = 0.0
        for layer, bias in zip(self.layers, self.has_bias, strict=True):
            d_in, d_out = layer.in_features, layer.out_features
            if is_smaller_dense(self.sequences, d_in, d_out, bias):
                total += 2.0 * rows**2 * d_out * (d_in + bias)
            else:
                total += 2.0 * self.sequences**2 * (d_in + rows**2 * d_out)
        return total


def differentiable_head(head: nn.Module, params: HeadParameters, sequences: int = 1) -> DifferentiableHead:
    """Copy a head to float64 and find its linear layers.

    Args:
        head: maps features [..., hidden] to outputs [..., outputs], each sequence on its own.
        params: `weight` differentiates the weight matrices only, `head` every parameter.
        sequences: sequences per example; the example's logits are the outputs of all.

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
        has_bias=tuple(layer.bias is not None and params == "head" for layer in layers),
        is_linear=len(layers) == 1 and logits is order.outputs[0],
        sequences=sequences,
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
        features: [examples, hidden] or [examples, sequences, hidden], float64.
        offsets: added to the layers' outputs, each [examples · sequences, d_out].

    Returns:
        logits [examples, classes]; each layer's input [examples · sequences, d_in]; each layer's output
        [examples · sequences, d_out].
    """
    names = {id(module): name for name, module in head.module.named_modules()}
    recorder = _Recorder(head.module, [names[id(layer)] for layer in head.layers])
    outputs = recorder.run(features.reshape(-1, features.shape[-1]), offsets)
    return outputs.reshape(len(features), -1), recorder.inputs, recorder.outputs


def head_logits(head: DifferentiableHead, features: Tensor) -> Tensor:
    """Logits in float64, [examples, classes], of features as for `head_factors`."""
    with torch.inference_mode(False), torch.no_grad():
        flat = features.to(torch.float64).reshape(-1, features.shape[-1])
        return head.module(flat).reshape(len(features), -1)


def head_factors(head: DifferentiableHead, features: Tensor, grad_logits: Tensor) -> list[LayerFactors]:
    """Factored gradients of ⟨grad_logits, logits⟩ with respect to the head's parameters, per example.

    Args:
        head: the head.
        features: [examples, hidden] or [examples, sequences, hidden].
        grad_logits: cotangents of the logits, [examples, classes], or [examples, rows, classes] for several gradients
            per example.

    Returns:
        One `LayerFactors` per layer, float64, not compacted.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.factors import dense
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head, head_factors
        >>> head = differentiable_head(torch.nn.Linear(2, 2), "weight")
        >>> factors = head_factors(head, torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]]))
        >>> dense(factors)  # of logit 0 − logit 1, with respect to the weight
        tensor([[ 1.,  2., -1., -2.]], dtype=torch.float64)
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
    per_example = (-1, head.sequences)
    return [
        LayerFactors(
            a.detach().unflatten(0, per_example),
            torch.stack([grad[layer].unflatten(0, per_example) for grad in grads], 1),
            bias,
        )
        for layer, (a, bias) in enumerate(zip(inputs, head.has_bias, strict=True))
    ]


def loss_factors(head: DifferentiableHead, inputs: HeadInputs) -> list[LayerFactors]:
    """Factored gradients of each example's cross-entropy, compacted."""
    return compact(head_factors(head, inputs.features, loss_cotangents(head, inputs)))


def loss_cotangents(head: DifferentiableHead, inputs: HeadInputs) -> Tensor:
    """Gradient of each example's loss at its logits, [examples, classes]."""
    return logit_cotangents(head_logits(head, inputs.features), inputs.labels, inputs.fold, inputs.against)


def check_inputs(inputs: HeadInputs, head: DifferentiableHead, index: Tensor, what: str) -> None:
    """Refuse what no gradient can be taken of.

    Args:
        inputs: the examples.
        head: the head.
        index: [examples], row of each in its split.
        what: name of the split for the message; `train` cannot be folded.

    Raises:
        UserError: for NaN or infinite features, for labels outside the (folded) classes, naming the rows, and for
            folded train labels, whose loss the model was not trained with.
    """
    require_finite(inputs.features, f"The head input of {what} examples", index)
    if inputs.sequences != head.sequences:
        raise UserError(
            f"{what} examples have {inputs.sequences} sequence(s) each, but the train split has {head.sequences}; "
            "expected the same number in both: explain data with as many choices as the model was trained on."
        )
    check_labels(inputs.labels, inputs.fold, head.n_classes, index, what)


def check_labels(labels: Tensor, fold: Tensor | None, n_classes: int, index: Tensor, what: str) -> None:
    """Refuse labels that no loss is of.

    Args:
        labels: [examples]; folded classes where there is a `fold`.
        fold: class → folded class.
        n_classes: of the model.
        index: [examples], row of each in its split.
        what: name of the split for the message; `train` cannot be folded.

    Raises:
        UserError: labels outside the (folded) classes, naming the rows, or folded train labels.
    """
    n_labels = n_classes
    if fold is not None:
        if what == "train":
            raise UserError(
                "The train split's labels are folded, so that its loss is not the one the model was trained with; "
                "expected folded labels in explained splits only: give data.train a file with the model's own classes."
            )
        n_labels = int(fold.max()) + 1
    wrong = (labels < 0) | (labels >= n_labels)
    if bool(wrong.any()):
        rows = index[wrong.to(index.device)].tolist()
        raise UserError(
            f"{len(rows)} {what} example(s) have no label within 0 … {n_labels - 1} (index "
            f"{', '.join(map(str, rows[:10]))}{' …' if len(rows) > 10 else ''}); expected one for the loss gradient: "
            "set the method's labels=predicted, or leave these rows out."
        )
