"""Sums over train examples that (EK-)FAC is made of: covariances first, then squares in their eigenbasis.

Sums are tensors by name, so that those of batches, files and processes simply add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import UNPROJECTED, project_sides
from twinlens.attribution.gradients.fisher import (
    Fisher,
    LayerBasis,
    covariances,
    eigenbasis,
    fisher_cotangents,
    output_covariance,
    squares,
    token_mask,
)
from twinlens.attribution.gradients.tape import Tape
from twinlens.attribution.protocols import LinearLayer


class FactorSums:
    """Running sums of one pass over the train split.

    Args:
        layers: the layers.
        fisher: labels in the Fisher matrix.
        bases: of the layers, for squares of gradients in them; None: covariances.

    Attributes:
        sums: by layer and part, float64.

    Example:
        >>> import torch
        >>> from twinlens.attribution.gradients.factor_sums import FactorSums, kfac_bases
        >>> from twinlens.attribution.gradients.tape import recording
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> module = torch.nn.Linear(3, 2, bias=False).requires_grad_(False)
        >>> layers = [LinearLayer("score", module, d_in=3, d_out=2, has_bias=False)]
        >>> sums = FactorSums(layers, "expectation")
        >>> with recording(layers) as tape:
        ...     scores = module(torch.randn(4, 3))
        ...     sums.add(tape, scores, labels=torch.zeros(4), attention_mask=torch.ones(4, 1))
        >>> sorted(sums.sums)
        ['score/inputs', 'score/outputs', 'score/tokens']
        >>> kfac_bases(layers, sums.sums, n_train=4)[0].eigenvalues.shape  # [d_out, d_in]
        torch.Size([2, 3])
    """

    def __init__(
        self, layers: Sequence[LinearLayer], fisher: Fisher, bases: Sequence[LayerBasis] | None = None
    ) -> None:
        self.layers = layers
        self.fisher: Fisher = fisher
        self.bases = bases
        self.sums: dict[str, Tensor] = {}
        self._there: dict[int, LayerBasis] = {}  # the bases on the device and in the type of the products

    def add(self, tape: Tape, scores: Tensor, labels: Tensor | None, attention_mask: Tensor) -> None:
        """Take in a batch whose forward the tape has recorded.

        Args:
            scores: logits, [examples, classes], or the losses of whole texts, [examples].
            labels: [examples]; read where the Fisher matrix is empirical; None: `scores` are losses.
            attention_mask: of the batch.

        Raises:
            UserError: an expectation over a vocabulary, or over whole texts.
        """
        rows = fisher_cotangents(scores, labels, self.fisher)
        for row, cotangents in enumerate(rows):

            def consume(number: int, inputs: Tensor, deltas: Tensor, first: bool = row == 0) -> None:
                a, d = project_sides(inputs, deltas, self.layers[number].has_bias, UNPROJECTED)
                if self.bases is None:
                    self._cover(number, a, d, token_mask(a, attention_mask, self.layers[number].routed), first)
                else:
                    self._sum("eigenvalues", number, squares(self._basis(number, a), a, d, len(scores)))

            tape.gradients(scores, cotangents, consume, more=row + 1 < len(rows))

    def _cover(self, number: int, a: Tensor, d: Tensor, valid: Tensor | None, first: bool) -> None:
        if not first:  # the inputs are those of the forward, whatever the cotangents
            self._sum("outputs", number, output_covariance(d))
            return
        count = torch.tensor(a.shape[:2].numel(), device=a.device) if valid is None else valid.sum()
        for part, value in zip(("inputs", "outputs"), covariances(a, d, valid), strict=True):
            self._sum(part, number, value)
        self._sum("tokens", number, count.double())

    def _sum(self, part: str, number: int, value: Tensor) -> None:
        key = f"{self.layers[number].name}/{part}"
        self.sums[key] = self.sums[key].add_(value) if key in self.sums else value.double()

    def _basis(self, number: int, like: Tensor) -> LayerBasis:
        assert self.bases is not None
        if number not in self._there:
            basis = self.bases[number]
            values = basis.eigenvalues.to(like.device)
            self._there[number] = LayerBasis(basis.outputs.to(like), basis.inputs.to(like), values)
        return self._there[number]


def kfac_bases(
    layers: Sequence[LinearLayer], sums: dict[str, Tensor], n_train: int, dtype: torch.dtype = torch.float64
) -> list[LayerBasis]:
    """K-FAC's blocks from covariances, in the order of the layers.

    Args:
        layers: the layers.
        sums: of `FactorSums`; emptied layer by layer, so that covariances and eigenvectors never stand side by side.
        n_train: number of train examples.
        dtype: of the eigenvectors that are kept; decomposed is in float64.

    Raises:
        UserError: a layer that the scores do not depend on.
    """
    bases = []
    for layer in layers:
        if f"{layer.name}/outputs" not in sums:
            raise UserError(
                f"the layer {layer.name} takes no part in the model's scores, so that it has no curvature; expected "
                "layers that do: leave it out of the method's params."
            )
        inputs, outputs, tokens = (sums.pop(f"{layer.name}/{part}") for part in ("inputs", "outputs", "tokens"))
        basis = eigenbasis(inputs / tokens.clamp(min=1), outputs / n_train)  # an expert may see none
        bases.append(LayerBasis(basis.outputs.to(dtype), basis.inputs.to(dtype), basis.eigenvalues))
    return bases


def ekfac_bases(
    layers: Sequence[LinearLayer], bases: Sequence[LayerBasis], sums: Mapping[str, Tensor], n_train: int
) -> list[LayerBasis]:
    """The same bases with EK-FAC's eigenvalues.

    Args:
        layers: the layers.
        bases: from `kfac_bases`, in the order of the layers.
        sums: squares of gradients in these bases, from `FactorSums` with `bases`.
        n_train: number of train examples.
    """
    return [
        LayerBasis(basis.outputs, basis.inputs, sums[f"{layer.name}/eigenvalues"] / n_train)
        for layer, basis in zip(layers, bases, strict=True)
    ]
