"""Train texts at every token in a run: NA-Instances and IA-Neurons equal loops over what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml

from tests.oracles_bridge import dcns
from tests.running import CommandLine, Finished
from twinlens.callbacks.attribute.text_list_files import read_text_lists, text_table

DOCUMENTS = [
    {"text": "The capital of France is Paris. " * 6},
    {"prompt": "The month after May is", "completion": " June."},
    {"text": "Two and two make four."},
    {"text": "The capital of Italy is Rome."},
]
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris."},
    {"prompt": "The month that comes after May is", "completion": " June."},
]
BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.max_length=24", "trainer.accelerator=cpu",
        "logger=none", "data.queries=questions.jsonl", "fit=false", "evaluation=[]", "neuron_texts=0",
        "method.ig.n_steps=2")  # fmt: skip
METHODS = ("method=[ig,na_instances,gradsim_cosine,gradsim_neurons]", "method.gradsim_neurons.source=gradsim_cosine",
           "method.gradsim_cosine.projection_dim=4")  # fmt: skip


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, rows in (("docs", DOCUMENTS), ("questions", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def stored(run: Finished, name: str, split: str = "test") -> list[dict[str, Any]]:
    assert run.code == 0, run.err
    return list(datasets.load_from_disk(str(run.folder / "scores" / name / split)))


def neurons(row: dict[str, Any]) -> list[tuple[tuple[int, int], float]]:
    return list(zip(zip(row["layer"], row["unit"], strict=True), row["score"], strict=True))


def by_token(row: dict[str, Any]) -> dict[int, list[tuple[tuple[int, int], float]]]:
    """Position → its own list, best first."""
    found: dict[int, list[tuple[tuple[int, int], float]]] = {}
    for position, entry in zip(row["position"], neurons(row), strict=True):
        found.setdefault(position, []).append(entry)
    return found


def test_bridges_of_texts_equal_loops_over_their_tokens(command: CommandLine) -> None:
    run = command(*METHODS, base=BASE)
    train, test = stored(run, "ig", "train"), stored(run, "ig")
    assert "preset=paper is read as texts: method.na_instances" in run.out
    said = yaml.safe_load((run.folder / "scores" / "na_instances" / "method.yaml").read_text())
    assert (said["preset"], said["gain"], said["train_list"], said["positions"]) == ("texts", "flat", 20, "all")
    texts = datasets.load_from_disk(str(run.folder / "examples" / "train"))
    for row, text in zip(train, texts, strict=True):
        counted = [at - 1 for at, counts in enumerate(text["counts"]) if counts]
        assert sorted(by_token(row)) == counted  # the token before each that counts
        assert {len(entries) for entries in by_token(row).values()} == {20}
        assert row["score"] == sorted(row["score"], reverse=True)
        assert row["target"] == text["input_ids"][counted[0] + 1]
    for row, asked in zip(stored(run, "na_instances"), test, strict=True):
        expected = [
            max(dcns(entries, neurons(asked)[:20], "flat") for entries in by_token(document).values())
            for document in train
        ]
        assert row["top_score"] == pytest.approx(sorted(expected, reverse=True), rel=1e-5)
        assert row["top_score"] == pytest.approx([expected[at] for at in row["top_index"]], rel=1e-5)
    for row, instances in zip(stored(run, "gradsim_neurons"), stored(run, "gradsim_cosine"), strict=True):
        assert [address for address, _ in neurons(row)] == [neurons(train[at])[0][0] for at in instances["top_index"]]

    other = command(*METHODS, "data.eval_batch_size=1", "data.padding_side=left", "paths.store=other", base=BASE)
    for row, again in zip(train, stored(other, "ig", "train"), strict=True):
        assert row["score"] == pytest.approx(again["score"], rel=1e-3, abs=1e-5)
        assert row["target_prob"] == pytest.approx(again["target_prob"], rel=1e-3)
    read = command(*METHODS, base=BASE)
    assert "ig on train: read from the store" in read.out
    planned = command(*METHODS, "plan=true", base=BASE)
    assert "ig on train" in planned.out


def test_at_the_last_token_a_text_has_one_list(command: CommandLine) -> None:
    """Of documents in windows that of the last one."""
    run = command("method=[ig,na_instances]", "method.na_instances.positions=last", base=BASE)
    assert "is read as texts" not in run.out
    assert {len(row["layer"]) for row in stored(run, "ig", "train")} == {100}


def test_files_of_texts_give_back_each_token_s_list(tmp_path: Path) -> None:
    """Entries of equal scores keep their order, and texts without an entry are there."""
    rows = {
        "index": torch.tensor([2, 0, 0]), "position": torch.tensor([4, 1, 0], dtype=torch.int32),
        "target": torch.tensor([7, 8, 9]), "target_prob": torch.tensor([0.5, 0.5, 0.25]),
        "layer": torch.tensor([[0, 1], [1, 1], [0, -1]]), "unit": torch.tensor([[3, 2], [5, 4], [1, -1]]),
        "score": torch.tensor([[1.0, 1.0], [2.0, 1.0], [2.0, 0.0]]), "site": torch.tensor([[0, 1], [0, 0], [0, 0]]),
    }  # fmt: skip
    datasets.Dataset(text_table(rows, 3, "value", "neuron")).save_to_disk(str(tmp_path))
    (first, none, _) = datasets.load_from_disk(str(tmp_path))
    assert (first["score"], first["position"], first["target"]) == ([2.0, 2.0, 1.0], [0, 1, 1], 9)
    assert first["target_prob"] == pytest.approx(0.125)
    assert none["layer"] == []
    lists = read_text_lists(tmp_path, 2, n_layers=2, n_neurons=8, n_attention=4)
    assert (len(lists), lists.text.tolist()) == (3, [0, 0, 2])
    assert lists.addresses(2).tolist() == [[1, -1], [12 + 5, 12 + 4], [3, 12 + 8 + 2]]
    assert read_text_lists(tmp_path, 1, n_layers=2, n_neurons=8, n_attention=4).addresses(2).shape == (3, 1)
