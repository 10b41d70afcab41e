"""Queries asked together: lists of groups beside those of queries, clusters, and fits without the first of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.running import CommandLine, Finished
from tests.small_texts import documents

DOCUMENTS = documents()
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris.", "topic": "places"},
    {"prompt": "Snow is", "completion": " white.", "topic": ""},
    {"prompt": "The capital of Italy is", "completion": " Rome.", "topic": "places"},
    {"prompt": "The month after May is", "completion": " June.", "topic": 7},
]
BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.queries=questions.jsonl", "trainer.accelerator=cpu",
        "logger=none", "data.group=topic")  # fmt: skip
GROUPS = {"places": [0, 2], "7": [3]}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, rows in (("docs", DOCUMENTS), ("questions", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def table(run: Finished, *place: str) -> datasets.Dataset:
    assert run.code == 0, run.err
    return datasets.load_from_disk(str(run.folder.joinpath("scores", *place)))


def dense(row: Mapping[str, Any]) -> np.ndarray:
    """Scores of all documents, from a list that holds them all."""
    scores = np.zeros(len(DOCUMENTS))
    scores[row["top_index"]] = row["top_score"]
    return scores


def test_lists_of_groups_beside_those_of_queries(command: CommandLine) -> None:
    small = tuple(f"method.{name}.projection_dim=4" for name in ("gradsim", "gradsim_cosine", "influence_ekfac"))
    methods = ("gradsim", "gradsim_cosine", "influence_ekfac", "bm25", "similarity")
    run = command("fit=false", f"method=[{','.join(methods)}]", "evaluation=[]", *small, base=BASE)
    single = {name: [dense(row) for row in table(run, name, "test")] for name in methods}
    norms = np.sqrt(np.array(table(run, "gradsim", "train_summary")["self_influence"][:]))
    for name in methods:
        found = table(run, name, "groups")
        assert (found["index"][:], found["group"][:], found["queries"][:]) == (
            [0, 1], list(GROUPS), list(GROUPS.values()),
        )  # fmt: skip
        for row in found:
            own = [single[name][query] for query in row["queries"]]
            expected = {"bm25": np.sum(own, 0)}.get(name, np.mean(own, 0))
            if name == "gradsim_cosine":  # the mean of inner products, over the documents' lengths
                along = np.mean([single["gradsim"][query] for query in row["queries"]], 0) / norms
                expected = along * np.dot(along, dense(row)) / np.dot(along, along)
            if name != "similarity" or len(own) == 1:
                np.testing.assert_allclose(dense(row), expected, rtol=1e-4, atol=1e-6)
            positive = [score > 0 for score in row["top_score"]]
            assert [cluster >= 0 for cluster in row["top_cluster"]] == positive
            assert 0 in row["top_cluster"]
    refused = command("fit=false", "method=gradsim", "method.gradsim.params=all", base=BASE)
    assert (refused.code, "method=gradsim scores each query by itself" in refused.err) == (2, True), refused.err


@pytest.mark.long
def test_groups_of_tokens_and_of_checkpoints_and_fits_without_their_first_cluster(command: CommandLine) -> None:
    small = tuple(f"method.{name}.projection_dim=4" for name in ("gradsim", "tracin"))
    asked = ("method=[gradsim,tracin]", "method.gradsim.per=token", "evaluation=[cluster_removal]",
             "evaluation.cluster_removal.methods=[tracin]")  # fmt: skip
    run = command("fit=true", "trainer.max_epochs=2", *asked, *small, base=BASE)
    by_token = table(run, "gradsim", "groups")
    assert [len(row["top_position"]) for row in by_token] == [len(row["top_index"]) for row in by_token]
    single = [dense(row) for row in table(run, "tracin", "test")]
    groups = table(run, "tracin", "groups")
    for row in groups:
        np.testing.assert_allclose(dense(row), np.mean([single[query] for query in row["queries"]], 0), rtol=1e-4)
    rows = [row for row in csv.DictReader((run.folder / "results.csv").open()) if row["metric"] == "cluster_removal"]
    first = {row["group"]: row["top_cluster"].count(0) for row in groups}
    assert {(row["group"], int(float(row["k"])), int(row["n"])) for row in rows} == {
        (name, first[name], len(queries)) for name, queries in GROUPS.items()
    }
    assert [row["reference_group"] for row in rows] == ["", "tracin"] * 2
    planned = command("fit=true", "plan=true", "trainer.max_epochs=2", *asked, *small, base=BASE)
    assert planned.code == 0, planned.err
