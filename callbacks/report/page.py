"""report.html: one self-contained page made from a run's files alone.

Nothing on the page comes from the network, and its content security policy forbids it: styles and scripts (allowed by
their hashes) are inline. What a run says as a whole stands in the page as text, with autoescaping. Its examples, train
instances, units and lists stand in one block of data, from which the script makes the view that is asked for; it
writes texts as texts, so that markup in them is shown and never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twinlens.callbacks.figures.layer_profiles import layer_profiles
from twinlens.callbacks.figures.write import charts, write_figures
from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.report import cells, html_file, sections
from twinlens.callbacks.report.certificates import certified
from twinlens.callbacks.report.chart_data import chart_data, heat_maps
from twinlens.callbacks.report.chosen_examples import choose_examples
from twinlens.callbacks.report.evaluation_tables import evaluation_tables
from twinlens.callbacks.report.island import WHOLE, island
from twinlens.callbacks.report.prompts import is_of_prompt
from twinlens.callbacks.report.table_views import table_views
from twinlens.callbacks.report.worth import verdicts
from twinlens.callbacks.results.columns import DIRECTIONS
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_tables import mismatch_note, published_rows, write_tables

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
    "elements.js", "packing.js", "tokens.js", "island.js", "words.js", "table.js", "figures.js", "drawings.js",
    "crossing.js", "method_lists.js", "prompts_view.js", "example_view.js", "instance_view.js", "neuron_view.js",
    "overviews.js", "report_views.js", "address.js", "router.js",
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
    return html_file.write(run_dir / "report.html", page)


def render_report(
    run: RunFiles,
    directions: Mapping[str, str] = DIRECTIONS,
    n_examples: int = MAX_EXAMPLES,
    cell: cells.Cell | None = None,
) -> str:
    """The page as text.

    Args:
        run, directions, n_examples: see `write_report`.
        cell: of a notebook that shows it, which then has examples of its own; None: a file.
    """
    chosen = choose_examples(run, n_examples) if cell is None else cell.chosen(run)
    results = cell is None or cell.whole
    kept = WHOLE if cell is None else cell.kept
    library = cell is None or cell.figures
    drawn = charts(run.results) if results else []
    heat = heat_maps(layer_profiles(run)) if results else []
    published = published_rows(run) if results else []
    kinds = {scores.kind for scores in run.scores}
    of_prompts = [row for row in run.results if is_of_prompt(row)]
    absent = {"prompts": not of_prompts, "instances": not kinds - {"neuron"}, "units": "neuron" not in kinds}
    splits = [(name, len(run.examples(name).dataset)) for name in run.splits]
    return html_file.render(
        "report.html.j2",
        SCRIPTS,
        {"island": island(run, chosen, run.results, [*map(chart_data, drawn), *heat], kept)},
        library=library,
        start=None if cell is None else cell.start,
        model=sections.run_name(run, "model"),
        data=sections.run_name(run, "data"),
        seed=run.config.get("seed", ""),
        statement=sections.statement(run),
        verdicts=[*verdicts(run.results), *certified(run.results), *filter(None, [sections.headline(run)])],
        warnings=run.warnings,
        sections=[(anchor, name) for anchor, name in VIEWS if not absent.get(anchor)],
        evaluations=list(evaluation_tables([row for row in published if not is_of_prompt(row)], directions)),
        tables=list(table_views(run, published)) if results else [],
        mismatch=mismatch_note(run) if results else "",
        charts=[chart_data(chart) for chart in drawn],
        heat=heat,
        figures=sections.figure_views(run.figures, {chart.name for chart in drawn}) if library else [],
        choice=_choice(run, len(chosen)) if cell is None else _count(run, len(chosen)),
        split=run.split,
        splits=splits,
        reports=sections.data_reports(run),
        data_notes=run.data_notes,
        methods=sections.methods(run, run.results),
        settings=sections.settings(run),
        results=results,
    )


def _choice(run: RunFiles, shown: int) -> str:
    rows = run.examples(run.split).dataset
    total = len(rows)
    if shown and FOLDED_PREDICTION in rows.column_names:
        names = ", ".join(run.gold_names(run.split).values())
        return f"{_chosen(run.split, shown, total)} Labels are coarser than the model's classes ({names})."
    return _chosen(run.split, shown, total)


def _count(run: RunFiles, shown: int) -> str:
    total = len(run.examples(run.split).dataset)
    if shown == total:
        return f"All {total} {run.split} examples."
    return f"{shown} of {total} {run.split} examples; report.html in the run's folder has more."


def _chosen(split: str, shown: int, total: int) -> str:
    if not shown:
        return f"None of the {total} {split} examples was explained."
    if shown == total:
        return f"All {total} {split} examples, wrong predictions first."
    return (
        f"{shown} of {total} {split} examples: wrong predictions, most confident first, up to half of the page; "
        "then others, spread evenly over the probability of their prediction."
    )
