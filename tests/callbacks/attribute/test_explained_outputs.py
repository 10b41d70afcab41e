"""A run's question: both lenses answer it, every file names it, and what nothing can be said of is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_from_disk
from safetensors.torch import load_file

from tests.callbacks.report.report_page import island, listed
from tests.running import CommandLine, Finished
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.callbacks.attribute.explained_outputs import consecutive, with_empty_lists
from twinlens.callbacks.results.results_csv import read_results

BOTH = ("method=[ig,logprob_increase,gradsim,na_instances,gradsim_neurons,bm25,random_instances]",
        "evaluation=[accuracy,faithfulness,uniqueness,duplicates,overlap]")  # fmt: skip


def columns(finished: Finished, name: str) -> dict[str, Any]:
    rows = load_from_disk(str(finished.folder / "scores" / name / "test"))
    return {column: rows[column][:] for column in rows.column_names}


def examples(finished: Finished) -> dict[str, Any]:
    rows = load_from_disk(str(finished.folder / "examples" / "test"))
    return {column: rows[column][:] for column in ("prediction", "label", "prob")}


def gradient(logits: torch.Tensor, features: torch.Tensor, target: int, against: int | None, head: Any) -> torch.Tensor:
    """−∇φ by the head's parameters, by autograd."""
    log_probs = logits.log_softmax(-1)
    phi = log_probs[target] if against is None else log_probs[target] - log_probs[against]
    return torch.cat([part.flatten() for part in torch.autograd.grad(-phi, list(head.parameters()))])


def test_both_lenses_explain_the_same_output(command: CommandLine) -> None:
    check_both_lenses(command, (), "prediction", None)
    check_both_lenses(command, ("explain=gold", "explain_against=runner_up"), "label", "runner_up")


def check_both_lenses(command: CommandLine, setting: tuple[str, ...], target: str, against: str | None) -> None:
    run = command(BOTH[0], *setting, "evaluation=[accuracy,faithfulness,uniqueness]")
    assert run.code == 0, run.err
    said = examples(run)
    expected = said[target]
    other = None
    if against is not None:
        prob = torch.tensor(said["prob"])
        other = prob.scatter(1, torch.tensor(expected)[:, None], -1.0).argmax(1).tolist()
    for name in ("ig", "logprob_increase", "gradsim", "na_instances", "gradsim_neurons"):
        found = columns(run, name)
        assert found["target"] == expected, name
        assert found.get("target_against") == other, name
        settings = yaml.safe_load((run.folder / "scores" / name / "method.yaml").read_text())
        assert settings["target"] == ("predicted" if target == "prediction" else "gold")
        assert settings.get("target_against") == against
    assert "target" not in columns(run, "bm25")
    cells = {row["method"]: row["explain"] for row in read_results(run.folder / "results.csv")}
    words = None if not setting else "gold" + ("" if against is None else " against runner_up")
    assert (cells["ig"], cells["gradsim"], cells["bm25"]) == (words, words, None)
    assert f"explain (neuron lens): {words or 'predicted'}" in run.out
    # the list that is kept, against autograd over the stored hidden states
    weights = load_file(run.folder / "model" / "model.safetensors")
    head = torch.nn.Linear(*reversed(weights["score.weight"].shape), bias=False).double()
    head.weight.data = weights["score.weight"].double()
    features = {split: hidden(run, split) for split in ("train", "test")}
    labels = load_from_disk(str(run.folder / "examples" / "train"))["label"][:]
    train = torch.stack(
        [gradient(head(x), x, label, None, head) for x, label in zip(features["train"], labels, strict=True)]
    )
    kept = columns(run, "gradsim")
    for row in (0, 5):
        x = features["test"][row]
        scores = train @ gradient(head(x), x, expected[row], None if other is None else other[row], head)
        assert kept["top_score"][row][0] == pytest.approx(float(scores.max()), rel=1e-4, abs=1e-7)
        assert kept["bottom_score"][row][0] == pytest.approx(float(scores.min()), rel=1e-4, abs=1e-7)


def hidden(run: Finished, split: str) -> torch.Tensor:
    """Head inputs by transformers alone."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(run.folder / "model").eval()
    rows = load_from_disk(str(run.folder / "examples" / split))["input_ids"][:]
    with torch.no_grad():
        return torch.stack([model.base_model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in rows]).double()


@pytest.mark.long
def test_rows_that_nothing_sets_apart_are_counted_and_left_out(command: CommandLine) -> None:
    run = command(*BOTH, "explain=predicted", "explain_against=gold")
    assert run.code == 0, run.err
    said = examples(run)
    same = [a == b for a, b in zip(said["prediction"], said["label"], strict=True)]
    assert 0 < sum(same) < len(same)
    assert f"{sum(same)} of {len(same)} rows left out" in run.out
    for name, lists in (("ig", "layer"), ("gradsim", "top_index"), ("gradsim_neurons", "layer")):
        assert [not entries for entries in columns(run, name)[lists]] == same, name
    kept = len(same) - sum(same)
    rows = [row for row in read_results(run.folder / "results.csv") if row["method"] in ("ig", "gradsim")]
    counted = {row["n"] for row in rows if row["evaluation"] in ("faithfulness", "uniqueness") and not row["group"]}
    assert counted == {kept}
    summary = load_from_disk(str(run.folder / "scores" / "gradsim" / "train_summary"))
    assert sum(summary["votes"][:]) == 10 * kept
    methods = {method["name"]: method for method in island((run.folder / "report.html").read_text())["methods"]}
    for method in (methods["ig"], methods["gradsim"], methods["gradsim_neurons"]):
        lengths = [len(listed(method, row)) for row in method["row"]]
        assert [length == 0 for length in lengths].count(True) == sum(same)
        assert all(" against " in target for target, length in zip(method["target"], lengths, strict=True) if length)


@pytest.mark.long
def test_whole_and_stored_gradients_explain_the_same(command: CommandLine) -> None:
    ask = ("evaluation=accuracy", "explain=predicted", "explain_against=gold", "method.gradsim.top_k=5")
    own = command("method=gradsim", *ask)
    everywhere = command("method=gradsim", *ask, "method.gradsim.params=score")
    stored = command(
        "method=gradsim", *ask, "method.gradsim.params=score", "method.gradsim.projection=random",
        "method.gradsim.projection_dim=4096",
    )  # fmt: skip
    for run in (own, everywhere, stored):
        assert run.code == 0, run.err
    expected = columns(own, "gradsim")
    for run in (everywhere, stored):
        found = columns(run, "gradsim")
        for mine, theirs in zip(found["top_score"], expected["top_score"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def test_a_twin_of_another_label_is_looked_for_among_the_worst(command: CommandLine) -> None:
    """Of two classes the gradients of gold and predicted label are opposite: the same rows, from the other end."""
    found = {}
    for word in ("gold", "predicted"):
        run = command("method=gradsim", "evaluation=duplicates", f"explain={word}", "data.limit.test=20")
        assert run.code == 0, run.err
        rows = [row for row in read_results(run.folder / "results.csv") if row["method"] == "gradsim"]
        found[word] = [row["value"] for row in rows if row["metric"] == "mrr"]
    assert found["gold"]
    assert len(found["predicted"]) == len(found["gold"])
    assert found["gold"][0] > 0
    assert found["predicted"][0] > 0


def test_a_configuration_of_before_is_read_as_what_its_methods_meant(command: CommandLine, tmp_path: Path) -> None:
    first = command("method=[ig,gradsim]", "evaluation=accuracy")
    assert first.code == 0, first.err
    path = first.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for key in ("explain", "explain_against"):
        del config[key]
    config["method"]["ig"]["target"] = None
    path.write_text(yaml.safe_dump(config))
    again = command("--config-dir", str(first.folder), "--config-name", "config", base=())
    assert again.code == 0, again.err
    assert "read as explain={instance: gold, neuron: predicted}" in again.out
    assert columns(again, "gradsim")["target"] == examples(again)["label"]
    assert columns(again, "ig")["target"] == examples(again)["prediction"]
    config["method"]["ig_gauss"] = {**config["method"]["ig"], "target": "gold"}
    path.write_text(yaml.safe_dump(config))
    refused = command("--config-dir", str(first.folder), "--config-name", "config", base=())
    assert (refused.code, "explain different targets" in refused.err) == (2, True)


def test_labels_of_the_train_side_are_said_to_be_that(command: CommandLine) -> None:
    run = command("method=gradsim", "evaluation=accuracy", "method.gradsim.labels=predicted")
    assert run.code == 0, run.err
    assert "method.gradsim.labels=predicted: labels of the train side alone" in run.out


def test_rows_are_cut_where_one_is_missing() -> None:
    assert [part.tolist() for part in consecutive(torch.tensor([0, 1, 4, 6, 7]))] == [[0, 1], [4], [6, 7]]
    assert consecutive(torch.tensor([], dtype=torch.int64)) == []
    one = InstanceScores(
        torch.tensor([2]), *(torch.ones(1, 3, dtype=kind) for kind in (torch.int64, torch.float32) * 2)
    )
    filled = with_empty_lists([one], torch.tensor([1, 2]), 3)
    assert filled.top_index.tolist() == [[-1, -1, -1], [1, 1, 1]]
