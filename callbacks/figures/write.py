"""Figures of a run or a sweep under figures/: layers of top neurons, faithfulness, the first paper's Figures 2 to 6.

Charts are PNG here; the page of a run or a sweep draws the same ones itself. Colours: cividis for shares, Okabe and
Ito's palette for bars and lines, both safe for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twinlens.callbacks.figures.charts import Chart
from twinlens.callbacks.figures.faithfulness import faithfulness_charts
from twinlens.callbacks.figures.faithfulness_bars import faithfulness_bars, is_faithfulness
from twinlens.callbacks.figures.layer_heat_map import layer_heat_map
from twinlens.callbacks.figures.layer_profiles import layer_profiles
from twinlens.callbacks.figures.neuron_level import head_heat_map, neuron_level_charts
from twinlens.callbacks.figures.overlap import overlap_charts
from twinlens.callbacks.figures.png import chart_figure
from twinlens.callbacks.figures.retraining import retraining_charts
from twinlens.callbacks.figures.style import save
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.run_files import RunFiles

LAYER_HEAT_MAP = "layer_heat_map.png"
HEAD_HEAT_MAP = "prompt_heads.png"
FAITHFULNESS = "faithfulness.png"


def write_figures(run_dir: Path, folder: Path | None = None, kind: str = "png") -> list[Path]:
    """Draw every figure the run's files allow and return their paths.

    Args:
        run_dir: the run's folder.
        folder: where they go; None: <run>/figures.
        kind: `png`, or for a paper `pdf` or `svg`.
    """
    run = RunFiles(run_dir)
    folder = folder or run_dir / "figures"
    profiles = layer_profiles(run)
    paths = [save(layer_heat_map(profiles), _named(folder / LAYER_HEAT_MAP, kind))] if profiles else []
    heads = [row for row in run.results if row["evaluation"] == "prompt" and row["metric"] == "head_increase"]
    paths += [save(head_heat_map(heads), _named(folder / HEAD_HEAT_MAP, kind))] if heads else []
    return [*paths, *write_results_figures(run.results, folder, kind)]


def write_results_figures(rows: Sequence[Row], folder: Path, kind: str = "png") -> list[Path]:
    """Draw what results rows allow: faithfulness as curves or bars, and every chart."""
    found = charts(rows)
    paths = []
    if all(chart.name != "faithfulness" for chart in found) and any(is_faithfulness(row) for row in rows):
        paths.append(save(faithfulness_bars(rows), _named(folder / FAITHFULNESS, kind)))
    return [*paths, *(save(chart_figure(chart), folder / f"{chart.name}.{kind}") for chart in found)]


def _named(path: Path, kind: str) -> Path:
    return path.with_suffix(f".{kind}")


def charts(rows: Sequence[Row]) -> list[Chart]:
    """All charts of results rows: faithfulness curves, then the paper's figures by number."""
    numbered = sorted([*retraining_charts(rows), *overlap_charts(rows)], key=lambda chart: chart.name)
    return [*faithfulness_charts(rows), *numbered, *neuron_level_charts(rows)]
