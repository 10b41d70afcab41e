"""Multiple choice through a whole run: every kind of method, every evaluation that applies."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest

from tests.running import SMALLER_MODEL, CommandLine

METHODS = "method=[ig,gradsim,influence,na_instances,gradsim_neurons,tracin,similarity,bm25,random_instances]"
EVALUATIONS = "evaluation=[accuracy,faithfulness,uniqueness,retraining,overlap,diversity,concepts]"
QUESTIONS = (
    "data=demo_choice",
    *SMALLER_MODEL,
    "evaluation.retraining.fractions=[50]",
    "evaluation.retraining.seeds=[0]",
    "evaluation.retraining.groups=[most,random]",
    "method.ig.n_steps=2",
    "method.na_instances.missing=-inf",
)
METRICS = {
    "accuracy": {"accuracy", "macro_f1"},
    "faithfulness": {"sufficiency", "comprehensiveness", "sufficiency_drop", "comprehensiveness_flips"},
    "uniqueness": {"unique_instances"},
    "retraining": {"accuracy", "preserved"},
    "overlap": {"instance_overlap", "instance_overlap_per_test", "only_na", "only_ia", "common"},
    "diversity": {"cosine_similarity", "loss", "vocabulary", "input_length"},
    "concepts": {"concept_coverage", "concepts_train", "concepts_test", "concepts_retrieved"},
}


@pytest.mark.long
def test_every_method_and_evaluation(command: CommandLine) -> None:
    run = command(METHODS, EVALUATIONS, *QUESTIONS)
    assert run.code == 0, run.err
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    for evaluation, metrics in METRICS.items():
        found = {row["metric"] for row in rows if row["evaluation"] == evaluation}
        assert metrics <= found, evaluation
    assert all(row["data"] == "demo_choice" for row in rows)

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((run.folder / "metrics.json").read_text(), parse_constant=refused)
    examples = datasets.load_from_disk(str(run.folder / "examples" / "test"))
    assert set(examples["readout"]) == {"choice"}
    assert all(len(row["prob"]) == len(row["input_ids"]) == len(row["choices"]) for row in examples)
    again = command(METHODS, EVALUATIONS, *QUESTIONS)
    assert ": computed" not in again.out
    assert (again.folder / "results.csv").read_text() == (run.folder / "results.csv").read_text()


def test_retraining_needs_the_runs_own_fit(command: CommandLine, trained: Path) -> None:
    run = command(
        "fit=false", "model=local", f"model.path={trained / 'model'}", "method=gradsim", "evaluation=retraining"
    )
    assert run.code == 0, run.err
    assert "retraining: skipped: needs" in run.out
