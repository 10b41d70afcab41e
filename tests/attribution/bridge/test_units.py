"""Units of predictions: what names them, which of several stand for a train row, and what cannot be named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles_units import best_units as naive_best
from twinlens.attribution.bridge.data_of_neurons import DataOfNeurons, NeuronsOfData
from twinlens.attribution.bridge.units import Units, best_units, contributions
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.targets import Targets

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.5]), st.integers(-1, 3)), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.integers(1, 5))
def test_of_each_unit_the_best_pair_stands(pairs: list[tuple[float, int]], k: int) -> None:
    scores, units = [score for score, _ in pairs], [unit for _, unit in pairs]
    place, best = best_units(torch.tensor([scores]), torch.tensor(units), k)
    found = [(int(p), float(s)) for p, s in zip(place[0], best[0], strict=True) if p >= 0]
    assert found == naive_best(scores, units, k)


def test_a_list_names_each_unit_once_and_shorter_lists_end() -> None:
    site = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]])
    layer = torch.tensor([[2, 2, 2, 0], [1, -1, -1, -1]])
    unit = torch.tensor([[5, 5, 5, 5], [3, -1, -1, -1]])
    units = Units.listed(site, layer, unit, "neuron")
    named = list(zip(*(part.tolist() for part in vars(units).values()), strict=True))
    assert named == [(0, 0, 2, 5, False), (0, 1, 2, 5, False), (0, 0, 0, 5, False), (1, 1, 1, 3, False)]
    assert len(set(units.numbers().tolist())) == 4
    assert [units.name(pair) for pair in (0, 1)] == ["FFN neuron 5 of layer 2", "ATTN neuron 5 of layer 2"]


def test_contributions_speak_of_differences_and_folded_classes() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    log_prob = logits.log_softmax(-1)
    target, other = torch.tensor([0]), torch.tensor([2])
    found = contributions(logits, Targets(target, against=other))
    torch.testing.assert_close(found[0], (log_prob[0, 0] - log_prob[0, 2]) - (log_prob[1, 0] - log_prob[1, 2]))
    folded = contributions(logits, Targets(torch.tensor([1]), fold=torch.tensor([0, 1, 1])))
    probabilities = log_prob.exp()
    expected = (probabilities[0, 1] + probabilities[0, 2]).log() - (probabilities[1, 1] + probabilities[1, 2]).log()
    torch.testing.assert_close(folded[0], expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": None}, "expected one of the two"),
        ({"units": [["ffn", 0, 1]]}, "expected one of the two"),
        ({"of": None, "units": [["mlp", 0, 1]]}, "a kind of ffn, attn, head"),
        ({"of": None, "units": [["ffn", 0]]}, r"expected \[kind, layer, unit\]"),
        ({"of": None, "units": [["ffn", 0, -1]]}, "numbers from 0 on"),
        ({"curvature": "ggn"}, "use curvature=ekfac, kfac or identity"),
        ({"damping": "auto"}, "measure predictions, not units"),
        ({"damping": 0.0}, "use damping=0.1"),
        ({"n_units": 0}, "n_units"),
    ],
)
def test_settings_that_ask_for_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DataOfNeurons(**options)


def test_units_beyond_the_model_or_the_budget_are_refused() -> None:
    counts = {"ffn": 64, "attn": 32, "head": 4}
    named = DataOfNeurons(of=None, units=[["ffn", 1, 63], ["head", 1, 4]])
    with pytest.raises(UserError, match=r"unit 4 of kind head in layer 1, .* has 2 layers with 4 such units each"):
        named.require_model(2, counts, "gpt_neox")
    with pytest.raises(UserError, match="2 units of each of 600 predictions, 1200 in all, but max_units=1000"):
        named.require_tests("data_of_neurons", 600)
    named.require_tests("data_of_neurons", 500)


def test_what_is_turned_round_has_to_have_units() -> None:
    turned = NeuronsOfData(of="gradsim")
    with pytest.raises(UserError, match=r"method\.mine.of=gradsim has no units of predictions to turn round"):
        turned.among({"gradsim": GradientSimilarity(), "mine": turned})
