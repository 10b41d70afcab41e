"""Published figures beside one's own, and the paper's tables: only where they compare, with the printed layout."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.callbacks.fake_run import FakeRun, paper_rows
from tests.callbacks.results.test_results_csv import row
from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.comparable import experiment, method_mismatch
from twinlens.callbacks.results.published import (
    NEEDED,
    Compared,
    explain_mismatch,
    figure_of,
    figures,
    read_figures,
    train_rows,
    with_published,
)
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import published_rows
from twinlens.callbacks.results.unified_tables import unified_tables
from twinlens.callbacks.store.files import write_text
from twinlens.conf.checking.config_sources import compose
from twinlens.conf.checking.plain_values import plain, without_hydra

CONF = Path(__file__).parents[3] / "conf"
WHOLE: dict[str, Any] = {"data": {"name": "averitec", "limit": {"train": None}, "select": None}, "trainer": {}}


pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the paper's model on the paper's data, whole, with every evaluation."""
    fake = FakeRun(
        paper=True, limited=False, model="opt125m", data="averitec", n_train=2768, n_test=8, list_length=3,
        neuron=("ig",), instance=("gradsim",), plants=False,
    )  # fmt: skip
    path = fake.write(tmp_path_factory.mktemp("paper") / "run")
    write_report(path)
    return path


def table(run: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "tables" / f"{name}.csv").open()))


def paper(**cells: Cell) -> dict[str, Cell]:
    return row(model="opt125m", data="averitec") | cells


@pytest.mark.parametrize(
    ("cells", "value"),
    [
        ({"method": "ig", "metric": "comprehensiveness", "k": 100}, 67.8),
        ({"method": "random_neurons", "metric": "sufficiency", "k": 1}, 87.0),
        ({"model": "bloom560m", "data": "mnli", "evaluation": "uniqueness", "method": "na_instances",
          "metric": "unique_instances", "k": 10}, 1776.0),
        ({"method": None, "evaluation": "accuracy", "metric": "accuracy", "k": None, "split": "validation"}, 0.75),
        ({"data": "mnli/hans", "model": "pythia410m", "evaluation": "artifacts", "method": "na_instances",
          "metric": "lexical_overlap", "k": 10, "group": "challenge"}, 0.231),
        ({"data": "mnli", "evaluation": "diversity", "method": None, "metric": "coefficient", "k": None,
          "group": "cosine_similarity"}, -0.3741),
        ({"data": "cosqa", "model": "any", "evaluation": "concepts", "method": None, "metric": "concepts_train",
          "k": None}, 2099.0),
        ({"evaluation": "overlap", "method": "gradsim", "reference_group": "influence", "metric": "instance_overlap",
          "k": 30.0}, ">80"),
        ({"evaluation": "overlap", "method": "gradsim", "reference_group": "na_instances",
          "metric": "instance_overlap", "k": 30}, None),  # the text speaks of the first 10 % alone
        ({"method": "ig", "metric": "sufficiency", "k": 10}, None),
        ({"method": "ig", "metric": "sufficiency", "k": 1, "variant": "intervention=mean"}, None),
        ({"method": "ig", "metric": "sufficiency", "k": 1, "setting": "preset=reference"}, None),
        ({"method": "ig_gauss", "metric": "sufficiency", "k": 1}, None),
        ({"model": "tiny", "metric": "sufficiency", "k": 1}, None),
        ({"data": "demo", "metric": "sufficiency", "k": 1}, None),
    ],
)  # fmt: skip
def test_a_published_figure_fits_its_own_row_alone(cells: dict[str, Cell], value: Cell) -> None:
    figure = figure_of(paper(**cells))
    assert (figure and figure.value) == value


def test_the_files_hold_the_tables_of_both_papers_once() -> None:
    count = Counter((figure.paper, figure.source) for figure in figures())
    first = {"Table 1": 3 + 27, "Table 2": 4 * 3 * 6, "Table 3": 8 * 8, "Table 4": 4 * 6, "Table 5": 3 * 6 + 3}
    second = {
        "Table 2": 2 * 9 * 3,
        "Table 3": 2 * 6 * 2,
        "Table 4": 2 * 6 * 10 - 2,  # the paper prints one layer twice, for two of the types
        "Table 5": 2 * 6 * 4,
        "Table 6": 2 * 6 * 10,
        "Table 7": 2 * 6 * 2,
        "Table 10": 2 * 6 * 10,
        "Table 11": 2 * 6 * 6 * 2,
        "Table 12": 2 * 6 * 4,
        "Table 13": 2 * 6 * 2,
        "Table 14": 2 * 6 * 10 - 1,
    }
    for paper_name, tables in (("Yu, Atanasova and Augenstein 2024", first), ("Yu and Ananiadou 2024", second)):
        assert {name: n for (of, name), n in count.items() if of == paper_name and name.startswith("Table")} == tables
    assert len({tuple(figure.cells.values()) for figure in figures()}) == len(figures())


@pytest.mark.parametrize(
    ("change", "n_train", "reason"),
    [
        ({}, 2768, ""),
        ({}, None, ""),
        ({"data": {"name": "averitec", "limit": {"train": None, "test": 12}}}, 2768, "data.limit.test is set"),
        ({"data": {"name": "averitec", "select": {"test": [1]}}}, 2768, "data.select.test is set"),
        ({"data": {"name": "mnli", "split_validation": True}}, 10000, "data.split_validation is set"),
        ({"trainer": {"limit_train_batches": 1}}, 2768, "trainer.limit_train_batches is set"),
        ({"trainer": {"limit_train_batches": 1.0, "fast_dev_run": False}}, 2768, ""),
        ({}, 3068, "3068 training rows, 2768 in the paper"),
        ({"data": {"name": "mnli/hans"}}, 9000, "9000 training rows, 10000 in the paper"),
    ],
)
def test_a_run_on_fewer_rows_is_no_match(change: dict[str, Any], n_train: int | None, reason: str) -> None:
    rows = [paper(metric="sufficiency", k=1)]
    assert with_published(rows, WHOLE | change, n_train)[0]["published"] == (None if reason else 88.0)
    said = explain_mismatch(rows, WHOLE | change, n_train)
    assert (reason in said) if reason else said == ""
    assert explain_mismatch([row(model="tiny")], WHOLE | change, n_train) == ""  # nothing was to be expected


def composed(model: str = "opt125m", data: str = "averitec", paper: str = "unified", *overrides: str) -> dict[str, Any]:
    """What a run of a paper's experiment has in its config.yaml."""
    everything = [f"experiment={paper}/table2", f"model={model}", f"data={data}", *overrides]
    return plain(without_hydra(compose(CONF, "train", everything)))


@pytest.mark.parametrize("model", ["opt125m", "pythia410m", "bloom560m"])
@pytest.mark.parametrize("data", ["averitec", "mnli", "cosqa"])
def test_the_experiments_of_the_first_paper_are_its_own(model: str, data: str) -> None:
    config = composed(model, data)
    assert Compared(config, train_rows(data)).run["Yu, Atanasova and Augenstein 2024"] == ""
    assert experiment(config, "Yu, Atanasova and Augenstein 2024")["model"] == config["model"]
    assert [method_mismatch(config, name) for name in config["method"]] == [""] * len(config["method"])


def test_the_experiments_of_the_second_paper_are_its_own() -> None:
    for model in ("gpt2large", "llama7b"):
        assert Compared(composed(model, "knowledge", "neuron_level")).run["Yu and Ananiadou 2024"] == ""
    assert Compared(composed("gpt2large", "knowledge", "neuron_level", "fit=true")).run["Yu and Ananiadou 2024"] == (
        "fit is true, the paper's false"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.max_epochs=3", "trainer.max_epochs is 3, the paper's 5"),
        ("model.max_epochs=3", "trainer.max_epochs is 3, the paper's 5"),
        ("model.learning_rate=2e-5", "model.learning_rate is 2e-05, the paper's 1e-05"),
        ("model.head=mlp", "model.head is mlp, the paper's linear"),
        ("model.path=a/facebook/opt-350m", "model.path is a/facebook/opt-350m, the paper's facebook/opt-125m"),
        ("data.max_length=256", "data.max_length is 256, the paper's 512"),
        ("data.template=full", "data.template is full, the paper's reference"),
        ("data.batch_size=16", "the batch of a training step is 16, the paper's 8"),
        ("trainer.accumulate_grad_batches=2", "the batch of a training step is 16, the paper's 8"),
        ("fit=false", "fit is false, the paper's true"),
        ("attribute_split=validation", "attribute_split is validation, the paper's test"),
        ("callbacks=early_stopping", "callbacks.early_stopping is set"),
        ("trainer.precision=bf16-mixed", "trainer.precision is bf16-mixed, the paper's 32-true"),
        ("+trainer.max_steps=10", "trainer.max_steps is 10, the paper's null"),
    ],
)
def test_the_first_difference_to_the_experiment_is_named(override: str, said: str) -> None:
    rows = [paper(metric="sufficiency", k=1)]
    config = composed("opt125m", "averitec", "unified", override)
    assert with_published(rows, config, 2768)[0]["published"] is None
    assert said in explain_mismatch(rows, config, 2768)


@pytest.mark.parametrize(
    "override",
    [
        "model.path=clones/opt-125m",
        "model.path=hub/models--facebook--opt-125m/snapshots/0123",
        "data.template=reference",
        "data.max_length=512",
        "data.bos=true",
        "data.cut=evidence",
        "data.path=files",
        "data.eval_batch_size=4",
        "seed=2",
        "trainer.accelerator=cpu",
        "model.attention=eager",
        "choices=all",  # of multiple choice alone
    ],
)
def test_what_changes_no_number_is_no_difference(override: str) -> None:
    rows = [paper(metric="sufficiency", k=1)]
    config = composed("opt125m", "averitec", "unified", override)
    assert with_published(rows, config, 2768)[0]["published"] == 88.0
    assert explain_mismatch(rows, config, 2768) == ""


def test_a_method_that_is_not_as_shipped_has_no_published_figure_and_a_line_of_its_own() -> None:
    config = composed("opt125m", "averitec", "unified", "method.ig.preset=reference")
    rows = [paper(metric="sufficiency", k=1, setting="preset=reference"), paper(metric="sufficiency", k=1, value=50.0)]
    gradsim = paper(method="gradsim_neurons", metric="sufficiency", k=1)
    found = with_published([*rows, gradsim], config, 2768)
    assert [line["published"] for line in found] == [None, None, 86.4]
    assert explain_mismatch([*rows, gradsim], config, 2768) == (
        "Published figures are left out where method.ig.preset is reference, the paper's paper."
    )
    (table2,) = unified_tables(rows)
    assert [line[0] for line in table2.lines] == ["NA (ig) [preset=reference]", "NA (ig)"]
    read_from_it = [paper(method="na_instances", evaluation="uniqueness", metric="unique_instances", k=10,
                          setting="ig.preset=reference")]  # fmt: skip
    assert "na_instances rests on ig.preset=reference" in explain_mismatch(read_from_it, composed(), 2768)


def test_options_of_an_evaluation_that_no_row_shows_are_compared() -> None:
    rows = [paper(evaluation="diversity", method=None, metric="coefficient", group="loss", k=None)]
    three, one = (composed("opt125m", "averitec", "unified", "evaluation=[retraining,diversity]", *more)
                  for more in ([], ["evaluation.retraining.seeds=[0]"]))  # fmt: skip
    assert with_published(rows, three, 2768)[0]["published"] is not None
    assert with_published(rows, one, 2768)[0]["published"] is None
    assert "evaluation.retraining.seeds is [0], the paper's [0,1,2]" in explain_mismatch(rows, one, 2768)


@pytest.mark.parametrize(("value", "named"), [("many", "Column value in line 2"), ("<few", "Column value in line 2")])
def test_a_damaged_file_of_figures_is_named(tmp_path: Path, value: str, named: str) -> None:
    path = tmp_path / "paper.csv"
    path.write_text(",".join(NEEDED) + "\n" + ",".join([*["x"] * (len(NEEDED) - 1), value]) + "\n")
    with pytest.raises(UserError, match=named):
        read_figures(path)
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="header"):
        read_figures(path)


def test_a_file_of_figures_may_have_other_columns_and_lack_some(tmp_path: Path) -> None:
    path = tmp_path / "paper.csv"
    header = ("added", *NEEDED, "data", "method", "split")
    path.write_text(",".join(header) + "\n" + "x,A 2024,Table 1,faithfulness,sufficiency,88,demo,ig,test\n")
    (figure,) = read_figures(path)
    assert (figure.value, figure.note) == (88.0, "")
    assert figure.fits(row(data="demo", metric="sufficiency", model="any", k=None, group=None, reference_group=None))
    assert not figure.fits(row(data="demo", metric="sufficiency", group="a type"))
    path.write_text(",".join((*header, "data")) + "\n")
    with pytest.raises(UserError, match="each once"):
        read_figures(path)


def test_tables_are_laid_out_as_in_the_paper(run: Path) -> None:
    first = table(run, "table1")
    assert [line["method"].split(" ")[0] for line in first] == ["Full", "Random", "NA-Instances", "IF", "GS"]
    assert [line["published"] for line in first] == ["", "", "427", "221", "209"]
    assert first[0]["averitec"] == "2768"
    second = {line["method"]: line for line in table(run, "table2")}
    assert list(second) == [
        "Random (random_neurons)", "NA (ig)", "IF-Neurons (influence_neurons)", "GS-Neurons (gradsim_neurons)",
    ]  # fmt: skip
    assert second["NA (ig)"]["sufficiency @1 averitec"] == "60"
    assert second["NA (ig)"]["published comprehensiveness @100 averitec"] == "67.8"
    assert not any("@10 " in name for name in second["NA (ig)"])  # the paper's r alone
    third = table(run, "table3")
    assert [line["group"].split(" ")[0] for line in third[:4]] == ["Coefficient", "Random", "NA-Instances", "IF"]
    assert third[2]["group"].endswith("-most")
    assert third[0]["cosine_similarity averitec"] == "-0.03"  # a number, without a spreadsheet's apostrophe
    assert third[0]["published loss averitec"] == "-0.1719"
    fourth = {line["method"]: line for line in table(run, "table4")}
    assert fourth["GS (gradsim)"]["opt125m top-1"] == "0.18"
    (fifth,) = table(run, "table5")
    assert (fifth["dev accuracy"], fifth["published dev accuracy"]) == ("0.8", "0.75")
    assert (fifth["test accuracy"], fifth["published test accuracy"]) == ("0.765", "0.72")


def test_results_csv_keeps_the_columns_of_the_contract(run: Path) -> None:
    assert all("published" not in line for line in read_results(run / "results.csv"))
    assert any(line["published"] == 88.0 for line in published_rows(RunFiles(run)))


def test_the_page_shows_published_figures_beside_measured_ones(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    assert '<small class="published">published 67.8</small>' in html
    assert "Table 2 " in html
    assert '<th scope="col" class="num published">published dev accuracy</th>' in html
    assert "not comparable" not in html


def test_seeds_become_their_mean_and_models_stand_side_by_side() -> None:
    rows = [
        row(evaluation="accuracy", method=None, metric="accuracy", k=None, model=model, seed=seed, value=value)
        for model, seed, value in (("a", 0, 0.5), ("a", 1, 0.7), ("b", 0, 0.4))
    ]
    (found,) = unified_tables(rows)
    assert found.header == ["data", "model", "test accuracy", "low", "high"]
    # two seeds: Student's with one degree of freedom; one: its own error
    assert found.lines[0] == ["demo", "a", *map(pytest.approx, (0.6, 0.6 - 12.706 * 0.1, 0.6 + 12.706 * 0.1))]
    assert found.lines[1][2:] == pytest.approx([0.4, 0.4 - 1.959964 * 2.25, 0.4 + 1.959964 * 2.25])


def test_an_interval_is_the_rows_own_where_it_has_one_and_none_is_made_up() -> None:
    same = {"evaluation": "accuracy", "method": None, "metric": "accuracy", "k": None}
    (found,) = unified_tables([row(**same, value=1.0, stderr=0.0, low=0.9, high=1.0)])
    assert found.lines == [["demo", "tiny", 1.0, 0.9, 1.0]]
    (without,) = unified_tables([row(**same, value=1.0, stderr=None)])
    assert without.header == ["data", "model", "test accuracy"]


def test_without_rows_there_are_no_tables_and_variants_are_left_out() -> None:
    assert unified_tables([]) == []
    assert unified_tables([row(variant="positions=all")]) == []


def test_a_table_without_the_papers_r_shows_what_was_asked() -> None:
    (found,) = unified_tables([row(k=5), row(k=7)])
    assert found.header[2::3] == ["sufficiency @5 demo", "sufficiency @7 demo"]
    assert found.header[3:5] == ["low sufficiency @5 demo", "high sufficiency @5 demo"]


def test_text_in_a_table_cannot_become_a_formula(tmp_path: Path) -> None:
    rows = [line | {"model": "=cmd"} for line in paper_rows(row() | {"model": "x"})]
    for found in unified_tables(rows):
        found.write(tmp_path)
    cells = [cell for path in tmp_path.glob("*.csv") for line in csv.reader(path.open()) for cell in line]
    assert "'=cmd" in cells
    assert not any(cell.startswith("=") for cell in cells)


def test_many_metrics_have_a_table_each_with_k_across_and_few_have_one() -> None:
    same: dict[str, Any] = {"evaluation": "overlap", "stderr": None, "reference_group": "ig"}
    rows = [paper(**same, method=method, metric=metric, k=k, value=float(k), group=None, variant=None)
            for method in ("a", "b") for metric in ("common", "only_na") for k in (50, 1, 5, 10, 100)]  # fmt: skip
    few = [{**line, "evaluation": "few"} for line in rows if line["k"] in (1, 100)]
    found = {table["name"]: table for table in evaluation_tables([*rows, *few], {"common": "higher"})}
    assert list(found) == ["overlap: common", "overlap: only_na", "few"]
    assert [column["name"] for column in found["overlap: common"]["columns"]] == ["@1", "@5", "@10", "@50", "@100"]
    assert [column["arrow"] for column in found["overlap: common"]["columns"]] == ["↑"] * 5
    assert found["overlap: common"]["key_names"] == ["method", "reference_group"]  # said although it is the same
    assert [cell["shown"] for cell in found["overlap: common"]["lines"][1]["cells"]] == ["1", "5", "10", "50", "100"]
    assert [column["name"] for column in found["few"]["columns"]] == [
        "common @1", "common @100", "only_na @1", "only_na @100",
    ]  # fmt: skip


def test_the_page_rounds_numbers_and_aligns_them(run: Path) -> None:
    write_text(run / "tables" / "own.csv", "method,tiny,published tiny\nIF,64.33333,\n'=x,,64.1\n")
    (view,) = (table for table in table_views(RunFiles(run)) if table["name"] == "Own")
    assert view["classes"] == ["", "num", "num published"]
    assert view["lines"] == [["IF", "64.33", ""], ["=x", "", "64.1"]]
    (run / "tables" / "own.csv").unlink()
