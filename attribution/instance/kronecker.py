"""Influence by (EK-)FAC: the Fisher matrix of each linear layer in the basis of its Kronecker factors.

K-FAC (Martens and Grosse 2015) takes the block of a layer as A ⊗ S, A the mean of a aᵀ over its inputs and S that of
δ δᵀ over its output gradients; for several sequences per example, A is a mean over all sequences and S a sum over those
of an example (K-FAC-expand, Eschenhagen et al. 2023). EK-FAC (George et al. 2018) keeps the eigenvectors of A and S and
replaces the products of their eigenvalues by the mean squares of the gradients in that basis. Layers do not interact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.cotangents import softmax_root
from twinlens.attribution.gradients.fisher import Fisher, LayerBasis
from twinlens.attribution.instance.curvature import blocks
from twinlens.attribution.instance.factors import LayerFactors
from twinlens.attribution.instance.head_gradients import DifferentiableHead, head_factors, head_logits, loss_cotangents
from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.solve import DenseScorer, SolverPlan, dense_block_bytes


def kronecker_plan(head: DifferentiableHead) -> SolverPlan:
    """Per layer factors, eigenvectors and eigenvalues, and the workspace of the largest decomposition."""
    held = kronecker_bytes_held(head)
    widest = max(max(layer.in_features + 1, layer.out_features) for layer in head.layers)
    return SolverPlan(sum(10.0 * max(layer.weight.shape) ** 3 for layer in head.layers), 2 * held + 24 * widest**2)


def kronecker_bytes_held(head: DifferentiableHead) -> int:
    """Eigenvectors and eigenvalues of all layers."""
    total = 0
    for layer, bias in zip(head.layers, head.has_bias, strict=True):
        d_in, d_out = layer.in_features + bias, layer.out_features
        total += d_in**2 + d_out**2 + d_in * d_out
    return 8 * total


def kronecker_block_bytes(head: DifferentiableHead) -> tuple[int, int]:
    """Per train row: its dense gradient and the factors. Per test: beside these two rotations and the solution."""
    per_row = dense_block_bytes(head)
    return per_row, per_row + 4 * head.n_parameters * 8


def kronecker_row_bytes(head: DifferentiableHead) -> int:
    """Working memory per example of `layer_bases`: gradients of all rows in the eigenbasis, and their factors."""
    rows = head.n_classes - 1
    written = 2 * rows * head.n_parameters if head.sequences > 1 else 0
    return 8 * (written + 4 * head.n_classes * head.factor_numbers)


def layer_bases(
    head: DifferentiableHead, train: HeadInputs, corrected: bool, fisher: Fisher, memory_budget: int
) -> list[LayerBasis]:
    """The Fisher blocks of all layers.

    Args:
        head: the head.
        train: the train split.
        corrected: EK-FAC, else K-FAC.
        fisher: labels in δ: `expectation` over the model's distribution, exactly, or `empirical`, the train labels.
        memory_budget: bytes of working memory beside the bases.
    """
    per_row = kronecker_row_bytes(head)
    covariances: list[tuple[Tensor, Tensor]] = []
    for start, stop in blocks(len(train), per_row, memory_budget):
        parts = [_covariances(f) for f in _fisher_factors(head, train.rows(start, stop), fisher)]
        if covariances:
            for (inputs, outputs), (more_in, more_out) in zip(covariances, parts, strict=True):
                inputs += more_in
                outputs += more_out
        else:
            covariances = parts
    bases = []
    for inputs, outputs in covariances:
        input_values, input_vectors = torch.linalg.eigh(inputs / (len(train) * head.sequences))
        output_values, output_vectors = torch.linalg.eigh(outputs / len(train))
        products = output_values.clamp_min(0)[:, None] * input_values.clamp_min(0)
        bases.append(LayerBasis(output_vectors, input_vectors, products))
    if corrected:
        for basis in bases:
            basis.eigenvalues.zero_()
        for start, stop in blocks(len(train), per_row, memory_budget):
            for basis, f in zip(bases, _fisher_factors(head, train.rows(start, stop), fisher), strict=True):
                basis.eigenvalues.add_(_squares(basis, f), alpha=1 / len(train))
    return bases


def _fisher_factors(head: DifferentiableHead, inputs: HeadInputs, fisher: Fisher) -> list[LayerFactors]:
    """Gradients whose outer products sum to the Fisher matrix, not compacted."""
    if fisher == "empirical":
        return head_factors(head, inputs.features, loss_cotangents(head, inputs))
    return head_factors(head, inputs.features, softmax_root(head_logits(head, inputs.features).softmax(-1)))


def _with_bias(f: LayerFactors) -> Tensor:
    """The layer's inputs with a 1 appended where the bias is differentiated, [examples, sequences, …]."""
    return torch.cat([f.inputs, f.inputs.new_ones(*f.inputs.shape[:2], 1)], -1) if f.has_bias else f.inputs


def _covariances(f: LayerFactors) -> tuple[Tensor, Tensor]:
    """Σ a aᵀ and Σ δ δᵀ."""
    a, delta = _with_bias(f).flatten(0, 1), f.deltas.flatten(0, 2)
    return a.T @ a, delta.T @ delta


def _squares(basis: LayerBasis, f: LayerFactors) -> Tensor:
    """Sum over examples and rows of the squared gradients in the basis, [d_out, d_in …]."""
    a, delta = _with_bias(f) @ basis.inputs, f.deltas @ basis.outputs
    if f.sequences == 1:
        return delta[:, :, 0].square().sum(1).T @ a[:, 0].square()
    return (delta.mT @ a[:, None]).square().sum((0, 1))


class KroneckerScorer(DenseScorer):
    """Solves in the eigenbases of the layers, each with its own damping.

    Args:
        head: the head.
        train: the train split.
        bases: the layers' Fisher blocks.
        damping: λ of a layer relative to the mean eigenvalue of its block.
        description: for `describe`; the absolute dampings are added.
        memory_budget: bytes of working memory.

    Raises:
        UserError: if a layer's block vanishes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.influence import Influence
        >>> train, test = example_head_inputs()
        >>> scorer = Influence(curvature="ekfac").prepare(train, BUDGET)
        >>> scorer.scores(scorer.query(test, torch.arange(2)), 0, 4).sign()  # the signs of exact influence
        tensor([[ 1., -1., -1.,  1.],
                [-1., -1.,  1.,  1.]], dtype=torch.float64)
    """

    def __init__(
        self,
        head: DifferentiableHead,
        train: HeadInputs,
        bases: list[LayerBasis],
        damping: float,
        description: dict[str, object],
        memory_budget: int,
    ) -> None:
        super().__init__(head, train, description, memory_budget)
        self.bytes_per_row, self.bytes_per_query = kronecker_block_bytes(head)
        self.bytes_held = kronecker_bytes_held(head)
        self.bases = bases
        means = [float(basis.eigenvalues.mean()) for basis in bases]
        if not min(means) > 0:
            raise UserError(
                f"The Fisher block of the head's layer {means.index(min(means))} has mean eigenvalue {min(means):.4g}, "
                "so that relative damping cannot make it invertible; expected a positive one: train less "
                "(trainer.max_epochs), use curvature=ggn or gradsim."
            )
        self.dampings = [damping * mean for mean in means]
        self.description["mean_eigenvalue"] = means
        self.description["damping_absolute"] = self.dampings

    def solve(self, gradients: Tensor) -> Tensor:
        """Rotate into the basis, divide by λ_oi + λ, rotate back, layer by layer: [gradients, P] → [gradients, P]."""
        parts = []
        sizes = [basis.eigenvalues.numel() for basis in self.bases]
        layers = zip(self.bases, self.dampings, self.head.has_bias, gradients.split(sizes, 1), strict=True)
        for basis, damping, bias, share in layers:
            d_out, width = basis.eigenvalues.shape
            d_in = width - bias
            matrix = share[:, : d_out * d_in].unflatten(1, (d_out, d_in))
            if bias:
                matrix = torch.cat([matrix, share[:, d_out * d_in :, None]], 2)
            rotated = basis.outputs.T @ (matrix @ basis.inputs) / (basis.eigenvalues + damping)
            solved = basis.outputs @ (rotated @ basis.inputs.T)
            parts.append(solved[:, :, :d_in].flatten(1))
            if bias:
                parts.append(solved[:, :, d_in])
        return torch.cat(parts, 1)
