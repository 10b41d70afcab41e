"""The bounded index of strongest texts equals sorting everything, whatever the pieces."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from twinlens.attribution.neuron.strongest_texts import StrongestTexts, strongest_tokens


def sorted_whole(activation: Tensor, k: int, positive: bool) -> list[list[tuple[float, int]]]:
    """Of every unit the entries by a plain sort, as (activation, text)."""
    sign = 1 if positive else -1
    lists = []
    for column in activation.T.tolist():
        entries = [(value, text) for text, value in enumerate(column) if sign * value > 0]
        lists.append(sorted(entries, key=lambda entry: (-sign * entry[0], entry[1]))[:k])
    return lists


@settings(max_examples=40)
@given(st.data(), st.booleans(), st.integers(1, 6))
def test_pieces_in_any_order_leave_what_a_sort_of_everything_leaves(
    data: st.DataObject, positive: bool, k: int
) -> None:
    """Few different values, so that many are equal: of these the text with the lower row comes first."""
    n_texts, n_units = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    numbers = st.lists(st.integers(-2, 2), min_size=n_texts * n_units, max_size=n_texts * n_units)
    activation = torch.tensor(data.draw(numbers)).float().view(n_texts, n_units)
    position = torch.arange(n_texts * n_units).view(n_texts, n_units)
    order = data.draw(st.permutations(range(n_texts)))
    cut = data.draw(st.integers(0, n_texts))
    halves = []
    for rows in (order[:cut], order[cut:]):
        lists = StrongestTexts(k, positive)
        for text in rows:
            lists.update(activation[[text]], position[[text]], torch.tensor([text]))
        halves += [lists.result()] if rows else []
    merged = StrongestTexts(k, positive)
    for half in halves:
        merged.merge(half)
    found = merged.result()
    for unit, expected in enumerate(sorted_whole(activation, k, positive)):
        kept = found.text[unit] >= 0
        texts = found.text[unit][kept].tolist()
        assert list(zip(found.activation[unit][kept].tolist(), texts, strict=True)) == expected
        assert found.position[unit][kept].tolist() == [int(position[text, unit]) for text in texts]


def test_a_text_counts_once_with_the_first_of_its_strongest_tokens() -> None:
    activation = torch.tensor([[[1.0, -3.0], [2.0, -1.0], [2.0, 5.0]], [[7.0, 7.0], [7.0, 7.0], [7.0, 7.0]]])
    counts = torch.tensor([[True, True, True], [False, False, False]])
    place = torch.tensor([[4, 5, 6], [0, 1, 2]])
    value, position = strongest_tokens(activation, counts, place, positive=True)
    assert (value.tolist(), position.tolist()) == ([[2.0, 5.0], [0.0, 0.0]], [[5, 6], [-1, -1]])
    value, position = strongest_tokens(activation, counts, place, positive=False)
    assert (value[0].tolist(), position[0].tolist()) == ([1.0, -3.0], [4, 4])
