"""Increases from moments equal the dense form and plain loops, for small, large and mixed coefficients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.attribution.neuron.vocabulary_cases import FAMILIES, PLENTY, Case, case
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron import series_increases as series
from twinlens.attribution.neuron.increase import Units
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units


@pytest.fixture(autouse=True)
def of_any_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "OUTPUTS_FROM", 1)


def found(c: Case, units: Units, budget: int = PLENTY) -> Tensor:
    return torch.stack([increase for _, increase in series.series_increases(c.readout(), units, budget)], 1)


def plain(c: Case, units: Units) -> Tensor:
    """lp(x + m·v) − lp(x) in float64, one layer's distributions at a time."""
    readout, layers = c.readout(), []
    wide = replace(
        readout,
        scale=readout.scale.double(),
        weight=readout.weight.double(),
        direction=lambda vectors: (
            readout.direction(vectors.float()).double()
            if vectors.dtype != torch.float64
            else (readout.direction(torch.eye(vectors.shape[-1])).double().T @ vectors[..., None])[..., 0]
        ),
    )
    for layer in range(units.n_layers):
        point = units.base[:, layer].double()
        added = units.coefficient[:, layer, ..., None].double() * units.values(layer).double()[:, None]
        layers.append(wide.log_prob(point[:, None, None] + added) - wide.log_prob(point)[:, None, None])
    return torch.stack(layers, 1)


def exact_share(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Shares of coefficients that took exponentials, filled while increases are computed."""
    shares: list[float] = []
    put = series._put_exact

    def counted(readout, points, directions, coefficient, exact, excess, n_columns):
        shares.append(float(exact.float().mean()))
        put(readout, points, directions, coefficient, exact, excess, n_columns)

    monkeypatch.setattr(series, "_put_exact", counted)
    return shares


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_increases_equal_plain_ones(name: str, factor: float) -> None:
    c = case(name)
    for units in (ffn_units(c.engine, c.states), attention_units(c.engine, c.states)):
        units = replace(units, coefficient=units.coefficient * factor)
        got, expected = found(c, units), plain(c, units)
        largest = float(expected.abs().max())
        assert largest > 0
        assert float((got.double() - expected).abs().max()) < 2e-6 * largest
        assert bool((got[units.coefficient == 0] == 0).all())


def test_small_coefficients_take_no_exponential_and_large_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    c = case("gpt2")
    units, shares = ffn_units(c.engine, c.states), exact_share(monkeypatch)
    small = replace(units, coefficient=units.coefficient * 0.01)
    found(c, small)
    assert shares == []
    coefficient = small.coefficient.clone()
    coefficient[0, :, 5] = 9.0
    mixed = replace(units, coefficient=coefficient)
    got = found(c, mixed)
    assert len(shares) == units.n_layers
    assert max(shares) < 0.02
    expected = plain(c, mixed)
    assert torch.allclose(got.double(), expected, rtol=1e-5, atol=1e-6 * float(expected[1:].abs().max()))


def test_a_term_less_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is sharp enough to matter: with two terms alone, all taken for exact, the result is another."""
    c = case("gpt2")
    units = ffn_units(c.engine, c.states)
    expected = plain(c, units)
    monkeypatch.setattr(series, "TERMS", 2)
    monkeypatch.setattr(series, "REST", float("inf"))
    assert float((found(c, units).double() - expected).abs().max()) > 1e-4 * float(expected.abs().max())
    monkeypatch.setattr(series, "REST", 1e-6)
    assert float((found(c, units).double() - expected).abs().max()) < 2e-6 * float(expected.abs().max())


def test_overflowing_exponentials_are_mended_and_budgets_change_nothing() -> None:
    c = case("gpt2")
    units = ffn_units(c.engine, c.states)
    coefficient = units.coefficient.clone()
    coefficient[0, 1, :4] = 4000.0
    units = replace(units, coefficient=coefficient)
    assert torch.allclose(found(c, units).double(), plain(c, units), rtol=1e-4, atol=1e-6)
    small = replace(units, coefficient=coefficient.clamp(max=1))
    assert torch.allclose(found(c, small, 20_000), found(c, small), atol=1e-6)
    with pytest.raises(UserError, match="raise memory_budget"):
        found(c, small, 100)
