"""Sufficiency and comprehensiveness equal plain edited forwards, whatever replaces neurons and wherever."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.families import FAMILY_CONFIGS, choice_batch, choice_engine, random_batch, tiny_engine
from tests.oracles_neuron import answer_activations, edited_probabilities, forward_scores, sequences_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.base_line import BASE_LINE
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.questions import PROBABILITY, Question
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.evaluation.statistics import area
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.models.choice import ChoiceEngine
from twinlens.models.last_token import LastTokenEngine

PLENTY = 1 << 34
Engine = LastTokenEngine | ChoiceEngine


def inner(engine: Engine) -> LastTokenEngine:
    return engine.engine if isinstance(engine, ChoiceEngine) else engine


def edited_sequences(engine: Engine, predicted: int) -> list[int]:
    """Numbers of an example's sequences that edits concern."""
    if isinstance(engine, LastTokenEngine):
        return [0]
    return list(range(engine.n_choices)) if engine.choices == "all" else [predicted]


def clean_scores(engine: Engine, batch: dict[str, Tensor], row: int) -> Tensor:
    return torch.cat([forward_scores(inner(engine), sequence) for sequence in sequences_of(batch, row)])


def activations(engine: Engine, batch: dict[str, Tensor], row: int) -> list[Tensor]:
    """Of the edited sequences of one example, [layers, neurons] each."""
    edited = edited_sequences(engine, int(clean_scores(engine, batch, row).argmax()))
    return [answer_activations(inner(engine), sequences_of(batch, row)[s]) for s in edited]


def reference_of(engine: Engine, batch: dict[str, Tensor], rows: list[int]) -> Reference:
    """The sample as the plain loop sees it."""
    stacked = torch.stack([torch.stack(activations(engine, batch, row)) for row in rows])
    return Reference(torch.tensor(rows), stacked, of_explained=True)


def assert_equals_the_plain_loop(
    engine: Engine, batch: dict[str, Tensor], evaluation: Faithfulness, layer: Tensor, unit: Tensor
) -> None:
    """Every answer, with much and with little memory, for the whole batch and for one example alone."""
    n = len(batch["index"])
    reference = None if evaluation.intervention == "zero" else reference_of(engine, batch, [0, 2, 3])
    lists = {"list": (layer, unit)}
    answers = evaluation.answers(engine, batch, lists, PLENTY, reference)
    chunked = evaluation.answers(engine, batch, lists, 1, reference)
    alone = evaluation.answers(
        engine, {k: v[1:2] for k, v in batch.items()}, {"list": (layer[1:2], unit[1:2])}, PLENTY, reference
    )
    for key, found in answers.items():
        assert torch.allclose(found.float(), chunked[key].float(), atol=1e-5)
        assert torch.allclose(found[1:2].float(), alone[key].float(), atol=1e-5)
    for row in range(n):
        clean = clean_scores(engine, batch, row).softmax(-1)
        predicted = int(clean.argmax())
        edited = edited_sequences(engine, predicted)
        if evaluation.intervention == "zero":
            replacement = [torch.zeros(engine.n_layers, engine.n_neurons)] * len(edited)
        elif evaluation.intervention == "mean":
            every = [activation for other in (0, 2, 3) for activation in activations(engine, batch, other)]
            replacement = [torch.stack(every).mean(0)] * len(edited)
        else:
            assert reference is not None
            donor = [0, 2, 3][int(reference.donors(batch["index"], evaluation.reference_seed)[row])]
            assert donor != row
            replacement = activations(engine, batch, donor)
        assert float(answers[PROBABILITY][row]) == pytest.approx(float(clean[predicted]), abs=1e-5)
        for question in [*evaluation.questions(["list"]), *evaluation.questions([BASE_LINE])]:
            listed = zip(layer[row, : question.r].tolist(), unit[row, : question.r].tolist(), strict=True)
            pairs = set() if question.name == BASE_LINE else set(listed)
            expected = edited_probabilities(
                inner(engine),
                sequences_of(batch, row),
                pairs,
                question.test,
                edited,
                replacement,
                evaluation.positions,
            )
            assert float(answers[question.probability_key][row]) == pytest.approx(float(expected[predicted]), abs=1e-5)
            assert bool(answers[question.key][row]) == (int(expected.argmax()) == predicted)


def with_duplicates(layer: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """A list whose third entry repeats the first, and whose last one is missing."""
    layer, unit = layer.clone(), unit.clone()
    layer[:, 2], unit[:, 2] = layer[:, 0], unit[:, 0]
    layer[:, -1] = unit[:, -1] = -1
    return layer, unit


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
def test_every_family_equals_the_plain_loop(name: str) -> None:
    engine = tiny_engine(name)
    batch = random_batch([5, 9, 7, 3], "left")
    ranked = IntegratedGradients(n_steps=2, top_k=30).attribute(engine, batch, PLENTY)
    evaluation = Faithfulness(sufficiency=[1, 5], comprehensiveness=[10, 30])
    assert_equals_the_plain_loop(engine, batch, evaluation, ranked.layer, ranked.unit)


@pytest.mark.parametrize("model", ["gpt2", "opt", "bloom", "predicted", "all"])
@pytest.mark.parametrize("intervention", ["zero", "mean", "resample"])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_every_option_equals_the_plain_loop(model: str, intervention: str, positions: str) -> None:
    engine: Engine
    if model in FAMILY_CONFIGS:
        engine, batch = tiny_engine(model), random_batch([5, 9, 7, 3], "left")
    else:
        engine = choice_engine("llama", model)  # type: ignore[arg-type]
        batch = choice_batch([[5, 9, 2], [7, 3, 6], [4, 4, 4], [1, 8, 5]])
    ranked = IntegratedGradients(n_steps=1, top_k=20).attribute(engine, batch, PLENTY)
    evaluation = Faithfulness([3], [1, 20], intervention=intervention, positions=positions)  # type: ignore[arg-type]
    assert_equals_the_plain_loop(engine, batch, evaluation, *with_duplicates(ranked.layer, ranked.unit))


def test_both_tests_have_an_effect_of_their_own() -> None:
    engine = tiny_engine("opt")
    batch = random_batch([9] * 64)
    ranked = IntegratedGradients(top_k=100).attribute(engine, batch, PLENTY)
    answers = Faithfulness().answers(engine, batch, {"ig": (ranked.layer, ranked.unit)}, PLENTY)
    assert 0.2 < float(answers[Question("ig", "sufficiency", 1).key].double().mean()) < 0.9
    assert float(answers[Question("ig", "comprehensiveness", 100).key].double().mean()) < 0.2


# -- reference ---------------------------------------------------------------------------------------------------


def test_donors_are_other_examples_whatever_the_batch() -> None:
    reference = Reference(torch.tensor([1, 4, 6, 7]), torch.zeros(4, 1, 1, 1), of_explained=True)
    rows = torch.arange(400)
    donors = reference.donors(rows, 3)
    assert torch.equal(reference.donors(rows[[7, 300, 4]], 3), donors[[7, 300, 4]])
    assert not torch.equal(reference.donors(rows, 4), donors)
    for place, row in enumerate(reference.index.tolist()):
        drawn = {int(reference.donors(torch.tensor([row]), seed)[0]) for seed in range(60)}
        assert drawn == {0, 1, 2, 3} - {place}
    assert set(donors.tolist()) == {0, 1, 2, 3}
    assert donors.bincount().min() > 70
    other_split = Reference(reference.index, reference.activation, of_explained=False)
    assert {int(other_split.donors(torch.tensor([4]), seed)[0]) for seed in range(60)} == {0, 1, 2, 3}


# -- rows --------------------------------------------------------------------------------------------------------


def answers_of(**kept: list[bool]) -> dict[str, Tensor]:
    """Answers about lists of r = 1, 10, 100 in sufficiency; a kept prediction has probability 0.8, a lost one 0.1.
    Without any neuron the first prediction stays."""
    found = {PROBABILITY: torch.tensor([0.9, 0.9])}
    for name, values in {**kept, "no_neurons": [True, False] * 3}.items():
        for r, value in zip((1, 10, 100), (values[:2], values[2:4], values[4:]), strict=True):
            question = Question(name, "sufficiency", r)
            found[question.key] = torch.tensor(value)
            found[question.probability_key] = torch.where(torch.tensor(value), 0.8, 0.1)
    return found


def test_rows_average_seeds_per_example_first() -> None:
    evaluation = Faithfulness([1, 10, 100], [])
    lost, kept = [False, False], [True, True]
    answers = answers_of(a=[*kept, *kept, *kept], b=[False, True, *lost, *kept])
    every = evaluation.evaluate(answers, {"random_neurons": ["a", "b"]})
    rows = {(row.metric, row.k): row for row in every if row.method != "no_neurons"}
    base = [row for row in every if row.method == "no_neurons"]
    first = rows["sufficiency", 1]
    assert (first.value, first.stderr) == (75.0, pytest.approx(25.0))
    assert (first.n, first.better, first.variant, first.method) == (2, "higher", "", "random_neurons")
    assert rows["sufficiency_flips", 1].value == pytest.approx(0.5)
    assert rows["sufficiency_flips", 10].value == pytest.approx(1.0)
    assert rows["sufficiency_flips", 10].better == "lower"
    assert rows["sufficiency_drop", 1].value == pytest.approx((0.1 + 0.8 + 0.1 + 0.1) / 4)
    assert rows["sufficiency_auc", None].value == pytest.approx((75 + 50) / 4 + (50 + 100) / 4)
    assert len(rows) == 10
    assert {(row.value, row.control) for row in base if row.metric == "sufficiency"} == {(50.0, True)}
    assert {row.k for row in base} == {1, 10, 100, None}


def test_one_r_has_no_area_and_settings_are_said() -> None:
    evaluation = Faithfulness([1], [], intervention="mean", positions="all", reference="train", control="matched")
    answers = answers_of(a=[True] * 6, b=[False] * 6)
    rows = evaluation.evaluate(answers, {"ig": ["a"]}, {"ig": ["b"]})
    assert [row.metric for row in rows] == ["sufficiency", "sufficiency_flips", "sufficiency_drop"] * 3
    settings = "intervention=mean;positions=all;reference=train"
    assert {(row.method, row.reference_group, row.variant) for row in rows} == {
        ("ig", "", settings),
        ("random_neurons", "ig", f"control=matched;{settings}"),
        ("no_neurons", "", settings),
    }


def test_area_is_the_integral_over_log_r() -> None:
    shares = torch.tensor([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0]])
    assert torch.allclose(area(shares, [1, 10, 100]), torch.tensor([0.5, 1.0]))
    assert torch.allclose(area(shares.flip(0), [100, 10, 1]), torch.tensor([0.5, 1.0]))
    uneven = area(shares[:, :1], [1, 2, 8])
    assert float(uneven) == pytest.approx((math.log(2) * 0.25 + math.log(4) * 0.75) / math.log(8))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.ig\.top_k=50"):
        Faithfulness().require_length("ig", 50)
    for counts in ([0], []):
        with pytest.raises(UserError, match="r ≥ 1"):
            Faithfulness(sufficiency=counts, comprehensiveness=[])
    with pytest.raises(UserError, match="reference_size=1"):
        Faithfulness(reference_size=1)
