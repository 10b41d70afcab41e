"""Ground truth on the command line: fits that are stored with their log-probabilities, head refits, removals."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests import oracles_truth as oracles
from tests.running import SMALLER_MODEL, CommandLine
from twinlens.attribution.evaluation.ground_truth import damping as damping_choice
from twinlens.attribution.evaluation.train_ranking import random_ranking
from twinlens.attribution.instance.bm25 import BM25
from twinlens.callbacks.evaluate import damping as damping_stage
from twinlens.callbacks.evaluate.ground_truth import StoredScores
from twinlens.callbacks.passes.explain import Explain

N_TRAIN = 48
ASKED = (
    "method=[gradsim,random_instances]",
    "method.gradsim.top_k=24",
    "method.random_instances.top_k=24",
    *SMALLER_MODEL,
)
FEW = ("evaluation.lds.subsets=5", "evaluation.removal.tests=1", "evaluation.removal.removed=[2]")


def stored_scores(run: Path) -> torch.Tensor:
    """The method's scores of all train rows, put together from both ends of its lists by a loop."""
    return scores_in(datasets.load_from_disk(str(run / "scores" / "gradsim" / "test")))


def scores_in(rows: datasets.Dataset) -> torch.Tensor:
    """The scores of all train rows in stored lists, [tests, n_train]."""
    found = torch.full((len(rows), N_TRAIN), torch.nan, dtype=torch.float64)
    for test, row in enumerate(rows):
        for end in ("top", "bottom"):
            for train, score in zip(row[f"{end}_index"], row[f"{end}_score"], strict=True):
                found[test, train] = score
    return found


def test_retrained_and_refitted_truth_in_one_run(command: CommandLine) -> None:
    done = command(*ASKED, *FEW, "evaluation=[lds,loo,removal]", "explain_against=runner_up")
    assert done.code == 0, done.err
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    found = {(row["metric"], row["method"], row["group"]): float(row["value"]) for row in rows}
    assert {metric for metric, *_ in found} == {"lds", "loo_pearson", "loo_spearman", "removal", "removal_predicted"}
    assert {method for metric, method, _ in found if metric == "removal"} == {"gradsim", "random_instances"}

    manifests = (command.folder / "outputs" / "store" / "retrain").glob("*/manifest.json")
    cells = [file.parent for file in sorted(manifests, key=lambda file: file.stat().st_mtime_ns)]
    assert len(cells) == 5 + 1 + 4  # subsets, all rows, two removals and their controls
    examples = datasets.load_from_disk(str(done.folder / "examples" / "test"))
    target, other = torch.tensor(examples["prob"][:]).topk(2, 1).indices.T
    tests, measured = torch.arange(len(examples)), []
    for cell in cells[:5]:
        outputs = load_file(cell / "predictions.safetensors")
        assert torch.equal(outputs["log_prob"].argmax(1), outputs["prediction"])
        log_prob = outputs["log_prob"].double()
        measured.append(log_prob[tests, target] - log_prob[tests, other])
    subsets = [random_ranking(N_TRAIN, draw)[:24].tolist() for draw in range(5)]
    expected = oracles.lds(stored_scores(done.folder), subsets, torch.stack(measured, 1))
    assert found["lds", "gradsim", ""] == pytest.approx(expected, abs=1e-6)

    again = command(*ASKED, FEW[0], "evaluation=lds")  # another question, the same fits
    assert again.out.count("lds: fit on 24 train rows, seed 0: read from the store") == 5


def test_what_cannot_be_measured_is_said_before_the_fit(command: CommandLine, trained: Path) -> None:
    short = command("method=gradsim", "method.gradsim.top_k=10", "evaluation=lds")
    assert short.code == 2
    assert "evaluation=lds reads the scores of all 48 train rows" in short.err
    assert "method.gradsim.top_k=24" in short.err
    assert "fit: " not in short.out
    removed = command(
        "method=gradsim", "method.gradsim.top_k=10", "evaluation=removal", "evaluation.removal.removed=[11]"
    )
    assert removed.code == 2
    assert "raise method.gradsim.top_k" in removed.err
    given = command(
        "fit=false", "model=local", f"model.path={trained / 'model'}", "method=gradsim", "evaluation=[lds,removal]",
        "method.gradsim.top_k=24",
    )  # fmt: skip
    assert given.code == 0, given.err
    for name in ("lds", "removal"):
        assert f"{name}: skipped: needs a model that this run trains (fit=true)" in given.out


def test_a_plan_counts_the_fits(command: CommandLine) -> None:
    planned = command("plan=true", *ASKED, *FEW, "evaluation=[lds,removal]")
    assert planned.code == 0, planned.err
    assert planned.out.count("5 fits") == 2  # five subsets; all rows, two removals and two controls


def test_neuron_methods_against_ablation(command: CommandLine) -> None:
    names = ("ablation", "ig", "atp", "ig_joint", "relp", "random_neurons")
    lists = [f"method.{name}.top_k=128" for name in names]
    asked = (f"method=[{','.join(names)}]", "evaluation=neuron_truth", *SMALLER_MODEL)
    same = [f"method.{name}.reference_size=5" for name in ("ablation", "atp")]
    means = [f"method.{name}.intervention=mean" for name in ("ablation", "atp")]
    done = command(*asked, *lists, *means, *same)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    found = {(row["metric"], row["method"], row["group"]): float(row["value"]) for row in rows}
    stored = {}
    for name, folder in (("ig", "ig"), ("ablation", "ablation")):
        stored[name] = datasets.load_from_disk(str(done.folder / "scores" / folder / "test"))
        assert not (done.folder / "scores" / folder / "reference").exists()
    each = []
    for own, true in zip(stored["ig"], stored["ablation"], strict=True):
        sides = []
        for row in (own, true):
            places = dict(zip(zip(row["layer"], row["unit"], strict=True), row["score"], strict=True))
            assert len(places) == 128
            sides.append([places[place] for place in sorted(places)])
        each.append(oracles.pearson(*sides))
    assert found["neuron_pearson", "ig", ""] == pytest.approx(sum(each) / len(each), abs=1e-6)
    assert {group for _, _, group in found} == {"", "layer=0", "layer=1"}
    assert {method for _, method, _ in found} == {*names} - {"ablation"}
    assert found["neuron_pearson", "atp", ""] > 0.95  # an estimate of the same replacement
    short = command(*asked, *lists[1:], "method.ablation.top_k=100")
    assert short.code == 2
    assert "all 128 neurons" in short.err


def test_shuffled_weights_and_one_more_step(command: CommandLine) -> None:
    asked = ("evaluation.tail_patch.tests=3", "evaluation.tail_patch.first=[2]", "evaluation.tail_patch.step=0.1")
    done = command(*ASKED, "evaluation=[randomised,tail_patch,cost]", *asked)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    found = {(row["metric"], row["method"], row["group"]): float(row["value"]) for row in rows}
    of_shuffled = {key for key in found if key[0] == "randomised_spearman"}
    assert of_shuffled == {("randomised_spearman", "gradsim", group) for group in ("", "within_label")}
    before, after = stored_scores(done.folder), stored_scores(done.folder / "randomised" / "seed0")
    assert not torch.equal(before, after)
    each = [oracles.spearman(x, y) for x, y in zip(before.tolist(), after.tolist(), strict=True)]
    assert found["randomised_spearman", "gradsim", ""] == pytest.approx(sum(each) / len(each), abs=1e-6)

    chosen = random_ranking(len(before), 0)[:3].tolist()
    rises = [rise_after_a_step(done.folder, test, before[test].sort(descending=True).indices[:2]) for test in chosen]
    assert found["tail_patch", "gradsim", ""] == pytest.approx(sum(rises) / 3, abs=1e-5)
    assert abs(sum(rises)) > 1e-3
    assert {row["reference_group"] for row in rows if row["metric"] == "tail_patch"} == {"", "gradsim"}
    assert found["processor_seconds", "gradsim", "instance"] > 0


def rise_after_a_step(run: Path, test: int, rows: torch.Tensor) -> float:
    """φ after a step on train rows less φ before, by transformers' own model and optimiser."""
    model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    examples = {split: datasets.load_from_disk(str(run / "examples" / split)) for split in ("train", "test")}
    target = int(torch.tensor(examples["test"]["prob"][test]).argmax())

    def scores(split: str, row: int) -> torch.Tensor:
        return model(torch.tensor([examples[split]["input_ids"][row]])).logits[0].log_softmax(-1)

    optimiser, phi = torch.optim.SGD(model.parameters(), lr=0.1), float(scores("test", test)[target])
    losses = [-scores("train", row)[examples["train"]["label"][row]] for row in rows.tolist()]
    (sum(losses) / len(losses)).backward()
    optimiser.step()
    return float(scores("test", test)[target]) - phi


def test_a_damping_is_chosen_on_halves_and_examples_that_nothing_reports_on(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (damping_choice, damping_stage):
        monkeypatch.setattr(module, "HALVES", 6)
    monkeypatch.setattr(damping_stage, "GRID", (0.1, 10.0))
    asked = ("method=influence", "method.influence.damping=auto", "data.limit.validation=10", *SMALLER_MODEL)
    done = command(*asked, "evaluation=duplicates")
    assert done.code == 0, done.err
    said = yaml.safe_load((done.folder / "scores" / "influence" / "method.yaml").read_text())

    manifests = (command.folder / "outputs" / "store" / "retrain").glob("*/manifest.json")
    cells = [file.parent for file in sorted(manifests, key=lambda file: file.stat().st_mtime_ns)]
    assert len(cells) == 6
    examples = datasets.load_from_disk(str(done.folder / "damping" / "examples" / "validation"))
    target = torch.tensor(examples["prob"][:]).argmax(1)
    measured = torch.stack(
        [load_file(cell / "predictions.safetensors")["log_prob"].double()[torch.arange(10), target] for cell in cells],
        1,
    )
    subsets = [random_ranking(N_TRAIN, damping_choice.FIRST_DRAW + draw)[:24].tolist() for draw in range(6)]
    agreement = {}
    for value in (0.1, 10.0):
        lists = datasets.load_from_disk(
            str(done.folder / "damping" / f"{value:g}" / "scores" / "influence" / "validation")
        )
        scores = scores_in(lists)
        of_seeds = [oracles.lds(scores, subsets[seed::2], measured[:, seed::2]) for seed in range(2)]
        agreement[value] = sum(of_seeds) / 2
    best = max(agreement, key=lambda value: agreement[value])
    assert said["damping"] == best
    assert said["damping_auto"] == (
        "chosen by LDS over 6 random halves on 10 validation examples: "
        + ", ".join(f"{value:g}: {found:.3f}" for value, found in agreement.items())
    )
    assert f"influence: damping: auto → {best:g}" in done.out
    assert {row["setting"] for row in csv.DictReader((done.folder / "results.csv").open())} == {"damping=auto"}


def test_rows_that_both_ends_leave_out_are_tied(tmp_path: Path) -> None:
    """Lists of half the split, of which both ends take the lower rows where scores are equal."""
    scores = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0, 2.0, -1.0]])
    best = scores.sort(dim=1, descending=True, stable=True)
    worst = scores.sort(dim=1, stable=True)
    lists = {
        "index": [0, 1],
        "top_index": best.indices[:, :3].tolist(), "top_score": best.values[:, :3].tolist(),
        "bottom_index": worst.indices[:, :3].tolist(), "bottom_score": worst.values[:, :3].tolist(),
    }  # fmt: skip
    datasets.Dataset.from_dict(lists).save_to_disk(str(tmp_path / "test"))
    session: Any = SimpleNamespace(
        scores={("bm25", "test"): tmp_path}, split="test", explain=Explain(),
        predictions={"test": SimpleNamespace(dataset=range(2))},
    )  # fmt: skip
    stored = StoredScores(session, "bm25", BM25(top_k=3), n_train=6)
    assert torch.equal(stored.dense(0, 0, 2), scores)
    assert torch.equal(stored.dense(0, 1, 2), scores[1:])
    assert stored.first(0, 2)[0].tolist() == [[0, 1], [2, 3]]
