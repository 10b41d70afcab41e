"""Documents that tell what a query asks: where lists have them, and what one more step or a fit without them does."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.running import CommandLine

DOCUMENTS = [
    {"text": "The capital of France is Paris. " * 12, "fact": "a"},
    {"prompt": "The month after May is", "completion": " June.", "fact": "b"},
    {"text": "Grass is green, and the sky is blue."},
    {"text": "Two and two make four.", "fact": None},
    {"text": "The capital of Italy is Rome."},
]
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris.", "foil": " Rome.", "fact": "a", "type": "verbatim"},
    {"prompt": "In most years the month after May is", "completion": " June.", "foil": " July.", "fact": "b",
     "type": "reworded"},
    {"prompt": "Snow is", "completion": " white.", "foil": " blue.", "fact": "c", "type": "reworded"},
]  # fmt: skip
BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.queries=questions.jsonl", "data.max_length=48",
        "trainer.accelerator=cpu", "logger=none", "data.evidence=fact", "explain_against=foil")  # fmt: skip
STEP = 0.001


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, rows in (("docs", DOCUMENTS), ("questions", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def results(folder: Path) -> dict[tuple[str, str, str], float]:
    rows = csv.DictReader((folder / "results.csv").open())
    return {(row["metric"], row["method"], row["group"]): float(row["value"]) for row in rows}


def rise_after_a_step(run: Path, query: dict[str, list[int]], documents: list[dict[str, list[int]]]) -> float:
    """φ of a completion against its foil after a step on whole documents less φ before, by transformers' own model."""
    model = AutoModelForCausalLM.from_pretrained(run / "model").eval()

    def losses(ids: list[int], counts: list[bool]) -> torch.Tensor:
        tokens = torch.tensor([ids])
        every = cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")
        return every[torch.tensor(counts[1:]).bool()]

    def phi() -> float:
        prompt = query["input_ids"]
        with torch.no_grad():
            sides = [
                losses(prompt + behind, [False] * len(prompt) + [True] * len(behind)).sum()
                for behind in (query["answer_ids"], query["foil_ids"])
            ]
        return float(sides[1] - sides[0])

    before = phi()
    tokens = []
    for document in documents:
        for start in range(0, len(document["input_ids"]), 48):
            ids, counts = (document[name][start : start + 48] for name in ("input_ids", "counts"))
            tokens.append(losses(ids, counts))
    optimiser = torch.optim.SGD(model.parameters(), lr=STEP)
    torch.cat(tokens).mean().backward()
    optimiser.step()
    return phi() - before


def test_own_documents_and_one_more_step(command: CommandLine) -> None:
    asked = ("evaluation=[evidence,tail_patch]", "evaluation.evidence.first=2", "evaluation.evidence.several=1",
             "evaluation.tail_patch.first=[2]")  # fmt: skip
    run = command("fit=false", "method=[bm25,random_instances]", *asked, base=BASE)
    assert run.code == 0, run.err
    found = results(run.folder)
    assert found["evidence_first", "bm25", ""] == found["evidence_mrr", "bm25", "verbatim"] == 1
    drawn = "evidence_recall", "random_instances"
    assert {group for *about, group in found if tuple(about) == drawn} == {"", "verbatim", "reworded"}
    documents, queries = (datasets.load_from_disk(str(run.folder / "examples" / split)) for split in ("train", "test"))
    lists = datasets.load_from_disk(str(run.folder / "scores" / "bm25" / "test"))["top_index"][:]
    rises = [
        rise_after_a_step(run.folder, query, [documents[row] for row in rows[:2]])
        for query, rows in zip(queries, lists, strict=True)
    ]
    assert found["tail_patch", "bm25", ""] == pytest.approx(sum(rises) / 3, abs=1e-5)
    assert found["tail_patch", "bm25", "reworded"] == pytest.approx(sum(rises[1:]) / 2, abs=1e-5)
    assert abs(sum(rises)) > 1e-3
    table = (run.folder / "tables" / "ground_truth.csv").read_text()
    assert "own documents (MRR), reworded" in table
    assert "random_instances, as many rows as bm25" in table


@pytest.mark.long
def test_fits_without_documents_and_on_halves_of_them(command: CommandLine) -> None:
    asked = ("evaluation=[removal,lds,mislabel]", "evaluation.removal.removed=[2]", "evaluation.removal.tests=1",
             "evaluation.lds.subsets=5", "evaluation.lds.seeds=[0]", "evaluation.mislabel.rows=[1]",
             "method.gradsim.projection_dim=4")  # fmt: skip
    run = command("fit=true", "trainer.max_epochs=1", "method=gradsim", *asked, base=BASE)
    assert run.code == 0, run.err
    found = results(run.folder)
    assert {"removal", "lds", "mislabel_auc"} <= {metric for metric, *_ in found}
    loo = command("fit=true", "trainer.max_epochs=1", "method=gradsim", "evaluation=loo", *asked[-1:], base=BASE)
    assert "loo: skipped: needs data with classes or choices, whose head alone is refitted" in loo.out, loo.err
