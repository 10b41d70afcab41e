"""Products of the curvature with vectors, for solvers that never write the P × P matrix down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.instance.curvature import blocks, ggn_root, ggn_trace
from twinlens.attribution.instance.factors import combine, project
from twinlens.attribution.instance.head_gradients import DifferentiableHead
from twinlens.attribution.instance.hessian import hessian_products, hessian_trace
from twinlens.attribution.instance.inputs import HeadInputs


@dataclass(frozen=True)
class CurvatureProducts:
    """The curvature of the mean train loss as a linear map.

    Attributes:
        head: the head.
        train: the train split.
        exact: whether it is the exact Hessian; else the GGN.
        workspace: bytes that a product may take beside the vectors.

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, example_head_inputs
        >>> from twinlens.attribution.instance.curvature import ggn_matrix
        >>> from twinlens.attribution.instance.head_gradients import differentiable_head
        >>> from twinlens.attribution.instance.products import CurvatureProducts
        >>> train, _ = example_head_inputs()
        >>> head = differentiable_head(train.head, "head")
        >>> products = CurvatureProducts(head, train, exact=False, workspace=BUDGET)
        >>> vectors = torch.eye(head.n_parameters, dtype=torch.float64)
        >>> bool((products.apply(vectors) - ggn_matrix(head, train.features, BUDGET)).abs().max() < 1e-9)
        True
    """

    head: DifferentiableHead
    train: HeadInputs
    exact: bool
    workspace: int

    def trace(self) -> float:
        """Sum of the eigenvalues."""
        if self.exact:
            return hessian_trace(self.head, self.train, self.workspace)
        return ggn_trace(self.head, self.train.features, self.workspace)

    def apply(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """H v for each vector.

        Args:
            vectors: [vectors, P].
            rows: train rows over whose mean H is taken; all where None.

        Returns:
            [vectors, P].
        """
        part = self.train if rows is None else self.train.at(rows)
        result = torch.zeros_like(vectors)
        per_row = product_bytes(self.head, len(vectors))
        for start, stop in blocks(len(part), per_row, self.workspace):
            block = part.rows(start, stop)
            if self.exact:
                result += hessian_products(self.head, block, vectors)
            else:
                root = ggn_root(self.head, block.features)
                result += combine(root, project(root, vectors))
        return result.div_(len(part))


def product_bytes(head: DifferentiableHead, vectors: int) -> int:
    """Working memory that one example takes in a product: the GGN's rows or the activations, for each vector."""
    for_each = 3 * head.sequences * max(layer.out_features for layer in head.layers) + 2 * head.n_classes
    if len(head.layers) > 1:
        for_each += 4 * head.widths  # the exact Hessian's tangents of every activation and gradient
    return 8 * (vectors * for_each + head.n_classes * head.factor_numbers)
