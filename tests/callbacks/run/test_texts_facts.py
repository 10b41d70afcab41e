"""A language model learns invented facts from stories, and methods name the documents that told them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.running import CommandLine
from twinlens.data.invented_facts import REWORDED, VERBATIM, main

SHARE = 0.9
"""Of verbatim queries whose list has to begin with a document of their own, and to have three among ten."""

TOLD = ("evidence_mrr", "evidence_recall", "tail_patch")


@pytest.mark.long
def test_planted_documents_stand_first(command: CommandLine, shared_data: Path) -> None:
    stories = shared_data / "text" / "tinystories_1000.json"
    main(["--stories", str(stories), "--output", str(command.folder / "facts"), "--sentences", "4"])
    methods = ("gradsim_cosine", "influence_ekfac", "similarity", "bm25", "random_instances")
    run = command(
        "experiment=texts/facts", f"model.path={shared_data / 'stories260k' / 'hf'}", "data.train=facts/docs.jsonl",
        "data.queries=facts/queries.jsonl", f"method=[{','.join(methods)}]", "~method.influence",
        "evaluation.tail_patch.tests=10", "trainer.accelerator=cpu", "logger=none", base=(),
    )  # fmt: skip
    assert run.code == 0, run.err
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    found = {(row["method"], row["metric"], row["group"]): float(row["value"]) for row in rows if not row["control"]}
    for metric in ("evidence_first", "evidence_several"):
        assert max(found[name, metric, VERBATIM] for name in ("gradsim_cosine", "influence_ekfac")) >= SHARE, metric
    chance = {row["method"] + row["metric"] + row["group"]: float(row["value"]) for row in rows if row["control"]}
    for kind in (VERBATIM, REWORDED):
        drawn = chance["random_instances" + "evidence_mrr" + kind]
        assert found["influence_ekfac", "evidence_mrr", kind] > 5 * drawn
        for name in methods[:-1]:
            assert {(name, metric, kind) for metric in TOLD} <= found.keys()
    assert found["influence_ekfac", "tail_patch", ""] > chance["random_instancestail_patch"]
