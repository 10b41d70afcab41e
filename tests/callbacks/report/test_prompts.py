"""Prompts on the page: log-probability by layer, heads by position, words of neurons, tokens as they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import Page, island, rewrite
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.neuron_level.prompt_edits import Recorded
from twinlens.callbacks.evaluate.prompt_record import write_record
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.report.prompts import prompts
from twinlens.callbacks.results.results_csv import write_results
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")
WORDS = ["The", "capital", "is", "Paris"]


def prompt_rows(
    group: str = "0", target: str = " Paris", words: tuple[str, ...] = (" Paris", " <b>Rome")
) -> list[dict]:
    """Every row that the view of one token has: three tokens, on a model of two layers of two heads."""
    common = {"model": "tiny", "data": "demo", "seed": 0, "split": "test", "evaluation": "prompt", "group": group}

    def row(metric: str, name: str, value: float, **more: object) -> dict[str, Any]:
        return {**common, "method": "", "metric": metric, "reference_group": name, "value": value, **more}

    rows = [row("prompt_logp", target, -0.5)]
    rows += [
        row("layer_increase", name, value) for name, value in (("a0", 1.0), ("a1", 0.5), ("f0", 2.0), ("f1", 0.25))
    ]
    rows += [row("head_increase", f"a{layer}.{head}", 0.1 * layer + head) for layer in (0, 1) for head in (0, 1)]
    rows += [row("head_position", "a1.1", 0.1 * k, k=k) for k in range(3)]
    rows += [row("value_neuron", "f1.7", 0.3, k=1, method="ffn_value")]
    rows += [row("value_neuron", "a1.1.5@2", 0.2, k=1, method="attention_value")]
    for place, word in enumerate(words, 1):
        rows.append(row("vocabulary_token", f"f1.7 {word}", 1 / place, k=place, method="ffn_value"))
    return rows


def record(path: Path, tokens: dict[int, str], n_tokens: int = 1) -> None:
    """A record of the model as it is and of one neuron switched off and doubled, at each of some tokens."""
    others = ((1, -1.0), (2, -2.0))
    lines = []
    for token in range(n_tokens):
        lines.append(Recorded(0, token, "", "", 1.0, 3, -0.5, others))
        lines += [Recorded(0, token, "ffn_value", "f1.7", factor, 3, -0.5 - factor, others) for factor in (0.0, 2.0)]
    write_record(path / "prompt_edits.csv", lines, tokens.__getitem__)


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A run of one prompt."""
    path = FakeRun(neuron=("ig",), instance=(), n_test=1, n_layers=2, list_length=2, plants=False).write(
        tmp_path / "run"
    )
    write_results(path / "results.csv", prompt_rows())
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="The"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "model" / "tokenizer.json"))
    lists = {"index": 0, "target": 0, "layer": [1, 0], "unit": [7, 3], "score": [0.5, 0.25]}
    Dataset.from_list([lists]).save_to_disk(str(path / "other"))
    for file in (path / "scores" / "ig" / "test").iterdir():
        file.unlink()
    (path / "scores" / "ig" / "test").rmdir()
    (path / "other").rename(path / "scores" / "ig" / "test")
    return RunFiles(path)


def test_what_a_prompt_is_made_of(run: RunFiles) -> None:
    (prompt,) = prompts(run)
    (one,) = prompt["steps"]
    assert (prompt["index"], prompt["completion"]) == (0, [])
    assert one["target"] == " Paris"
    assert one["log_prob"] == pytest.approx([-0.5 - 0.75, -0.5])  # the second layer adds 0.5 + 0.25
    assert (one["attention"], one["ffn"]) == ([1.0, 0.5], [2.0, 0.25])
    assert one["positions"] == [["a1.1", pytest.approx([0.0, 0.1, 0.2])]]
    ffn, attention, query = (kind["listed"] for kind in one["neurons"])
    assert ffn == [["f1.7", pytest.approx(0.3), [" Paris", " <b>Rome"], []]]
    assert attention == [["a1.1.5@2", pytest.approx(0.2), [], []]]
    assert query == []


def test_its_page_has_a_view_of_it_and_no_table(run: RunFiles) -> None:
    html = render_report(run)
    data = island(html)
    assert "#prompts" in Page(html).attributes("a", "href")
    assert 'data-csv="prompt"' not in html
    assert data["units"]["words"] == {str(data["units"]["key"].index("ffn.1.7")): [" Paris", " <b>Rome"]}


def test_what_was_recorded_stands_beside_each_neuron(run: RunFiles) -> None:
    words = {1: " =Rome", 2: "\n", 3: " Paris"}
    record(run.path, words)
    ((one,),) = (prompt["steps"] for prompt in prompts(run))
    assert (one["id"], one["factors"]) == (3, [0.0, 2.0])
    others = [[" =Rome", 1, -1.0], ["\n", 2, -2.0]]
    assert one["others"] == others
    ffn, attention, _ = (kind["listed"] for kind in one["neurons"])
    assert ffn[0][3] == [[-0.5, others], [-2.5, others]]
    assert attention[0][3] == []  # nothing was recorded of it, and the page says so
    path = run.path / "prompt_edits.csv"
    path.write_text(path.read_text().replace("f1.7,0,", "f1.7,much,"))
    with pytest.raises(UserError, match=r"line 3 of .*prompt_edits\.csv cannot be read"):
        prompts(run)


def test_tokens_of_a_completion_are_steps(run: RunFiles) -> None:
    write_results(run.path / "results.csv", [*prompt_rows(), *prompt_rows("0.1", " the"), *prompt_rows("0.2")])
    rewrite(run.path, "test", lambda row: row | {"input_ids": [0, 1, 2], "answer_ids": [3, 0, 1, 2]})
    (prompt,) = prompts(RunFiles(run.path))
    assert prompt["completion"] == [["Paris", 3], ["The", 0], ["capital", 1], ["is", 2]]
    assert [step["token"] for step in prompt["steps"]] == [0, 1, 2]
    assert [[text for text, _ in step["tokens"]] for step in prompt["steps"]] == [
        ["The", "capital", "is"], ["capital", "is", "Paris"], ["is", "Paris", "The"],
    ]  # fmt: skip


def test_a_token_is_named_with_its_number_beside_it(run: RunFiles) -> None:
    rewrite(run.path, "test", lambda row: row | {"readout": "token", "prediction": 3, "label": 1})
    data = island(render_report(RunFiles(run.path)))
    assert (data["tests"]["prediction"], data["tests"]["label"]) == (["Paris (token 3)"], ["capital (token 1)"])
    assert data["methods"][0]["target"] == ["The (token 0)"]


def test_tokens_are_written_out_and_numbered_without_a_tokenizer(run: RunFiles) -> None:
    ids = run.examples("test").dataset[0]["input_ids"][-3:]
    ((one,),) = (prompt["steps"] for prompt in prompts(run))
    assert one["tokens"] == [[WORDS[number] if number < len(WORDS) else f"token {number}", number] for number in ids]
    path = run.path / "model" / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        prompts(RunFiles(run.path))
    path.unlink()
    ((one,),) = (prompt["steps"] for prompt in prompts(RunFiles(run.path)))
    assert one["tokens"] == [["token 0", -1], ["token 1", -1], ["token 2", -1]]
