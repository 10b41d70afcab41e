from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_evaluation as oracles
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.overlap import ComparedInstances, ComparedNeurons, Overlap, compare_lists


def instances(seeds: int, start: int) -> ComparedInstances:
    """Random rankings of 30 train rows and lists of 10 for 4 tests."""
    generator = torch.Generator().manual_seed(start)
    rankings = torch.stack([torch.randperm(30, generator=generator) for _ in range(seeds)])
    lists = torch.stack(
        [torch.stack([torch.randperm(30, generator=generator)[:10] for _ in range(4)]) for _ in range(seeds)]
    )
    return ComparedInstances(rankings, lists)


def test_instances_equal_a_naive_loop_over_seeds_and_tests():
    a, b = instances(1, 0), instances(3, 1)
    results = Overlap(fractions=(10, 50), top=(1, 5, 10, 11)).evaluate({"a": a, "b": b}, {}, {})
    of_rankings = {r.k: r for r in results if r.metric == "instance_overlap"}
    assert set(of_rankings) == {10, 50}
    for percent, size in ((10, 3), (50, 15)):
        runs = [oracles.overlap_of_sets(a.rankings[0, :size].tolist(), b.rankings[s, :size].tolist()) for s in range(3)]
        result = of_rankings[percent]
        assert (result.value, result.stderr) == pytest.approx(oracles.mean_and_error(runs))
        assert (result.method, result.reference_group, result.n) == ("a", "b", size)
    of_tests = {r.k: r for r in results if r.metric == "instance_overlap_per_test"}
    assert set(of_tests) == {1, 5, 10}  # no list has eleven entries
    for k, result in of_tests.items():
        shares = [
            sum(
                oracles.overlap_of_sets(a.lists[0, t, : int(k)].tolist(), b.lists[s, t, : int(k)].tolist())
                for s in range(3)
            )
            / 3
            for t in range(4)
        ]
        assert (result.value, result.stderr) == pytest.approx(oracles.mean_and_error(shares))


def test_every_pair_of_methods_once():
    given_methods = {name: instances(1, n) for n, name in enumerate("abc")}
    results = Overlap(fractions=(10,), top=(), rank_by="votes").evaluate(given_methods, {}, {})
    assert [(r.method, r.reference_group) for r in results] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {r.variant for r in results} == {"rank_by=votes"}


def neurons(seeds: int, start: int, shortest: int = 0) -> ComparedNeurons:
    """Lists of 6 out of 3 layers of 4 neurons, with repeats, some ended early."""
    generator = torch.Generator().manual_seed(start)
    layer = torch.randint(3, (seeds, 5, 6), generator=generator, dtype=torch.int32)
    unit = torch.randint(4, (seeds, 5, 6), generator=generator, dtype=torch.int32)
    ends = torch.randint(shortest, 7, (seeds, 5, 1), generator=generator)
    ended = torch.arange(6) >= ends
    return ComparedNeurons(layer.masked_fill(ended, -1), unit.masked_fill(ended, -1))


@pytest.mark.parametrize("seeds", [1, 3])
def test_neurons_equal_a_naive_loop(seeds):
    na, ia = neurons(seeds, 5, 1), neurons(1, 6)
    results = Overlap(neurons=(1, 3, 6, 7)).evaluate({}, {"ig": na}, {"gradsim_neurons": ia})
    assert {r.k for r in results} == {1, 3, 6}
    for n in (1, 3, 6):
        shares = []
        for test in range(5):
            runs = [
                oracles.union_shares(
                    list(zip(na.layer[s, test, :n].tolist(), na.unit[s, test, :n].tolist(), strict=True)),
                    list(zip(ia.layer[0, test, :n].tolist(), ia.unit[0, test, :n].tolist(), strict=True)),
                )
                for s in range(seeds)
            ]
            shares.append([sum(run[part] for run in runs) / seeds for part in range(3)])
        for part, metric in enumerate(("only_na", "only_ia", "common")):
            (result,) = [r for r in results if (r.metric, r.k) == (metric, n)]
            assert (result.value, result.stderr) == pytest.approx(oracles.mean_and_error([s[part] for s in shares]))
            assert (result.method, result.reference_group) == ("gradsim_neurons", "ig")


def test_examples_without_any_neuron_do_not_count():
    nothing = ComparedNeurons(torch.full((1, 2, 1), -1), torch.full((1, 2, 1), -1))
    one = ComparedNeurons(torch.tensor([[[0], [-1]]]), torch.tensor([[[3], [-1]]]))
    results = Overlap(neurons=(1,)).evaluate({}, {"ig": one}, {"x": nothing})
    assert {r.metric: (r.value, r.n) for r in results} == {"only_na": (100, 1), "only_ia": (0, 1), "common": (0, 1)}
    assert Overlap(neurons=(1,)).evaluate({}, {"ig": nothing}, {"x": nothing}) == []


entries = st.lists(st.integers(-1, 6), min_size=1, max_size=8)


@given(entries, entries)
def test_comparing_lists_is_comparing_sets(first, second):
    found = compare_lists(torch.tensor([first]), torch.tensor([second]))
    a, b = ({entry for entry in given_list if entry >= 0} for given_list in (first, second))
    assert (found.only_first.item(), found.only_second.item(), found.common.item()) == (
        len(a - b),
        len(b - a),
        len(a & b),
    )


def test_what_it_needs():
    assert "two instance methods" in Overlap().missing(Available(instance=("gradsim",), neuron=("ig",)))
    assert Overlap().missing(Available(neuron=("ig",), ia_neurons=("gradsim_neurons",))) == ""
    assert Overlap().missing(Available(instance=("gradsim", "influence"))) == ""
    with pytest.raises(UserError, match="expected fractions"):
        Overlap(top=(0,))
