"""The paper's figures: the right points, in print as on a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.callbacks.fake_run import paper_rows
from tests.callbacks.results.test_results_csv import row
from twinlens.callbacks.figures.charts import GREY, Chart, Panel, Point, Series, colours, ticks_apart
from twinlens.callbacks.figures.png import chart_figure
from twinlens.callbacks.figures.write import charts, write_results_figures
from twinlens.callbacks.report.chart_data import chart_data
from twinlens.callbacks.results.columns import Cell

COMMON = row(model="tiny", data="demo", method=None, evaluation=None, metric=None, k=None, value=None, stderr=None)


@pytest.fixture(scope="module")
def found() -> dict[str, Chart]:
    return {chart.name: chart for chart in charts(rows())}


def rows(**cells: Cell) -> list[dict[str, Cell]]:
    accuracy = COMMON | {"evaluation": "accuracy", "metric": "accuracy", "value": 0.81}
    return [line | cells for line in (*map(dict, paper_rows(COMMON)), accuracy)]


def series(panel: Panel) -> dict[str, Series]:
    return {one.name: one for one in panel.series}


def test_every_figure_of_the_paper_is_there(found: dict[str, Chart]) -> None:
    assert list(found) == ["faithfulness", "figure2", "figure3", "figure4", "figure5", "figure6"]


def test_figure_2_has_most_least_and_random_beside_the_whole_model(found: dict[str, Chart]) -> None:
    accuracy, preserved = found["figure2"].panels
    assert set(series(accuracy)) == {
        "NA-Instances-most", "NA-Instances-least", "IF-most", "IF-least", "GS-most", "GS-least", "Random",
        "all instances",
    }  # fmt: skip
    wanted = {line["k"]: line["value"] for line in rows() if line["metric"] == "accuracy" and
              (line["method"], line["group"]) == ("influence", "least")}  # fmt: skip
    assert {point.x: point.y for point in series(accuracy)["IF-least"].points} == wanted
    assert series(accuracy)["IF-least"].line == "dashed"
    assert series(accuracy)["Random"].colour == GREY
    assert {point.y for point in series(accuracy)["all instances"].points} == {0.81}
    assert "all instances" not in series(preserved)


def test_figure_6_takes_every_model_and_figure_2_the_first() -> None:
    both = {chart.name: chart for chart in charts([*rows(), *rows(model="other")])}
    assert len(both["figure2"].panels) == 2
    assert [panel.title for panel in both["figure6"].panels] == [
        "Accuracy, tiny · demo", "Predictions preserved, tiny · demo",
        "Accuracy, other · demo", "Predictions preserved, other · demo",
    ]  # fmt: skip


def test_figure_3_shows_a_pair_once(found: dict[str, Chart]) -> None:
    (panel,) = found["figure3"].panels
    assert set(series(panel)) == {"NA-Instances and IF", "NA-Instances and GS", "IF and GS"}


@pytest.mark.parametrize(("name", "lens"), [("figure4", "IF-Neurons"), ("figure5", "GS-Neurons")])
def test_shares_of_neurons_fill_the_whole(found: dict[str, Chart], name: str, lens: str) -> None:
    (panel,) = found[name].panels
    assert list(series(panel)) == ["only NA", "common", f"only {lens}"]
    total = np.sum([[point.y for point in one.points] for one in panel.series], axis=0)
    np.testing.assert_allclose(total, 100.0)


def test_curves_over_r_tell_the_area_and_few_points_stay_bars(found: dict[str, Chart], tmp_path: Path) -> None:
    sufficiency, _ = found["faithfulness"].panels
    assert sufficiency.log_x
    assert "NA 74" in sufficiency.note
    few = [line for line in rows() if line["k"] in (1, 100) and line["evaluation"] == "faithfulness"]
    assert charts(few) == []
    assert [path.name for path in write_results_figures(few, tmp_path)] == ["faithfulness.png"]


def test_seeds_become_one_point_with_the_error_of_their_mean() -> None:
    cells = {"method": "gradsim", "evaluation": "retraining", "metric": "accuracy", "k": 10, "group": "most"}
    made = charts([COMMON | cells | {"seed": seed, "value": value} for seed, value in enumerate((0.4, 0.5, 0.9))])
    (point,) = made[0].panels[0].series[0].points
    assert (point.x, point.y) == (10.0, pytest.approx(0.6))
    assert point.error == pytest.approx(np.std([0.4, 0.5, 0.9], ddof=1) / 3**0.5)


def test_both_drawings_show_the_same_points(found: dict[str, Chart]) -> None:
    panel = found["figure3"].panels[0]
    (view,) = chart_data(found["figure3"])["panels"]
    axis = chart_figure(found["figure3"]).axes[0]
    for one, drawn, line in zip(panel.series, view["series"], axis.lines, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), drawn["x"])
        np.testing.assert_array_equal(line.get_ydata(), drawn["y"])
        assert drawn["error"] == [point.error for point in one.points]


def test_files_are_whole_and_the_same_every_time(tmp_path: Path) -> None:
    few = [line for line in rows() if line["evaluation"] == "overlap"]
    paths = write_results_figures(few, tmp_path)
    assert [path.name for path in paths] == [f"figure{n}.png" for n in (3, 4, 5)]
    before = [path.read_bytes() for path in paths]
    assert all(imread(path).std() > 0.05 for path in paths)
    assert [path.read_bytes() for path in write_results_figures(few, tmp_path)] == before
    assert not list(tmp_path.glob("*.partial"))


def test_labels_of_the_x_axis_have_room() -> None:
    points = tuple(Point(x, 0.5) for x in (1, 2, 10, 50, 100))
    assert ticks_apart(Panel("", "", "", (Series("a", points, GREY),))) == [2, 10, 50, 100]
    assert ticks_apart(Panel("", "", "", (Series("a", points, GREY),), log_x=True)) == [1, 2, 10, 50, 100]


def test_a_method_and_its_counterpart_share_a_colour_and_others_do_not() -> None:
    names = ["bm25", "influence", "random_instances", "tracin", "na_instances"]
    found = colours(names, controls=["random_instances"])
    assert found["random_instances"] == GREY
    assert GREY not in colours(["random_walk"]).values()
    assert len(set(found.values())) == 5
    assert colours(["influence"])["influence"] == colours(["influence_neurons"])["influence_neurons"]


@pytest.mark.parametrize("value", [float("nan"), None])
def test_what_has_no_value_is_left_out(value: Cell, tmp_path: Path) -> None:
    cells = {"method": "gradsim", "evaluation": "retraining", "metric": "accuracy", "k": 10, "value": value}
    assert write_results_figures([COMMON | cells], tmp_path)
