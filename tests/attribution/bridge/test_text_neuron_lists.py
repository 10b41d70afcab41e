"""NA-Instances of texts: the highest of Eq. 1 over their tokens' lists, exact in whatever blocks."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import Any

import pytest
import torch

from tests import oracles_bridge
from tests.attribution.bridge.test_bridges import LAYERS, NEURONS, lists_of
from tests.attribution.instance.cases import BUDGET
from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.bridge.neuron_instances import PRESETS, NeuronInstances
from twinlens.attribution.bridge.text_neuron_lists import TextNeuronLists
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.stream import stream_scores

LENGTHS = [3, 1, 0, 2, 4]
Lists = list[list[tuple[int, float]]]


def drawn(count: int, seed: int) -> Lists:
    generator = random.Random(seed)
    lists = []
    for _ in range(count):
        neurons = generator.sample(range(LAYERS * NEURONS), generator.randint(1, 5))
        lists.append([(neuron, score) for score, neuron in zip(
            sorted((generator.randint(-8, 24) / 8 for _ in neurons), reverse=True), neurons, strict=True)])  # fmt: skip
    return lists


@pytest.mark.parametrize("preset", list(PRESETS))
def test_scores_are_the_closest_tokens(preset: str) -> None:
    tokens, tests = drawn(sum(LENGTHS), 0), drawn(6, 1)
    text = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    flat = lists_of(tokens)
    train = TextNeuronLists(flat.layer, flat.unit, flat.score, LAYERS, NEURONS, text, len(LENGTHS))
    method = NeuronInstances("ig", preset=preset, top_k=len(LENGTHS))  # type: ignore[arg-type]
    reading = PRESETS[preset]
    scorer = method.prepare(train, BUDGET)
    query = scorer.query(lists_of(tests), torch.arange(len(tests)))
    whole = scorer.scores(query, 0, len(LENGTHS))
    blocks = [scorer.scores(query, start, start + 1) for start in range(len(LENGTHS))]
    assert torch.equal(torch.cat(blocks, 1), whole)
    for row, test in enumerate(tests):
        for number in range(len(LENGTHS)):
            own = [entries for entries, of in zip(tokens, text.tolist(), strict=True) if of == number]
            terms = [
                oracles_bridge.dcns(entries[: reading.train_list], test[: reading.test_list], reading.gain, math.nan)
                for entries in own
            ]
            nothing = -math.inf if reading.missing == "-inf" else 0.0
            expected = max([nothing if math.isnan(term) else term for term in terms], default=nothing)
            assert float(whole[row, number]) == pytest.approx(expected, abs=1e-9)
    lists, _ = stream_scores(scorer, lists_of(tests), torch.arange(len(tests)), len(LENGTHS), BUDGET)
    assert torch.equal(lists.top_score, whole.float().sort(dim=1, descending=True).values)
    assert scorer.self_influence() is None


def test_a_bridge_reads_texts_at_all_tokens_or_the_last() -> None:
    kinds: list[Any] = [partial(NeuronInstances, "ig"), partial(InstanceNeurons, "x")]
    for make in kinds:
        assert make(positions="last").sources[-1].positions == "last"
        with pytest.raises(UserError, match="positions=first; expected all"):
            make(positions="first")
