"""The evaluations of the second paper against loops over every neuron of one sentence, and their rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from tests.attribution.neuron.vocabulary_cases import PLENTY, case
from tests.oracles_neuron_level import head_vector, lp, query_shares
from tests.oracles_neuron_level_tables import attention_increases, best, best_distinct, ffn_increases, shared, zeroed
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.comparisons import compare_methods
from twinlens.attribution.evaluation.neuron_level.head_importance import HeadImportance
from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
from twinlens.attribution.evaluation.neuron_level.interventions import Interventions
from twinlens.attribution.evaluation.neuron_level.layer_importance import LayerImportance
from twinlens.attribution.evaluation.neuron_level.neuron_layers import NeuronLayers
from twinlens.attribution.evaluation.neuron_level.prompt_view import PromptView
from twinlens.attribution.evaluation.neuron_level.query_interventions import QueryInterventions
from twinlens.attribution.evaluation.neuron_level.query_layers import QueryLayers
from twinlens.attribution.evaluation.neuron_level.segments import Segments
from twinlens.attribution.evaluation.neuron_level.sentences import (
    ListedNeurons,
    Prompts,
    Sentences,
    decrease,
    decreases,
    sentence_bytes,
)
from twinlens.attribution.evaluation.neuron_level.shared_neurons import SharedNeurons
from twinlens.attribution.evaluation.neuron_level.value_interventions import ValueInterventions
from twinlens.attribution.evaluation.resampling import resampled_means
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.neuron.query import ValueNeurons, query_neurons
from twinlens.callbacks.results.outcomes import measured_of

NAMES = ["gpt2", "llama"]
TYPES = ("capital", "colour", "capital")


@cache
def increases(name: str) -> tuple[list[dict], list[dict]]:
    """FFN and attention increases of all sentences."""
    c = case(name)
    return [ffn_increases(c, row) for row in range(3)], [attention_increases(c, row) for row in range(3)]


def sentences(name: str, **more: object) -> Sentences:
    c = case(name)
    return Sentences(c.engine, c.batch, c.target, PLENTY, **more)  # type: ignore[arg-type]


def prompts(name: str, **more: object) -> Prompts:
    return Prompts(TYPES, case(name).engine, **more)  # type: ignore[arg-type]


def value_of(rows: list, metric: str, **cells: object) -> float:
    found = [r for r in rows if r.metric == metric and all(getattr(r, key) == v for key, v in cells.items())]
    assert len(found) == 1, found
    return found[0].value


@pytest.mark.parametrize("name", NAMES)
def test_interventions_zero_the_first_distinct_neurons_of_each_sentence(name: str) -> None:
    c = case(name)
    ffn, attention = increases(name)
    entries = [best(scores, 12) for scores in attention]
    stored = ListedNeurons(
        torch.tensor([[False] * 3 + [True] * 12] * 3),
        *(
            torch.tensor([[e[i] for e in best(ffn[r], 3)] + [e[i] for e in entries[r]] for r in range(3)])
            for i in (0, 1)
        ),
    )
    evaluation = Interventions(k=[5, 2])
    answers = evaluation.answers(sentences(name, lists={"both": stored}))
    rows = evaluation.evaluate(answers, prompts(name, seeds_of={"both": ["both"]}))
    for row in range(3):
        distinct = list(dict.fromkeys(e[:2] for e in entries[row]))[:2]
        expected = zeroed(c, row, best(ffn[row], 3), distinct)
        assert answers["both|5"][row].tolist() == pytest.approx(expected, abs=2e-5)
        assert answers["original"][row].tolist() == pytest.approx(zeroed(c, row), abs=2e-5)
    assert value_of(rows, "mrr", method="both", k=5, group="") == pytest.approx(float(answers["both|5"][:, 0].mean()))
    capital = answers["both|5"][[0, 2]]
    assert value_of(rows, "prob", method="both", k=5, group="capital") == pytest.approx(
        100 * float(capital[:, 1].mean())
    )
    assert value_of(rows, "logp", method="original", k=None, group="colour") == pytest.approx(
        float(answers["original"][1, 2])
    )
    drawn = torch.stack([answers[f"random_neurons/seed{seed}|2"] for seed in (0, 1, 2)]).mean(0)
    assert value_of(rows, "logp", method="random_neurons", k=2, group="") == pytest.approx(float(drawn[:, 2].mean()))


def test_a_run_with_random_neurons_of_its_own_gets_no_other_control() -> None:
    listed = ListedNeurons(torch.zeros(3, 2).bool(), torch.zeros(3, 2).long(), torch.arange(2).expand(3, 2))
    own = replace(listed, control=True)
    found = Interventions(k=[1]).answers(sentences("gpt2", lists={"drawn/seed4": own}))
    assert set(found) == {"original", "drawn/seed4|1"}
    beside = Interventions(k=[1], control_seeds=[0]).answers(sentences("gpt2", lists={"random_walk": listed}))
    assert set(beside) == {"original", "random_walk|1", "random_neurons/seed0|1"}
    with pytest.raises(UserError, match="control_of=ig is no neuron method"):
        Interventions(control_of="ig").require_lists({"coefficient": NeuronScore(score="coefficient")})
    with pytest.raises(UserError, match="top_k=5 keeps fewer"):
        Interventions().require_length("ig", 5)


@pytest.mark.parametrize("name", NAMES)
def test_value_interventions_zero_both_sites(name: str) -> None:
    c = case(name)
    ffn, attention = increases(name)
    evaluation = ValueInterventions(attention=6, ffn=4, largest_share=1.0)
    answers = evaluation.answers(sentences(name))
    for row in range(3):
        expected = zeroed(c, row, best(ffn[row], 4), best_distinct(attention[row], 6))
        assert answers["logprob_increase"][row].tolist() == pytest.approx(expected, abs=2e-5)
    rows = evaluation.evaluate(answers, prompts(name))
    before, after = answers["original"][:, 1].mean(), answers["logprob_increase"][:, 1].mean()
    assert value_of(rows, "prob_decrease", method="logprob_increase", group="") == pytest.approx(
        float(100 * (before - after) / before), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_sums_equal_those_of_all_neurons_one_by_one(name: str) -> None:
    evaluation = ImportanceSums(top=[3, 8], largest_share=1.0)
    answers = evaluation.answers(sentences(name))
    for site, found in zip(("ffn", "attention"), increases(name), strict=True):
        for row, scores in enumerate(found):
            ordered = sorted(scores.values(), reverse=True)
            expected = [sum(ordered), sum(v for v in ordered if v > 0), sum(ordered[:3]), sum(ordered[:8])]
            assert answers[site][row].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    for row, scores in enumerate(increases(name)[1]):
        expected = [len({key[:2] for key in best(scores, k)}) for k in (3, 8)]
        assert answers["attention_distinct"][row].tolist() == expected
    rows = evaluation.evaluate(answers, prompts(name))
    assert value_of(rows, "increase_top", k=3, group="colour", reference_group="ffn") == pytest.approx(
        float(answers["ffn"][1, 2])
    )


def test_decreases_are_compared_pair_by_pair_on_the_same_sentences() -> None:
    """The difference of two decreases and its p are those of a bootstrap by hand, the mean before drawn with it."""
    generator = torch.Generator().manual_seed(3)
    before = 0.5 + torch.rand(40, 3, generator=generator) / 2
    less, more = before * 0.8, before * torch.rand(40, 3, generator=generator)
    facts = Prompts(("",) * 40, case("gpt2").engine)
    rows = [
        *decreases(before, less, facts, method="random_neurons", control=True, k=5),
        *decreases(before, more, facts, method="query_neurons", k=5),
    ]
    for row in rows:
        assert row.samples is not None
        assert 100 * float(row.samples.mean()) == pytest.approx(row.value)
    found = compare_methods([one for row in rows if (one := measured_of("test", row, {}, []))])
    assert [(one.metric, one.method, one.reference) for one in found] == [
        ("mrr_decrease", "query_neurons", "random_neurons"), ("prob_decrease", "query_neurons", "random_neurons"),
    ]  # fmt: skip
    for column, one in enumerate(found):
        gap = decrease(before[:, column], more[:, column]) - decrease(before[:, column], less[:, column])
        assert one.difference == pytest.approx(gap)
        drawn = resampled_means(torch.stack([before[:, column], less[:, column], more[:, column]]))
        above = (drawn[:, 1] - drawn[:, 2]) / drawn[:, 0]
        assert one.p == pytest.approx(2 * (min(int((above <= 0).sum()), int((above >= 0).sum())) + 1) / 2001)
        assert one.low < gap < one.high
        assert float(above.quantile(0.025)) * 100 == pytest.approx(one.low, rel=0.1)
    nothing = decreases(torch.zeros(2, 3), torch.zeros(2, 3), Prompts(("", ""), case("gpt2").engine), method="x")
    assert [row.samples for row in nothing] == [None, None]


def test_small_models_are_asked_for_a_share_of_their_neurons() -> None:
    units = case("gpt2").engine.n_layers * case("gpt2").engine.n_neurons
    assert ImportanceSums(top=[10_000], largest_share=0.05).counts(units) == [int(0.05 * units)]
    assert ImportanceSums().counts(36 * 5120) == [100, 200]


@pytest.mark.parametrize("name", NAMES)
def test_layers_and_heads_equal_plain_differences(name: str) -> None:
    c = case(name)
    layers, heads = LayerImportance().answers(sentences(name)), HeadImportance().answers(sentences(name))
    for row, parts in enumerate(c.parts):
        arguments = (parts.leaving[-1], int(c.target[row]))
        for layer in range(c.engine.n_layers):
            x = parts.entering[layer][-1]
            between = x + parts.attention_output[layer][-1]
            steps = [lp(c.anatomy, c.head, v, *arguments) for v in (x, between, between + parts.mlp_output[layer][-1])]
            assert float(layers["attention"][row, layer]) == pytest.approx(steps[1] - steps[0], abs=1e-4)
            assert float(layers["ffn"][row, layer]) == pytest.approx(steps[2] - steps[1], abs=1e-4)
            for head in range(c.engine.n_heads):
                added = sum(head_vector(c.anatomy, parts, layer, head, p) for p in range(len(parts.output)))
                expected = lp(c.anatomy, c.head, x + added, *arguments) - steps[0]
                assert float(heads["increase"][row, layer, head]) == pytest.approx(expected, abs=1e-4)
    rows = LayerImportance().evaluate(layers, prompts(name))
    assert value_of(rows, "layer_sum", group="", reference_group="ffn") == pytest.approx(
        float(layers["ffn"].sum(1).mean()), rel=1e-4
    )


def test_heads_of_one_type_are_zeroed_for_all() -> None:
    c, evaluation = case("gpt2"), HeadImportance(top=3, share=0.17)
    answers = evaluation.answers(sentences("gpt2"))
    chosen = evaluation.chosen(answers, prompts("gpt2"))
    means = answers["increase"][[0, 2]].mean(0).flatten()
    wanted = sorted(range(12), key=lambda head: -float(means[head]))[:2]
    assert chosen["capital"].flatten().nonzero()[:, 0].tolist() == sorted(wanted)
    after = evaluation.second(sentences("gpt2"), chosen)
    size = c.engine.head_dim
    units = [(head // 4, head % 4 * size + dim) for head in wanted for dim in range(size)]
    for row in range(3):
        assert after["without|capital"][row].tolist() == pytest.approx(zeroed(c, row, attention=units), abs=2e-5)
    rows = evaluation.evaluate({**answers, **after}, prompts("gpt2"))
    expected = decrease(answers["original"][1:2, 0], after["without|capital"][1:2, 0])
    assert value_of(rows, "mrr_decrease", group="colour", reference_group="capital") == pytest.approx(expected)
    name = f"a{wanted[0] // 4}.{wanted[0] % 4}"
    assert value_of(rows, "head_place", group="capital", reference_group=name) == 1
    assert value_of(rows, "head_increase", group="capital", reference_group=name) == pytest.approx(
        float(means[wanted[0]]), rel=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_query_layers_share_out_the_increase(name: str) -> None:
    c = case(name)
    answers = QueryLayers(ffn=3, attention=4, largest_share=1.0).answers(sentences(name))
    n_layers = c.engine.n_layers
    for site, short, k, found in zip(("ffn", "attention"), ("ffn", "attn"), (3, 4), increases(name), strict=True):
        for row, scores in enumerate(found):
            expected = [0.0] * (2 * n_layers + 2)
            for key in best(scores, k):
                position = key[2] if short == "attn" else len(c.parts[row].output) - 1
                shares, _ = query_shares(c.anatomy, c.parts[row], *key[:2], position, short, True)
                for (kind, at), share in shares.items():
                    start = {"embedding": 0, "attention": 1, "mlp": 1 + n_layers, "constant": 1 + 2 * n_layers}[kind]
                    expected[start + at] += share * scores[key]
            assert answers[site][row].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_query_neurons_are_zeroed_and_counted_beside_value_neurons(name: str) -> None:
    c = case(name)
    evaluation = QueryInterventions(k=9, attention=4, largest_share=1.0)
    answers = evaluation.answers(sentences(name))
    for row in range(3):
        entries = best(increases(name)[1][row], 4)
        shift = c.first_token(row)
        asked = ValueNeurons(
            "attn",
            *(torch.tensor([[e[i] + (shift if i == 2 else 0) for e in entries]]) for i in range(3)),
            torch.tensor([[increases(name)[1][row][e] for e in entries]]),
        )
        one = {key: values[row : row + 1] for key, values in c.batch.items()}
        scores = query_neurons(c.engine, one, asked, PLENTY)[0]
        named = {
            (layer, unit): float(scores[layer, unit])
            for layer in range(c.engine.n_layers)
            for unit in range(c.engine.n_neurons)
        }
        queries, values = best(named, 9), best(increases(name)[0][row], 9)
        assert answers["query_neurons"][row].tolist() == pytest.approx(zeroed(c, row, queries), abs=5e-5)
        for layer in range(c.engine.n_layers):
            both = len({n for n in queries if n[0] == layer} & set(values))
            assert int(answers["query_value"][row, layer]) == both
            assert int(answers["query_only"][row, layer]) == len([n for n in queries if n[0] == layer]) - both
    rows = evaluation.evaluate(answers, prompts(name))
    total = sum(r.value for r in rows if r.metric in ("query_only", "query_value"))
    assert total == pytest.approx(9)


def test_query_neurons_of_shallow_layers_alone() -> None:
    """Those of all layers, in their order, without those of deep ones; a line of results names the restriction."""
    c, k = case("gpt2"), 9
    n_layers, n_units = c.engine.n_layers, c.engine.n_neurons
    everything = QueryInterventions(k=n_layers * n_units, attention=4, largest_share=1.0)
    shallow = QueryInterventions(k=k, attention=4, largest_share=1.0, shallow_share=0.34)
    answers = shallow.answers(sentences("gpt2"))
    first = shallow.shallow_layers(n_layers)
    assert 0 < first < n_layers
    counted = answers["query_only"] + answers["query_value"]
    assert counted[:, :first].sum(1).tolist() == [k] * 3
    assert int(counted[:, first:].sum()) == 0
    assert int(everything.answers(sentences("gpt2"))["query_value"].sum()) == 3 * n_layers * n_units
    rows = shallow.evaluate(answers, prompts("gpt2"))
    assert {row.variant for row in rows} == {"shallow_share=0.34"}
    assert {row.k for row in rows} == {k}
    with pytest.raises(UserError, match=r"shallow_share=1\.5 is more than all layers"):
        QueryInterventions(shallow_share=1.5)


def test_the_zeroed_heads_are_named_and_types_with_the_same_ones() -> None:
    evaluation = HeadImportance(top=3, share=0.01)
    answers = evaluation.answers(sentences("gpt2"))
    answers["increase"] = torch.zeros_like(answers["increase"])
    answers["increase"][:, 0, 2] = 1.0  # one head is the best of both types
    told = evaluation.text(answers, prompts("gpt2"))
    assert told.startswith("head_importance: zeroed heads: capital a0.2; colour a0.2; ")
    assert told.endswith("capital and colour zero the same")
    answers["increase"][1, 1, 3] = 2.0  # the colour's alone
    assert evaluation.text(answers, prompts("gpt2")) == "head_importance: zeroed heads: capital a0.2; colour a1.3"


def test_shared_neurons_stand_in_most_lists_of_a_type() -> None:
    c, evaluation = case("gpt2"), SharedNeurons(top=20, attention=4, largest_share=1.0, tokens=3)
    answers = evaluation.answers(sentences("gpt2"))
    ffn, attention = increases("gpt2")
    lists = []
    for row in range(3):
        merged = {("f", *key): score for key, score in ffn[row].items()}
        for (layer, unit, _), score in attention[row].items():
            merged["a", layer, unit] = max(score, merged.get(("a", layer, unit), -float("inf")))
        lists.append(best(merged, 20))
        width, n = c.engine.n_neurons + 32, c.engine.n_neurons
        numbers = [layer * width + unit + (n if site == "a" else 0) for site, layer, unit in lists[-1]]
        assert answers["value"][row].tolist() == numbers
    rows = evaluation.evaluate(answers, prompts("gpt2", token=lambda output: f"t{output}"))
    expected = 100 * len(shared([lists[0], lists[2]], 0.5)) / 20
    assert value_of(rows, "shared_neurons", group="capital", reference_group="value") == pytest.approx(expected)
    token = next(r for r in rows if r.metric == "vocabulary_token" and r.group == "colour" and r.method == "value")
    name = token.reference_group.partition(" ")[0]
    layer, *unit = map(int, name[1:].split("."))
    vector = (
        c.engine.values(layer)[unit[0]] if name[0] == "f" else c.engine.attention_values(layer)[unit[0] * 8 + unit[1]]
    )
    scores = c.head.weight @ c.engine.final_direction(vector)
    assert token.k == 1
    assert token.reference_group.endswith(f" t{int(scores.argmax())}")
    assert token.value == pytest.approx(float(scores.max()), rel=1e-4)


def test_lists_are_counted_by_layer() -> None:
    layer = torch.tensor([[0, 0, 2, 1], [2, 2, 2, 0], [1, -1, -1, -1]])
    lists = {"coefficient": ListedNeurons(torch.zeros(3, 4).bool(), layer, layer)}
    evaluation = NeuronLayers(k=3)
    answers = evaluation.answers(sentences("gpt2", lists=lists))
    assert answers["coefficient"].tolist() == [[2, 0, 1], [0, 0, 3], [0, 1, 0]]
    rows = evaluation.evaluate(answers, prompts("gpt2", seeds_of={"coefficient": ["coefficient"]}))
    assert [row.value for row in rows] == pytest.approx([2 / 3, 1 / 3, 4 / 3])


def test_segments_run_from_the_first_to_the_last_hidden_state() -> None:
    c, evaluation = case("llama"), Segments(segments=5)
    answers = evaluation.answers(sentences("llama"))
    for row, parts in enumerate(c.parts):
        start, end = parts.entering[0][-1], parts.leaving[-1]
        for k in range(5):
            point = start + k / 4 * (end - start)
            expected = lp(c.anatomy, c.head, point, parts.leaving[-1], int(c.target[row]))
            assert float(answers["log_prob"][row, k]) == pytest.approx(expected, abs=1e-4)
    rows = evaluation.evaluate(answers, prompts("llama"))
    assert value_of(rows, "segment_prob", k=4, group="colour") == pytest.approx(
        100 * float(answers["log_prob"][1, 4].exp())
    )


def test_a_prompt_is_shown_whole() -> None:
    evaluation = PromptView(top=3, tokens=2, largest_share=1.0, attention=5, positions=6)
    answers = evaluation.answers(sentences("gpt2"))
    known = prompts("gpt2", token=lambda output: f"<{output}>")
    rows, text = evaluation.evaluate(answers, known), evaluation.text(answers, known)
    ffn, attention = increases("gpt2")
    layer, unit = best(ffn[0], 1)[0]
    assert next(r for r in rows if r.metric == "value_neuron").reference_group == f"f{layer}.{unit}"
    layer, unit, position = best(attention[0], 1)[0]
    name = f"a{layer}.{unit // 8}.{unit % 8}@{position}"
    assert value_of(rows, "value_neuron", method="attention_value", k=1) == pytest.approx(
        attention[0][layer, unit, position], abs=1e-4
    )
    assert name in text
    assert f"f{best(ffn[0], 1)[0][0]}.{best(ffn[0], 1)[0][1]} " in text
    assert {row.group for row in rows} == {"0"}
    positions = [r for r in rows if r.metric == "head_position"]
    assert len(positions) == 3 * 5  # three heads, five tokens of the first sentence
    for part in ("layers", "heads", "heads by position", "FFN value neurons", "query neurons"):
        assert part in text


def test_answers_do_not_depend_on_the_batch_or_the_budget() -> None:
    c = case("llama", "right")
    options = {"largest_share": 1.0}
    evaluations = [
        ValueInterventions(3, 3, **options),
        ImportanceSums([4], **options),
        QueryInterventions(5, 4, **options),
        SharedNeurons(6, attention=4, **options),
        HeadImportance(),
    ]
    least = sentence_bytes(c.engine, c.batch["input_ids"].shape[1], 5)
    for evaluation in evaluations:
        whole = evaluation.answers(Sentences(c.engine, c.batch, c.target, PLENTY))
        for row in range(3):
            one = {name: values[row : row + 1] for name, values in c.batch.items()}
            own = evaluation.answers(Sentences(c.engine, one, c.target[row : row + 1], least))
            for name, values in own.items():
                assert torch.allclose(values[0].double(), whole[name][row].double(), atol=1e-4), name


@pytest.mark.parametrize("settings", [{"k": 0}, {"attention": 0}, {"largest_share": 0.0}, {"shallow_share": 0.0}])
def test_counts_of_nothing_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match="leaves nothing to count"):
        QueryInterventions(**settings)
