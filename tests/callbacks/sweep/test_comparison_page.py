"""comparison.html: matched examples, shares against plain loops, paired differences; what is no comparison."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset, load_from_disk

from tests.callbacks.fake_run import FakeRun
from tests.callbacks.report.report_page import MARKUP, Page, island
from tests.running import CommandLine
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.comparisons import Measured
from twinlens.callbacks.results.outcomes import write_outcomes
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.sweep.compared_lists import agreements, disagreement, same_predictions
from twinlens.callbacks.sweep.compared_numbers import compared_numbers, compared_settings
from twinlens.callbacks.sweep.compared_runs import compared_runs
from twinlens.callbacks.sweep.comparison_page import render_comparison, write_comparison

pytestmark = pytest.mark.usefixtures("quiet_datasets")
SMALL: dict[str, Any] = {"n_train": 30, "n_test": 8, "instance": ("gradsim",), "neuron": ("ig",)}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same rows; the second one lists others, lacks two tests and has two train rows of its own."""
    return two_runs(tmp_path_factory.mktemp("compared"))


def two_runs(folder: Path) -> tuple[Path, Path]:
    runs = folder / "one", folder / "other"
    for run, length in zip(runs, (12, 15), strict=True):
        FakeRun(list_length=length, **SMALL).write(run)
        (run / "report.html").write_text("a report")
    rewrite(runs[1], "train", lambda row: row | ({"claim": "of its own"} if row["index"] > 27 else {}))
    rewrite(runs[1], "test", lambda row: row | ({"claim": "another"} if row["index"] > 5 else {"prediction": 0}))
    change(runs[1], "seed", 1)
    return runs


def rewrite(run: Path, split: str, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    rows = [changed(row) for row in load_from_disk(str(run / "examples" / split)).to_list()]
    shutil.rmtree(run / "examples" / split)
    Dataset.from_list(rows).save_to_disk(str(run / "examples" / split))


def change(run: Path, key: str, value: Any) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    (run / "config.yaml").write_text(yaml.safe_dump(config | {key: value}, sort_keys=False), encoding="utf-8")


def scores(run: Path, method: str) -> list[dict[str, Any]]:
    return load_from_disk(str(run / "scores" / method / "test")).to_list()


def test_shares_equal_a_plain_loop_over_sets(two: tuple[Path, Path]) -> None:
    compared = compared_runs(two)
    assert [list(index) for index in compared.tests.index] == [[*range(6)]] * 2
    assert compared.tests.alone == (2, 2)
    assert compared.train is not None
    assert compared.train.alone == (2, 2)
    found = {one.method: one for one in agreements(compared)}
    assert set(found) == {"ig", "gradsim"}
    for k in (1, 10):
        for test in range(6):
            one, other = (
                {index if index <= 27 else (run, index) for index in scores(run, "gradsim")[test]["top_index"][:k]}
                for run in two
            )
            assert found["gradsim"].shares[k][test] == pytest.approx(100 * len(one & other) / k)
            rows = [scores(run, "ig")[test] for run in two]
            one, other = ({*zip(row["layer"][:k], row["unit"][:k], strict=True)} for row in rows)
            assert found["ig"].shares[k][test] == pytest.approx(100 * len(one & other) / len(one | other))
    order = disagreement(same_predictions(compared), [*found.values()]).tolist()
    differ = {row["index"] for row in load_from_disk(str(two[0] / "examples" / "test")) if row["prediction"] != 0}
    mean = [sum(float(one.shares[10][test]) for one in found.values()) for test in range(6)]
    assert order == sorted(range(6), key=lambda test: (test not in differ, mean[test]))


def test_numbers_stand_beside_each_other_with_their_differences(two: tuple[Path, Path], tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(two[0], tmp_path / name)) for name in ("one", "other")]
    outcomes = torch.tensor([[1, 1, 0, 1, 0, 1, 1, 1], [0, 1, 0, 1, 1, 0, 0, 1]], dtype=torch.float64)
    for run, values in zip(runs, outcomes, strict=True):
        about = ("faithfulness", "comprehensiveness", "test", 100, "", "")
        write_outcomes(run / "outcomes.safetensors", [Measured(*about, "ig", "", False, 100.0, values[None])])
        rows = read_results(run / "results.csv")
        value = 100 * float(values.mean())
        mine = [row for row in rows if (row["metric"], row["k"]) == ("comprehensiveness", 100)]
        write_results(run / "results.csv", [row | ({"value": value} if row in mine else {}) for row in rows])
    found = {(one.about["metric"], one.about["k"]): one for one in compared_numbers(compared_runs(runs))}
    each = 100 * (outcomes[1] - outcomes[0])
    paired = found["comprehensiveness", 100]
    assert paired.differences == ((pytest.approx(float(each.mean())), pytest.approx(float(each.std()) / 8**0.5), True),)
    assert found["comprehensiveness", 1].differences == ((0.0, pytest.approx(math.hypot(1.5, 1.5)), False),)
    apart = {one.about["metric"]: one for one in compared_numbers(compared_runs(two))}
    assert not any(paired for one in apart.values() for _, _, paired in one.differences)  # other examples
    assert compared_settings(compared_runs(two).runs) == [("seed", ["0", "1"])]


def test_the_page_has_both_runs_and_says_what_does_not_match(two: tuple[Path, Path], tmp_path: Path) -> None:
    html = render_comparison(compared_runs(two), tmp_path)
    page, data = Page(html), island(html)
    assert page.open == []
    assert "2 test examples of A have no match in another run" in page.words
    assert "2 training instances of B have no match" in page.words
    assert re.search(r"first 10 training instances, their lists share [\d.]+ ± [\d.]+\s% by gradsim\.", page.words)
    assert "What differs: seed (0, 1)." in page.words
    assert [run["letter"] for run in data["runs"]] == ["A", "B"]
    links = [(tmp_path / run["report"]).resolve() for run in data["runs"]]
    assert links == [(run / "report.html").resolve() for run in two]
    assert sorted(data["tests"][0]) == [*range(6)]
    own = island(html.replace('id="island"', 'id="common"').replace('id="runB"', 'id="island"'))
    assert own["tests"]["index"] == data["tests"][1]
    assert len(own["methods"][0]["top"]["at"]) <= 6 * 20


def refused(runs: list[Path], *parts: str) -> None:
    with pytest.raises(UserError) as error:
        compared_runs(runs)
    assert [part for part in parts if part not in str(error.value)] == []
    assert "expected" in str(error.value)


def test_what_is_no_comparison_is_refused_with_a_sentence(two: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = two
    refused([one], "names 1 run;", "2 to 8")
    refused([one] * 9, "names 9 runs")
    refused([one, tmp_path / "nowhere"], "nowhere is no run's folder")
    link = tmp_path / "again"
    link.symlink_to(one)
    refused([one, other, link], "again twice")
    copy = Path(shutil.copytree(other, tmp_path / "copy"))
    change(copy, "attribute_split", "validation")
    refused([one, copy], "has split test", "copy has split validation", "attribute_split")
    change(copy, "attribute_split", "test")
    rewrite(copy, "test", lambda row: row | {"claim": f"new {row['index']}"})
    refused([one, copy], "have no test example in common")
    write_results(copy / "results.csv", [row | {"data": "mnli"} for row in read_results(copy / "results.csv")])
    refused([one, copy], "has data demo", "copy has data mnli")
    write_results(copy / "results.csv", read_results(one / "results.csv"))
    (copy / "metrics.json").write_text(json.dumps({"format": 99}))
    refused([one, copy], "has format 99", "update twinlens")


def test_three_runs_of_two_models_compare_no_neurons(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = FakeRun(list_length=9, model="gpt2", **SMALL).write(tmp_path / "third")
    compared = compared_runs([*two, third])
    found = [(one.method, compared.letters[one.first] + compared.letters[one.second]) for one in agreements(compared)]
    assert found == [("ig", "AB"), ("gradsim", "AB"), ("gradsim", "AC"), ("gradsim", "BC")]
    assert [list(found.shares) for found in agreements(compared)][-1] == [1]  # lists of nine have no first ten
    words = Page(render_comparison(compared, tmp_path)).words
    assert "The runs have different models" in words
    assert "6 test examples of all runs are the same" in words


def test_the_command_says_where_the_page_lies(command: CommandLine, two: tuple[Path, Path]) -> None:
    done = command(f"report.compare=[{two[0]},{two[1]}]", base=())
    assert done.code == 0, done.err
    said, _, place = done.out.splitlines()[-1].partition(" ")
    assert said == "comparison:"
    assert Path(place).parts[:2] == ("outputs", "comparisons")
    assert "one-other" in Path(place).parts[2].replace("_", "-")
    assert (command.folder / place).stat().st_size > 1_000_000
    assert not list((command.folder / "outputs" / "runs").glob("*"))  # no run came about


def test_markup_in_any_field_is_shown_and_never_run(tmp_path: Path) -> None:
    runs = [FakeRun(list_length=n, marker=MARKUP, **SMALL).write(tmp_path / f"{n}<b>") for n in (10, 12)]
    path = write_comparison(runs, tmp_path / "out")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.content["script"]) == 1
    assert not page.attributes("img", "src")
    assert "<b>" in page.words
