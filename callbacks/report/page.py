"""report.html: one self-contained page made from a run's files alone.

Nothing on the page comes from the network, and its content security policy forbids it: styles and the one script
(allowed by its hash) are inline, figures are data URIs. Everything that comes from data, models or configuration goes
through autoescaping, so that a text with markup is shown and never run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from twinlens.callbacks.figures.layer_profiles import layer_profiles
from twinlens.callbacks.figures.svg import chart_view, digest, environment, source
from twinlens.callbacks.figures.write import charts, write_figures
from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.report import sections
from twinlens.callbacks.report.chosen_examples import N_EXAMPLES, choose_examples
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.report.examples import read_examples
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.results.columns import DIRECTIONS
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import mismatch_note, published_rows, write_tables

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run_dir: Path, directions: Mapping[str, str] = DIRECTIONS, n_examples: int = N_EXAMPLES) -> Path:
    """Write the run's tables, draw its figures and write its report.html to a partial path, renamed when whole.

    Args:
        run_dir: the run's folder.
        directions: metric → which direction is better, "higher" or "lower".
        n_examples: examples opened up, see `choose_examples`.

    Raises:
        UserError: a file of the run is missing or damaged (named).
    """
    write_tables(RunFiles(run_dir))
    write_figures(run_dir)
    page = render_report(RunFiles(run_dir), directions, n_examples)
    path = run_dir / "report.html"
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(page.encode("utf-8", "replace"))  # names from YAML and JSON may hold lone surrogates
    os.replace(partial, path)
    return path


def render_report(run: RunFiles, directions: Mapping[str, str] = DIRECTIONS, n_examples: int = N_EXAMPLES) -> str:
    """The page as text."""
    chosen = choose_examples(run, n_examples)
    examples, catalogue = read_examples(run, chosen)
    script = source("script.js", TEMPLATES) + source("chart.js")
    drawn = charts(run.results)
    heat, summaries = sections.heat_maps(layer_profiles(run)), sections.summaries(run)
    anchors = [("results", "Results"), ("layers", "Layers"), ("training", "Training set"), ("examples", "Examples")]
    anchors += [("instances", "Instances"), ("data", "Data"), ("settings", "Settings")]
    absent = {"layers": heat is None, "training": not summaries, "instances": not catalogue}
    splits = [
        (name, len(run.examples(name).dataset))
        for name in ("train", "validation", "test")
        if (run.path / "examples" / name).is_dir()
    ]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            model=sections.run_name(run, "model"),
            data=sections.run_name(run, "data"),
            seed=run.config.get("seed", ""),
            statement=sections.statement(run),
            headline=sections.headline(run),
            warnings=run.warnings,
            sections=[(anchor, name) for anchor, name in anchors if not absent.get(anchor)],
            evaluations=list(evaluation_tables(published_rows(run), directions)),
            tables=table_views(run),
            mismatch=mismatch_note(run),
            charts=[chart_view(chart) for chart in drawn],
            figures=sections.figure_views(run.figures, {chart.name for chart in drawn}),
            heat=heat,
            summaries=summaries,
            choice=_choice(run, len(chosen)),
            examples=examples,
            catalogue=catalogue,
            split=run.split,
            splits=splits,
            reports=sections.data_reports(run),
            data_notes=run.data_notes,
            methods=sections.methods(run),
            settings=sections.settings(run),
            style=Markup(source("style.css")),
            script=Markup(script),
            script_hash=digest(script),
        )
    )


def _environment() -> Environment:
    found = environment(TEMPLATES)
    found.filters["score"] = _score
    found.filters["percent"] = _percent
    return found


def _choice(run: RunFiles, shown: int) -> str:
    rows = run.examples(run.split).dataset
    total = len(rows)
    if shown and FOLDED_PREDICTION in rows.column_names:
        names = ", ".join(run.gold_names(run.split).values())
        return f"{_chosen(run.split, shown, total)} Labels are coarser than the model's classes ({names})."
    return _chosen(run.split, shown, total)


def _chosen(split: str, shown: int, total: int) -> str:
    if not shown:
        return f"None of the {total} {split} examples was explained."
    if shown == total:
        return f"All {total} {split} examples, wrong predictions first."
    return (
        f"{shown} of {total} {split} examples: wrong predictions, most confident first, up to half of the page; "
        "then others, spread evenly over the probability of their prediction."
    )


def _score(value: float) -> str:
    """Three significant digits, whole thousands in full, with a minus sign that aligns."""
    if not math.isfinite(value):
        return str(value)
    digits = f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:#.3g}".replace("e-0", "e-").removesuffix(".")
    return digits.replace("-", "−", 1) if value < 0 else digits


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if math.isfinite(value) else str(value)
