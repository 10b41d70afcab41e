"""A control is what says so: not what its name begins with, and in every place that sets controls apart."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from tests.running import CommandLine
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.instance.random_instances import RandomInstances
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.callbacks.figures.charts import GREY
from twinlens.callbacks.figures.faithfulness import faithfulness_charts
from twinlens.callbacks.figures.faithfulness_bars import faithfulness_bars
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.results.columns import COLUMNS, Cell, is_control
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.unified_tables import unified_tables
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.run.refusals import require_free_names

COMMON = {"model": "tiny", "data": "demo", "seed": 0}


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Cell]]:
    """A method named like a control that is the best, a control named otherwise, as a run writes and a reader finds."""
    run = RunFolder(tmp_path)
    for k in (1, 10, 100):
        values = {"ig": 50.0 + k / 10, "random_walk": 70.0 + k / 10, "shuffled": 90.0 + k / 10}
        results = [Result("sufficiency", value, k=k, method=method) for method, value in values.items()]
        drawn = Result("sufficiency", 5.0, k=k, method="random_neurons", control=True)
        run.add_results("faithfulness", [*results, drawn], COMMON, ["shuffled"])
    run.write()
    return RunFiles(tmp_path).results


def test_the_file_says_which_rows_are_of_controls(rows: list[dict[str, Cell]], tmp_path: Path) -> None:
    assert "control" in COLUMNS
    assert {row["method"]: is_control(row) for row in rows} == {
        "ig": False, "random_walk": False, "shuffled": True, "random_neurons": True,
    }  # fmt: skip
    with (tmp_path / "results.csv").open(newline="") as stream:
        assert {line["control"] for line in csv.DictReader(stream)} == {"true", ""}


def test_tables_and_figures_set_controls_apart(rows: list[dict[str, Cell]]) -> None:
    (table,) = evaluation_tables(rows, {"sufficiency": "higher"})
    lines = {line["key_cells"][0]: line for line in table["lines"]}
    assert {name for name, line in lines.items() if line["control"]} == {"shuffled", "random_neurons"}
    assert {name for name, line in lines.items() if any(cell["best"] for cell in line["cells"])} == {"random_walk"}
    (chart,) = faithfulness_charts(rows)
    series = {one.name: one for one in chart.panels[0].series}
    assert {name for name, one in series.items() if one.colour == GREY} == {"shuffled", "Random"}
    assert {name for name, one in series.items() if one.line == "dotted"} == {"shuffled", "Random"}
    bars = next(axis for axis in faithfulness_bars(rows).axes if axis.get_visible())
    assert [label.get_text() for label in bars.get_yticklabels()] == ["ig", "random_walk", "shuffled", "random_neurons"]
    names = [line[0] for found in unified_tables(rows) if found.name == "table2" for line in found.lines]
    assert set(names[:2]) == {"shuffled", "Random (random_neurons)"}
    assert set(names[2:]) == {"NA (ig)", "random_walk"}


def test_a_run_marks_its_controls_whatever_they_are_called(command: CommandLine, tmp_path: Path) -> None:
    node = yaml.safe_load(Path("conf/method/random_neurons.yaml").read_text(encoding="utf-8"))
    folder = tmp_path / "own" / "method"
    folder.mkdir(parents=True)
    text = yaml.safe_dump({**node, "seeds": [0], "top_k": 10})
    (folder / "shuffled.yaml").write_text(f"# @package method.shuffled\n{text}", encoding="utf-8")
    node = yaml.safe_load(Path("conf/method/ig.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump({**node, "n_steps": 1, "top_k": 10})
    (folder / "random_walk.yaml").write_text(f"# @package method.random_walk\n{text}", encoding="utf-8")
    done = command(
        f"--config-dir={folder.parent}", "method=[random_walk,shuffled]", "evaluation=faithfulness",
        "evaluation.faithfulness.sufficiency=[1]", "evaluation.faithfulness.comprehensiveness=[10]",
    )  # fmt: skip
    assert done.code == 0, done.err
    files = RunFiles(done.folder)
    assert {scores.name: scores.control for scores in files.scores} == {"random_walk": False, "shuffled": True}
    # the run's own control takes the place of the one that faithfulness would draw
    assert {row["method"]: is_control(row) for row in files.results} == {
        "random_walk": False, "shuffled": True, "no_neurons": True,
    }  # fmt: skip


def test_an_ordinary_method_cannot_take_the_name_of_drawn_controls() -> None:
    require_free_names({"random_neurons": RandomNeurons(), "random_instances": RandomInstances()})
    for name in ("random_neurons", "random_instances", "no_neurons"):
        with pytest.raises(UserError, match=rf"method.{name} is an ordinary method, .*expected another one: rename"):
            require_free_names({name: IntegratedGradients()})
