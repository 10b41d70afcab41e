"""report.html: one self-contained page made from a run's files alone.

Nothing on the page comes from the network, and its content security policy forbids it: styles and scripts (allowed by
their hashes) are inline. What a run says as a whole stands in the page as text, with autoescaping. Its examples, train
instances, units and lists stand in one block of data, from which the script makes the view that is asked for; it
writes texts as texts, so that markup in them is shown and never run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from twinlens.callbacks.figures.layer_profiles import layer_profiles
from twinlens.callbacks.figures.svg import digest, environment, source
from twinlens.callbacks.figures.write import charts, write_figures
from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.report import sections
from twinlens.callbacks.report.certificates import certified
from twinlens.callbacks.report.chart_data import chart_data, heat_maps
from twinlens.callbacks.report.chart_library import chart_library
from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.report.island import island
from twinlens.callbacks.report.prompts import is_of_prompt
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.report.worth import verdicts
from twinlens.callbacks.results.columns import DIRECTIONS
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import mismatch_note, published_rows, write_tables

TEMPLATES = Path(__file__).parent / "templates"
MAX_EXAMPLES = 2000
"""Examples of the page; of more, wrong predictions and an even spread of the others, see `choose_examples`."""
VIEWS = (
    ("overview", "Overview"),
    ("prompts", "Prompts"),
    ("examples", "Examples"),
    ("instances", "Training set"),
    ("units", "Neurons"),
    ("settings", "Data and settings"),
)
"""Parts of the page, by their names in its address; a run has those that it has something for."""
SCRIPTS = (
    "elements.js", "tokens.js", "island.js", "words.js", "table.js", "figures.js", "drawings.js", "crossing.js",
    "method_lists.js", "prompts_view.js", "example_view.js", "instance_view.js", "neuron_view.js", "overviews.js",
    "router.js",
)  # fmt: skip
"""Parts of the page's one script, in their order."""


def write_report(run_dir: Path, directions: Mapping[str, str] = DIRECTIONS, n_examples: int = MAX_EXAMPLES) -> Path:
    """Write the run's tables, draw its figures and write its report.html to a partial path, renamed when whole.

    Args:
        run_dir: the run's folder.
        directions: metric → which direction is better, "higher" or "lower".
        n_examples: examples of the page, see `choose_examples`.

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


def render_report(run: RunFiles, directions: Mapping[str, str] = DIRECTIONS, n_examples: int = MAX_EXAMPLES) -> str:
    """The page as text."""
    chosen = choose_examples(run, n_examples)
    script = page_script()
    drawn = charts(run.results)
    heat = heat_maps(layer_profiles(run))
    published = [row for row in published_rows(run) if not is_of_prompt(row)]
    kinds = {scores.kind for scores in run.scores}
    of_prompts = [row for row in run.results if is_of_prompt(row)]
    absent = {"prompts": not of_prompts, "instances": not kinds - {"neuron"}, "units": "neuron" not in kinds}
    splits = [
        (name, len(run.examples(name).dataset))
        for name in ("train", "validation", "test")
        if (run.path / "examples" / name).is_dir()
    ]
    library = chart_library()
    return (
        environment(TEMPLATES)
        .get_template("report.html.j2")
        .render(
            model=sections.run_name(run, "model"),
            data=sections.run_name(run, "data"),
            seed=run.config.get("seed", ""),
            statement=sections.statement(run),
            verdicts=[*verdicts(run.results), *certified(run.results), *filter(None, [sections.headline(run)])],
            warnings=run.warnings,
            sections=[(anchor, name) for anchor, name in VIEWS if not absent.get(anchor)],
            evaluations=list(evaluation_tables(published, directions)),
            tables=list(table_views(run)),
            mismatch=mismatch_note(run),
            charts=[chart_data(chart) for chart in drawn],
            heat=heat,
            figures=sections.figure_views(run.figures, {chart.name for chart in drawn}),
            choice=_choice(run, len(chosen)),
            split=run.split,
            splits=splits,
            reports=sections.data_reports(run),
            data_notes=run.data_notes,
            methods=sections.methods(run, run.results),
            settings=sections.settings(run),
            style=Markup(source("style.css") + source("explorer.css", TEMPLATES)),
            island=Markup(island(run, chosen, run.results, [*map(chart_data, drawn), *heat])),
            library=Markup(library.packed),
            script=Markup(script),
            hashes=f"'{digest(script)}' '{library.hash}'",
        )
    )


def page_script() -> str:
    """The page's one script, its parts in one scope."""
    parts = "".join(source(name, TEMPLATES) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();'


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
