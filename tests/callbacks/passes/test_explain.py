"""Settings `explain` and `explain_against`: read into words for each lens, then into outputs of every example."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.passes.explain import Asked, Explain, Names, read_explain, resolve

CLASSES = Names(READOUTS["classification"], ["no", "yes", "maybe"], None)
CHOICES = Names(READOUTS["choice"], ["A", "B"], None)


class Words:
    """A tokenizer of whole words, each led by its space."""

    words = (" the", " Paris", " Rome")

    def __len__(self) -> int:
        return len(self.words)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": [self.words.index(f" {word}") for word in text.split()]}

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[number] for number in ids)


TOKENS = Names(READOUTS["token"], [], Words())


@pytest.mark.parametrize(
    ("explain", "against", "names", "target", "other"),
    [
        ("predicted", None, CLASSES, "predicted", None),
        ("gold", "runner_up", CLASSES, "gold", "runner_up"),
        ("yes", "no", CLASSES, 1, 0),
        ("class:maybe", "predicted", CLASSES, 2, "predicted"),
        (1, None, Names(READOUTS["classification"], ["0", "1"], None), 1, None),
        ("B", None, CHOICES, 1, None),
        (" Paris", "Rome", TOKENS, 1, 2),
        (2, 0, TOKENS, 2, 0),
        ("answer", None, TOKENS, "answer", None),
        ("class:gold", None, Names(READOUTS["classification"], ["gold", "silver"], None), 0, None),
        ("word:gold", None, Names(READOUTS["classification"], ["gold", "silver"], None), "gold", None),
        ("null", None, Names(READOUTS["classification"], ["null", "some"], None), 0, None),
    ],
)
def test_what_can_be_said(explain: Any, against: Any, names: Names, target: Any, other: Any) -> None:
    found = read_explain(explain, against, names)
    assert found.instance == found.neuron
    assert (found.instance.target, found.instance.against) == (target, other)


def test_each_lens_may_have_its_own() -> None:
    found = read_explain({"instance": "gold", "neuron": "predicted"}, None, CLASSES)
    assert (found.of("instance").target, found.of("neuron").target) == ("gold", "predicted")
    assert (found.instance.told, found.neuron.told) == ("gold", "predicted")
    assert Explain() == read_explain("predicted", None, CLASSES)


@pytest.mark.parametrize(
    ("explain", "against", "names", "said"),
    [
        ("perhaps", None, CLASSES, "names no class of the data; expected predicted, gold or one of no, yes, maybe"),
        ("C", None, CHOICES, "names no choice"),
        ("gold", None, Names(READOUTS["classification"], ["gold", "silver"], None), "write explain=class:gold"),
        ("answer", None, CLASSES, "write gold"),
        (None, None, CLASSES, "says nothing"),
        (True, None, CLASSES, "says nothing"),
        ("", None, CLASSES, "says nothing"),
        ("predicted", "predicted", CLASSES, "nothing is left to explain"),
        ("yes", "class:yes", CLASSES, "nothing is left to explain"),
        ("predicted", "runner_up", Names(READOUTS["choice"], ["A"], None), "expected two or more"),
        ({"instance": "gold"}, None, CLASSES, "expected both of instance and neuron"),
        ({"instance": "gold", "neuron": "gold", "head": "gold"}, None, CLASSES, "expected both of instance and neuron"),
        (" the Paris", None, TOKENS, "is 2 tokens"),
        (3, None, TOKENS, "is no token: the vocabulary has the numbers 0 to 2"),
    ],
)
def test_what_cannot_be_explained_is_refused(explain: Any, against: Any, names: Names, said: str) -> None:
    with pytest.raises(UserError, match="expected") as refused:
        read_explain(explain, against, names)
    assert said in str(refused.value)


PROB = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.3, 0.3, 0.4]])
COLUMNS = {
    "prediction": torch.tensor([1, 0, 2]),
    "label": torch.tensor([1, 2, 0]),
    "prob": PROB,
    "runner_up": torch.tensor([9, 8, 7]),
}


@pytest.mark.parametrize(
    ("asked", "target", "against"),
    [
        (Asked(), [1, 0, 2], None),
        (Asked("gold"), [1, 2, 0], None),
        (Asked(2), [2, 2, 2], None),
        (Asked("predicted", "runner_up"), [1, 0, 2], [2, 2, 0]),
        (Asked("gold", "runner_up"), [1, 2, 0], [2, 0, 2]),
        (Asked("predicted", "gold"), [1, 0, 2], [1, 2, 0]),
        (Asked(0, "predicted"), [0, 0, 0], [1, 0, 2]),
    ],
)
def test_outputs_of_every_example(asked: Asked, target: list[int], against: list[int] | None) -> None:
    found = resolve(asked, COLUMNS.__getitem__, None, READOUTS["classification"])
    assert found.target.tolist() == target
    assert (None if found.against is None else found.against.tolist()) == against
    same = [False] * 3 if against is None else [a == b for a, b in zip(target, against, strict=True)]
    assert found.left_out.tolist() == same


def test_the_next_likely_token_is_the_predicted_one_where_another_is_explained() -> None:
    asked, token = Asked("gold", "runner_up"), READOUTS["token"]
    found = resolve(asked, COLUMNS.__getitem__, None, token)
    assert found.against is not None
    assert found.against.tolist() == [9, 0, 2]  # of the first the prediction is the answer, so that the second counts
    without = {**COLUMNS, "label": torch.tensor([1, -1, 0])}
    assert resolve(Asked("answer"), without.__getitem__, None, token).target.tolist() == [1, 0, 0]


def test_folded_labels_are_explained_as_the_sum_over_their_classes() -> None:
    fold = torch.tensor([0, 1, 1])
    folded = resolve(Asked("gold"), COLUMNS.__getitem__, fold, READOUTS["classification"])
    assert folded.fold is not None
    assert resolve(Asked(), COLUMNS.__getitem__, fold, READOUTS["classification"]).fold is None
