"""Prompts on the page: log-probability by layer, heads by position, words of neurons, tokens as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import Page, island
from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.report.prompts import prompts
from twinlens.callbacks.results.results_csv import write_results
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")
WORDS = ["The", "capital", "is", "Paris"]


@pytest.fixture
def run(tmp_path: Path) -> RunFiles:
    """A run of one prompt of three tokens on a model of two layers of two heads, with every row that the view has."""
    path = FakeRun(neuron=("ig",), instance=(), n_test=1, n_layers=2, list_length=2, plants=False).write(
        tmp_path / "run"
    )
    common = {"model": "tiny", "data": "demo", "seed": 0, "split": "test", "evaluation": "prompt", "group": "0"}

    def row(metric: str, name: str, value: float, **more: object) -> dict:
        return {**common, "method": "", "metric": metric, "reference_group": name, "value": value, **more}

    rows = [row("prompt_logp", " Paris", -0.5)]
    rows += [
        row("layer_increase", name, value) for name, value in (("a0", 1.0), ("a1", 0.5), ("f0", 2.0), ("f1", 0.25))
    ]
    rows += [row("head_increase", f"a{layer}.{head}", 0.1 * layer + head) for layer in (0, 1) for head in (0, 1)]
    rows += [row("head_position", "a1.1", 0.1 * k, k=k) for k in range(3)]
    rows += [row("value_neuron", "f1.7", 0.3, k=1, method="ffn_value")]
    rows += [row("value_neuron", "a1.1.5@2", 0.2, k=1, method="attention_value")]
    for place, word in enumerate((" Paris", " <b>Rome"), 1):
        rows.append(row("vocabulary_token", f"f1.7 {word}", 1 / place, k=place, method="ffn_value"))
    write_results(path / "results.csv", rows)
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
    (one,) = prompts(run)
    assert one["target"] == " Paris"
    assert one["log_prob"] == pytest.approx([-0.5 - 0.75, -0.5])  # the second layer adds 0.5 + 0.25
    assert (one["attention"], one["ffn"]) == ([1.0, 0.5], [2.0, 0.25])
    assert one["positions"] == [["a1.1", pytest.approx([0.0, 0.1, 0.2])]]
    ffn, attention, query = (kind["listed"] for kind in one["neurons"])
    assert ffn == [["f1.7", pytest.approx(0.3), [" Paris", " <b>Rome"]]]
    assert attention == [["a1.1.5@2", pytest.approx(0.2), []]]
    assert query == []


def test_its_page_has_a_view_of_it_and_no_table(run: RunFiles) -> None:
    html = render_report(run)
    data = island(html)
    assert "#prompts" in Page(html).attributes("a", "href")
    assert 'data-csv="prompt"' not in html
    assert data["units"]["words"] == {str(data["units"]["key"].index("ffn.1.7")): [" Paris", " <b>Rome"]}


def test_tokens_are_written_out_and_numbered_without_a_tokenizer(run: RunFiles) -> None:
    ids = run.examples("test").dataset[0]["input_ids"][-3:]
    (one,) = prompts(run)
    assert one["tokens"] == [WORDS[number] if number < len(WORDS) else "" for number in ids]
    path = run.path / "model" / "tokenizer.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json cannot be read"):
        prompts(RunFiles(run.path))
    path.unlink()
    assert prompts(RunFiles(run.path))[0]["tokens"] == ["token 0", "token 1", "token 2"]
