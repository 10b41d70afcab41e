"""Edits that a prompt's view records equal plain forwards with a hook; a completion's tokens are next tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.attribution.neuron.vocabulary_cases import PLENTY, case
from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.neuron_level.prompt_view import KINDS, PromptView
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences

OPTIONS: dict[str, Any] = {"top": 2, "tokens": 2, "attention": 4, "largest_share": 1.0, "others": 3}
FACTORS = (0.0, 2.0, -1.0)


def plain_log_probs(c: Any, ids: torch.Tensor, number: int, factor: float) -> torch.Tensor:
    """Log-probabilities after `ids` [tokens] with one neuron's coefficient multiplied at every token, by a hook."""
    engine, width = c.engine, c.engine.n_neurons + c.engine.n_heads * c.engine.head_dim
    layer, unit = divmod(number, width)
    block = engine.anatomy.blocks[layer]
    attention = unit >= engine.n_neurons
    part = engine.anatomy.attention_output(block) if attention else engine.anatomy.down_projection(block)
    column = unit - engine.n_neurons * attention

    def scale(module: Any, args: tuple) -> tuple:
        coefficients = args[0].clone()
        coefficients[..., column] *= factor
        return (coefficients, *args[1:])

    handle = part.register_forward_pre_hook(scale)
    try:
        with torch.no_grad():
            state = engine.anatomy.backbone(input_ids=ids[None]).last_hidden_state[0, -1]
            return c.head(state).float().log_softmax(-1)
    finally:
        handle.remove()


def sentences(c: Any, budget: int = PLENTY, **more: Any) -> Sentences:
    return Sentences(c.engine, c.batch, c.target, budget, **more)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_edits_equal_plain_forwards_with_a_hook(name: str) -> None:
    c = case(name)
    view = PromptView(sentences=2, edits=FACTORS, **OPTIONS)
    answers = view.answers(sentences(c))
    for row in range(2):
        ids, target = c.batch["input_ids"][row][c.batch["attention_mask"][row].bool()], int(c.target[row])
        numbers = torch.cat([answers[f"{kind}_number"][row, 0] for kind in KINDS]).tolist()
        assert len(numbers) == 6
        for place, number in enumerate(numbers):
            for at, factor in enumerate(FACTORS):
                expected = plain_log_probs(c, ids, number, factor)
                assert float(answers["edited_log_prob"][row, 0, place, at]) == pytest.approx(
                    float(expected[target]), abs=2e-5
                )
                expected[target] = -torch.inf
                best = expected.topk(3)
                torch.testing.assert_close(
                    answers["edited_other_log_prob"][row, 0, place, at], best.values, atol=2e-5, rtol=0
                )
                assert answers["edited_other"][row, 0, place, at].tolist() == best.indices.tolist()
        as_it_is = plain_log_probs(c, ids, 0, 1.0)
        assert float(answers["log_prob"][row, 0]) == pytest.approx(float(as_it_is[target]), abs=2e-5)
        assert target not in answers["other"][row, 0].tolist()
    assert not answers["edited_log_prob"][2].any()  # not shown, and so not computed
    changed = answers["edited_log_prob"][:2, 0] - answers["log_prob"][:2, 0, None, None]
    assert float(changed.abs().max()) > 1e-3


def test_each_token_of_a_completion_is_a_next_token_behind_the_ones_before_it() -> None:
    c = case("gpt2")
    completions = Completions([[3, 7, 11], [10], [17, 2]])
    view = PromptView(sentences=2, edits=[0], completion=2, **OPTIONS)
    answers = view.answers(sentences(c, completions=completions))
    assert answers["length"].tolist() == [[5, 6], [3, 0], [4, 0]]  # two of three tokens; the third example is not shown
    assert answers["target"][0].tolist() == [3, 7]
    ids = torch.cat([c.batch["input_ids"][0], torch.tensor([3])])[None]
    one = {"index": torch.tensor([0]), "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    alone = view.answers(Sentences(c.engine, one, torch.tensor([7]), PLENTY))
    for key, values in alone.items():
        if key != "index":
            torch.testing.assert_close(answers[key][0, 1].double(), values[0, 0].double(), atol=2e-5, rtol=1e-4)
    rows = view.evaluate(answers, Prompts(("",) * 3, c.engine))
    assert list(dict.fromkeys(row.group for row in rows)) == ["0", "0.1", "1"]
    record = list(view.recorded(answers, Prompts(("",) * 3, c.engine)))
    assert [(line.index, line.token) for line in record if not line.neuron] == [(0, 0), (0, 1), (1, 0)]
    assert len(record) == 3 * (1 + 6)
    assert {line.factor for line in record if line.neuron} == {0.0}
    assert list(PromptView(sentences=2, edits=[], **OPTIONS).recorded(answers, Prompts(("",) * 3, c.engine))) == []


def test_edits_do_not_depend_on_the_budget() -> None:
    c = case("llama")
    view = PromptView(sentences=3, edits=[2], **OPTIONS)
    whole = view.answers(sentences(c))
    states = 3 * c.engine.bytes_per_example(c.batch["attention_mask"].shape[1])
    small = view.answers(sentences(c, budget=states + (1 << 20)))
    for key, values in whole.items():
        torch.testing.assert_close(small[key].double(), values.double(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("edits", "said"),
    [([0, 1], "leaves a neuron as it is"), ([float("nan")], "has nan, expected numbers"), (["x"], "expected numbers")],
)
def test_edits_that_are_no_edits_are_refused(edits: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        PromptView(edits=edits)
    with pytest.raises(UserError, match=r"evaluation\.prompt\.completion=0 leaves nothing to count"):
        PromptView(completion=0)
