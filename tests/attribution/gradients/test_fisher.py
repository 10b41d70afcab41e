"""(EK-)FAC of any layer equals the matrices written out from one example and one label at a time."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.combinations import half_long
from tests.families import random_batch
from tests.oracles_gradients import fisher_of_layers
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients import fisher as module
from twinlens.attribution.gradients.factor_sums import FactorSums, ekfac_bases, kfac_bases
from twinlens.attribution.gradients.fisher import (
    Fisher,
    LayerBasis,
    absolute_damping,
    covariances,
    eigenbasis,
    fisher_cotangents,
    solve,
    squares,
)
from twinlens.attribution.gradients.tape import recording

LAYERS = "*.0.*.o_proj,*.0.*out_proj,*h.0.attn.c_proj,*.0.attention.dense,*.1.fc1,head"
"""Small enough that their matrices can be written out; OPT flattens the tokens before fc1."""


def bases_of(
    model: Case, batch: dict[str, Tensor], fisher: Fisher, corrected: bool, batch_size: int = 2
) -> list[LayerBasis]:
    """The blocks of all layers from passes in small batches."""
    n = len(batch["labels"])

    def summed(bases: list[LayerBasis] | None = None) -> dict[str, Tensor]:
        factors = FactorSums(model.layers, fisher, bases)
        for start in range(0, n, batch_size):
            part = {name: values[start : start + batch_size] for name, values in batch.items()}
            with recording(model.layers) as tape:
                factors.add(tape, model.scores(part), part["labels"], part["attention_mask"])
        return factors.sums

    bases = kfac_bases(model.layers, summed(), n)
    return ekfac_bases(model.layers, bases, summed(bases), n) if corrected else bases


def written_out(basis: LayerBasis) -> Tensor:
    vectors = torch.kron(basis.outputs, basis.inputs)
    return vectors @ basis.eigenvalues.flatten().diag() @ vectors.T


@pytest.mark.parametrize(("family", "corrected"), half_long(FAMILIES, [True, False]))
def test_blocks_equal_the_matrices_written_out(family: str, corrected: bool) -> None:
    model, batch = case(family, LAYERS), random_batch([5, 3, 7], "left" if corrected else "right")
    assert len(model.layers) == 2 + (family == "opt")
    # norms in float32 round each backward differently, whatever the model's type
    tolerance = 1e-6 if family in ("llama", "qwen2") else 1e-8
    for fisher in get_args(Fisher):
        expected = fisher_of_layers(model.layers, model.scores, batch, fisher == "expectation", corrected)
        for found, wanted in zip(bases_of(model, batch, fisher, corrected), expected, strict=True):
            largest = float(wanted.abs().max())
            torch.testing.assert_close(written_out(found), wanted, rtol=tolerance, atol=tolerance * largest)


def test_covariances_of_float32_factors_do_not_round() -> None:
    """Rounded ones would turn the eigenvectors of neighbouring eigenvalues."""
    a, d = 3 + torch.randn(4, 50, 12), 3 + torch.randn(4, 50, 7)
    valid = torch.ones(4, 50, dtype=torch.bool)
    valid[1, 20:] = False
    of_inputs, of_outputs = covariances(a, d, valid)
    kept, outputs = a[valid].double(), d.flatten(0, 1).double()
    torch.testing.assert_close(of_inputs, kept.T @ kept, rtol=1e-13, atol=0)
    torch.testing.assert_close(of_outputs, outputs.T @ outputs, rtol=1e-13, atol=0)


@pytest.mark.parametrize("n_tokens", [1, 3, 9, 20])
def test_squares_do_not_depend_on_when_and_in_which_pieces_gradients_are_rotated(
    n_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, d = torch.randn(5, n_tokens, 12, dtype=torch.float64), torch.randn(5, n_tokens, 7, dtype=torch.float64)
    basis = LayerBasis(
        torch.linalg.qr(torch.randn(7, 7).double()).Q,
        torch.linalg.qr(torch.randn(12, 12).double()).Q,
        torch.ones(7, 12),
    )
    expected = (basis.outputs.T @ torch.einsum("ntj,nti->nji", d, a) @ basis.inputs).square().sum(0)
    torch.testing.assert_close(squares(basis, a, d, 5), expected)
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 2 * 7 * 12)
    torch.testing.assert_close(squares(basis, a, d, 5), expected)


def test_solutions_invert_the_damped_block() -> None:
    basis = eigenbasis(torch.cov(torch.randn(4, 9).double()), torch.cov(torch.randn(3, 9).double()))
    damping = absolute_damping(basis, 0.3, "layer")
    gradients = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = torch.linalg.solve(written_out(basis) + damping * torch.eye(12), gradients.flatten(1).T).T
    torch.testing.assert_close(solve(basis, damping, gradients).flatten(1), expected)


def test_a_vanishing_block_and_an_expectation_over_a_vocabulary_are_refused() -> None:
    with pytest.raises(UserError, match="layer mlp has mean eigenvalue 0,"):
        absolute_damping(eigenbasis(torch.zeros(2, 2), torch.zeros(3, 3)), 0.1, "mlp")
    with pytest.raises(UserError, match=r"each of 513 classes.*fisher=empirical"):
        fisher_cotangents(torch.zeros(2, 513), torch.zeros(2, dtype=torch.int64), "expectation")
