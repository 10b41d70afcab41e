"""Places of a query's own documents in its list, against a loop."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.evidence import Evidence
from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.marks import Marks

WORDS = ["a", "", "b", "a", "c", "b", "a", ""]


def drawn(seeds: int, tests: list[str], kinds: list[str], k: int) -> InstanceLists:
    generator = torch.Generator().manual_seed(1)
    top = torch.stack(
        [torch.stack([torch.randperm(len(WORDS), generator=generator)[:k] for _ in tests]) for _ in range(seeds)]
    )
    return InstanceLists(torch.arange(len(tests)), top, torch.zeros(top.shape), k, marks=Marks.of(WORDS, tests, kinds))


def test_places_equal_a_loop() -> None:
    asked, kinds = ["a", "b", "z", "c", "", "a"], ["x", "x", "x", "y", "y", "y"]
    lists = drawn(2, asked, kinds, k=6)
    found = {(row.metric, row.group): row for row in Evidence(first=4, several=2).evaluate(lists)}
    for group in ("", "x", "y"):
        chosen = [test for test in range(6) if asked[test] in ("a", "b", "c") and group in ("", kinds[test])]
        sums = dict.fromkeys(("mrr", "first", "recall", "several"), 0.0)
        for test in chosen:
            for seed in range(2):
                hits = [WORDS[row] == asked[test] for row in lists.top_index[seed, test].tolist()]
                own = WORDS.count(asked[test])
                sums["mrr"] += (1 / (hits.index(True) + 1) if any(hits) else 0) / 2
                sums["first"] += hits[0] / 2
                sums["recall"] += sum(hits[:4]) / own / 2
                sums["several"] += (sum(hits[:4]) >= min(2, own)) / 2
        for metric, total in sums.items():
            row = found[f"evidence_{metric}", group]
            assert (row.value, row.n) == (pytest.approx(total / len(chosen)), len(chosen)), (metric, group)
    assert found["evidence_several", ""].variant == "several=2"
    assert found["evidence_first", "x"].samples is not None


def test_one_type_of_queries_is_no_group() -> None:
    rows = Evidence(first=2, several=1).evaluate(drawn(1, ["a", "b"], ["x", "x"], k=3))
    assert [row.group for row in rows] == [""] * 4


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="no query with a document"):
        Evidence().evaluate(drawn(1, ["z"], ["x"], k=3))
    with pytest.raises(UserError, match=r"first=2 with several=3"):
        Evidence(first=2)
    with pytest.raises(UserError, match=r"method.bm25.top_k=5 keeps fewer"):
        Evidence().require_length("bm25", 5)
