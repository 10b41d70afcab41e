"""Certificates on the command line: what was realised is computed once more with plain transformers."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.running import SMALLER_MODEL, CommandLine
from twinlens.callbacks.results.unified_tables import unified_tables

ASKED = (
    "method=[gradsim,ig]", "evaluation=certificate", "evaluation.certificate.level=0.5",
    "evaluation.certificate.removed=3", *SMALLER_MODEL,
)  # fmt: skip


def plain_log_probs(run: Path, n: int) -> torch.Tensor:
    """Log-probability of what is explained, as it is and with the first n neurons at zero, [2, tests]."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    examples = datasets.load_from_disk(str(run / "examples" / "test"))
    lists = datasets.load_from_disk(str(run / "scores" / "ig" / "test"))
    found = []
    for example, row in zip(examples, lists, strict=True):
        ids = torch.tensor([example["input_ids"]])
        both = []
        for listed in (0, n):
            handles = []
            for layer, block in enumerate(model.gpt_neox.layers):
                units = [u for at, u in zip(row["layer"][:listed], row["unit"][:listed], strict=True) if at == layer]

                def off(module: torch.nn.Module, args: tuple, units: list[int] = units) -> tuple:
                    changed = args[0].clone()
                    changed[:, -1, units] = 0
                    return (changed,)

                handles.append(block.mlp.dense_4h_to_h.register_forward_pre_hook(off))
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            both.append(float(logits.double().log_softmax(-1)[row["target"]]))
            for handle in handles:
                handle.remove()
        found.append(both)
    return torch.tensor(found).T


def test_certificates_of_a_run(command: CommandLine) -> None:
    done = command(*ASKED, "evaluation.certificate.retrained=4")
    assert done.code == 0, done.err
    lines = list(csv.DictReader((done.folder / "certificate_examples.csv").open()))
    assert len(lines) == 4 * 12 + 4 * 4  # parts of all tests, and of those that the model was trained anew for
    realised = {(line["truth"], line["part"], int(line["index"])): float(line["realised"]) for line in lines}
    tests = sorted({index for truth, _, index in realised if truth == "retrained"})
    before, after = plain_log_probs(done.folder, 10)
    for test in tests:  # seed 0 is the run's own: all rows give the explained model once more
        change = float(after[test] - before[test])
        assert realised["retrained", "neurons", test] == pytest.approx(change, abs=1e-4)
        of_sum = realised["retrained", "instances", test] + realised["retrained", "neurons", test]
        assert realised["retrained", "sum", test] == pytest.approx(of_sum, abs=1e-4)
    for line in lines:
        inside = float(line["low"]) <= float(line["realised"]) <= float(line["high"])
        assert inside == (line["holds"] == "true")
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    for truth, count in (("refit", 12), ("retrained", 4)):
        share = sum(line["holds"] == "true" for line in lines if line["truth"] == truth and line["part"] == "joint")
        [row] = [
            row
            for row in rows
            if (row["metric"], row["group"], row["reference_group"]) == ("certificate_coverage", "joint", truth)
        ]
        assert float(row["value"]) == pytest.approx(100 * share / count)
    assert done.out.count("certificate: fit on 45 train rows, seed 0: computed") == 4

    planned = command("plan=true", *ASKED, "evaluation.certificate.retrained=4")
    assert planned.code == 0, planned.err
    [line] = [line for line in planned.out.splitlines() if line.startswith("certificate ")]
    assert " yes " in line
    assert "certificate, fits" in planned.out


def test_what_cannot_be_certified_is_skipped_or_refused(command: CommandLine, trained: Path) -> None:
    given = command(
        "fit=false", "model=local", f"model.path={trained / 'model'}", "method=[gradsim,ig]",
        "evaluation=certificate", "evaluation.certificate.retrained=12",
    )  # fmt: skip
    assert given.code == 0, given.err
    assert "certificate: skipped: needs a model that this run trains (fit=true)" in given.out
    few = command("fit=false", "model=local", f"model.path={trained / 'model'}", "method=[gradsim,ig]",
                  "evaluation=certificate")  # fmt: skip
    assert "certificate: skipped: needs 18 explained examples" in few.out


def test_the_table_has_a_line_for_each_part() -> None:
    said = {"method": "influence+ig", "k": 10, "reference_group": "refit", "model": "tiny", "data": "demo"}
    rows = [
        {**said, "evaluation": "certificate", "metric": metric, "group": part, "value": value}
        for part, coverage, width in (("sum", 90.0, 0.2), ("joint", 91.0, 0.3))
        for metric, value in (("certificate_coverage", coverage), ("certificate_width", width))
    ]
    [table] = unified_tables(rows)
    assert table.name == "certificate"
    assert [line[1] for line in table.lines] == ["sum", "joint"]
    assert [line[-2:] for line in table.lines] == [[90.0, 0.2], [91.0, 0.3]]
