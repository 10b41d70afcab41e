"""Figures and the layers of top neurons: right numbers, whole files, nothing global touched."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from matplotlib.image import imread

from tests.callbacks.fake_run import FakeRun
from twinlens.attribution.errors import UserError
from twinlens.callbacks.figures.faithfulness_bars import faithfulness_bars
from twinlens.callbacks.figures.layer_heat_map import layer_heat_map
from twinlens.callbacks.figures.layer_profiles import layer_profiles
from twinlens.callbacks.figures.write import save, write_figures
from twinlens.callbacks.results.columns import COLUMNS, Cell
from twinlens.callbacks.results.run_files import RunFiles

pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FakeRun(instance=()).write(tmp_path_factory.mktemp("figures"))


def replace_scores(run: Path, name: str, rows: list[dict[str, object]]) -> None:
    Dataset.from_list(rows).save_to_disk(str(run / "other"))
    (run / "scores" / name / "test").rename(run / "old")
    (run / "other").rename(run / "scores" / name / "test")


def test_profiles_equal_the_plain_loop(run: Path) -> None:
    profiles = {(p.method, p.target): p for p in layer_profiles(RunFiles(run))}
    rows = load_from_disk(str(run / "scores" / "ig" / "test"))
    for target in (None, 0, 1, 2):
        mine = [row for row in rows if target is None or row["target"] == target]
        share, score = np.zeros(8), np.zeros(8)
        for row in mine:
            for layer, value in zip(row["layer"], row["score"], strict=True):
                share[layer] += 1
                score[layer] += value
        profile = profiles["ig", target]
        np.testing.assert_allclose(profile.share, share / share.sum(), rtol=1e-12)
        np.testing.assert_allclose(profile.score, score / len(mine), rtol=1e-12)
        assert profile.examples == len(mine)
        assert profile.listed == 20
    assert profiles["random_neurons (seed 0)", None].control
    assert ("random_neurons (seed 0)", 0) not in profiles


def test_sites_and_roles_have_profiles_of_their_own(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=(), n_test=4).write(tmp_path)
    lists = {"unit": [5, 6, 7], "unit_kind": ["neuron"] * 3, "position": [-1] * 3, "score": [3.0, 2.0, 1.0]}
    lists |= {"layer": [1, 1, 4], "site": ["ffn", "attn", "ffn"], "role": ["value", "value", "query"]}
    replace_scores(run, "ig", [{"index": i, "target": 0, **lists} for i in range(4)])
    profiles = {profile.method: profile for profile in layer_profiles(RunFiles(run))}
    assert set(profiles) == {"ig (ffn, value)", "ig (attn, value)", "ig (ffn, query)"}
    assert profiles["ig (attn, value)"].score.tolist() == [0, 2.0, 0, 0, 0, 0, 0, 0]
    assert profiles["ig (ffn, query)"].share.tolist() == [0, 0, 0, 0, 1.0, 0, 0, 0]


def test_tokens_have_no_profiles_of_their_own(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=(), n_test=4).write(tmp_path)
    found = {"layer": [1], "unit": [5], "score": [1.0]}
    replace_scores(run, "ig", [{"index": i, "target": 263 + i % 2, **found} for i in range(4)])
    assert [(profile.target, profile.examples) for profile in layer_profiles(RunFiles(run))] == [(None, 4)]


@pytest.mark.parametrize(
    ("layer", "said"), [([8], "names layer 8"), ([-1], "names layer -1"), ([1, 2], "differ in length")]
)
def test_damaged_layers_are_refused(tmp_path: Path, layer: list[int], said: str) -> None:
    run = FakeRun(neuron=("ig",), instance=(), n_test=4).write(tmp_path)
    replace_scores(run, "ig", [{"index": 0, "target": 0, "layer": layer, "unit": [1], "score": [1.0]}])
    with pytest.raises(UserError, match=said):
        layer_profiles(RunFiles(run))


def test_figures_are_whole_files_and_the_same_every_time(run: Path) -> None:
    paths = write_figures(run)
    assert [path.name for path in paths] == ["layer_heat_map.png", "faithfulness.png"]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        picture = imread(path)
        assert picture.shape[0] > 200
        assert picture.std() > 0.05  # something is drawn
    assert [path.read_bytes() for path in write_figures(run)] == before
    assert not list(run.rglob("*.partial"))


def test_heat_map_shows_the_profiles(run: Path) -> None:
    profiles = layer_profiles(RunFiles(run))
    upper, lower = [axis for axis in layer_heat_map(profiles).axes if axis.get_title(loc="left")]
    np.testing.assert_array_equal(upper.images[0].get_array(), np.stack([p.share for p in profiles]))
    np.testing.assert_allclose(
        lower.images[0].get_array(), np.stack([p.score / np.abs(p.score).max() for p in profiles]), rtol=1e-12
    )
    assert [label.get_text().strip() for label in upper.get_yticklabels()][:2] == ["ig", "Supported"]


def faithful(method: str, value: float, **cells: Cell) -> dict[str, Cell]:
    base: dict[str, Cell] = dict.fromkeys(COLUMNS)
    return base | {"method": method, "metric": "sufficiency", "k": 1, "value": value, "stderr": 2.0} | cells


def test_bars_show_values_errors_and_the_control_last(tmp_path: Path) -> None:
    drawn = enumerate((10.0, 20.0, 30.0))
    rows = [faithful("random_neurons", value, seed=seed, control="true") for seed, value in drawn]
    rows += [
        faithful("ig", 60.0),
        faithful("ig", 5.0, group="layer 3"),
        faithful("ig", 40.0, metric="comprehensiveness"),
    ]
    figure = faithfulness_bars(rows)
    first, second = (axis for axis in figure.axes if axis.get_visible())
    assert [label.get_text() for label in first.get_yticklabels()] == ["ig", "random_neurons"]
    assert [bar.get_width() for bar in first.patches] == [60.0, 20.0]
    spans = [segment[:, 0].tolist() for line in first.collections for segment in line.get_segments()]
    assert spans[0] == [58.0, 62.0]
    np.testing.assert_allclose(spans[1], [20 - 10 / 3**0.5, 20 + 10 / 3**0.5])
    assert "lower is better" in second.get_xlabel()
    assert save(figure, tmp_path / "figures" / "bars.png").stat().st_size > 0


@pytest.mark.parametrize("name", ["$x^2$ costs \\$5", "名前" * 40, "line\nbreak\x00", ""])
@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(tmp_path: Path, name: str) -> None:
    save(faithfulness_bars([faithful(name, 1.0)]), tmp_path / "bars.png")
    assert imread(tmp_path / "bars.png").size


def test_nothing_global_is_touched(run: Path) -> None:
    settings, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get("backend")
    had_pyplot = "matplotlib.pyplot" in sys.modules
    write_figures(run)
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.rcParams._get("backend") == backend
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


def test_a_run_without_neurons_or_faithfulness_has_no_figures(tmp_path: Path) -> None:
    assert write_figures(FakeRun(neuron=(), instance=("gradsim",)).write(tmp_path)) == []
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(("kind", "begins"), [("pdf", b"%PDF"), pytest.param("svg", b"<?xml", marks=pytest.mark.long)])
def test_a_paper_gets_its_figures_as_vectors(run: Path, tmp_path: Path, kind: str, begins: bytes) -> None:
    paths = write_figures(run, tmp_path, kind)
    assert paths
    assert {path.suffix for path in tmp_path.iterdir()} == {f".{kind}"}
    before = [path.read_bytes() for path in paths]
    assert all(content.startswith(begins) for content in before)
    assert b"/CreationDate" not in before[0]
    assert save(layer_heat_map(layer_profiles(RunFiles(run))), paths[0]).read_bytes() == before[0]
