"""The report's sections that stand in the page as text: headline, results, data, settings. Views for the template."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinlens.callbacks.attribute.score_files import AGAINST
from twinlens.callbacks.figures.write import FAITHFULNESS, LAYER_HEAT_MAP
from twinlens.callbacks.report.worth import worth
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.formatting import format_number, format_value
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet
from twinlens.models.linear_layers import Coverage

HEADLINE = ("accuracy", "macro_f1")
MAX_SETTINGS = 2000

_CAPTIONS = {
    FAITHFULNESS: "Faithfulness: predictions preserved when only the top neurons are kept (sufficiency) or when they "
    "are zeroed (comprehensiveness). Grey: controls, random neurons and no_neurons (r = 0: all off, or none).",
}


def run_name(run: RunFiles, part: str) -> str:
    """The name of the run's model or data: `<part>.name` of the config, else what results.csv says.

    Of the data the other way round: options may have made another dataset of the one the config names.
    """
    value = run.config.get(part)
    configured = value.get("name") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    found = [str(row[part]) for row in run.results if row[part] is not None]
    names = [*found[:1], configured] if part == "data" else [configured, *found[:1]]
    return str(next((name for name in names if name is not None), part))


def statement(run: RunFiles) -> str:
    """What was run, in a sentence or two."""
    fitted = run.config.get("fit", True) is not False
    n = len(run.examples(run.split).dataset)
    model, data = run_name(run, "model"), run_name(run, "data")
    if fitted and (run.path / "examples" / "train").is_dir():
        trained = len(run.examples("train").dataset)
        first = f"{model} was fine-tuned on {trained} training examples of {data} and read on {n} {run.split} examples."
    else:
        first = f"{model} was read as it is on {n} {run.split} examples of {data}."
    parts = []
    nouns = (("instance", "training instances"), ("neuron", "neurons"), ("unit", "what built their units"))
    for kind, noun in nouns:
        names = [scores.name for scores in run.scores if scores.kind == kind]
        if names:
            parts.append(f"{noun} by {_listed(names)}")
    return f"{first} Its predictions are traced to {' and to '.join(parts)}." if parts else first


def headline(run: RunFiles) -> str:
    """Accuracy and F1 of the model with their errors in a sentence, the explained split first; empty for none."""
    own = [row for row in run.results if not row["method"] and not row["group"] and row["metric"] in HEADLINE]
    own.sort(key=lambda row: row["split"] != run.split)
    said = [
        f"{_words(str(row['split']))} {_words(str(row['metric']))} {format_value(row['value'], row['stderr'])}"
        for row in own[:6]
    ]
    return f"The model: {', '.join(said)}." if said else ""


def method_note(scores: ScoreSet, name: str = "sign") -> str:
    """What method.yaml says of its scores' `sign` or `unit`, or of its `preset`; empty where it says nothing."""
    value = scores.settings.get(name)
    return value if isinstance(value, str) else ""


def methods(run: RunFiles, results: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Every method with its lens, what it was measured to be worth, and what method.yaml says of it.

    That is its target, preset, sign, unit and the parameters that it leaves out.
    """
    return [
        (
            scores.name,
            scores.kind,
            [
                "; ".join(worth(results, scores.name)),
                _target(scores),
                *(method_note(scores, name) for name in ("preset", "sign", "unit")),
                _left_out(scores),
            ],
        )
        for scores in run.scores
    ]


def _target(scores: ScoreSet) -> str:
    """What a method's scores speak of, as the run was asked."""
    against = method_note(scores, AGAINST)
    return method_note(scores, "target") + (f" against {against}" if against else "")


def _left_out(scores: ScoreSet) -> str:
    """Which parameters of the model a method over linear layers does not differentiate; empty for the others."""
    left_out = scores.settings.get("left_out_parameters")
    if not isinstance(left_out, Mapping):
        return ""
    return Coverage(int(scores.settings["covered_parameters"]), left_out).told()


def figure_views(paths: Sequence[Path], drawn: Collection[str] = ()) -> list[dict[str, str]]:
    """The figures as data URIs; the layer heat map and the `drawn` charts stand in the page already."""
    views = []
    for path in paths:
        if path.name != LAYER_HEAT_MAP and path.stem not in drawn:
            uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
            caption = _CAPTIONS.get(path.name, path.stem.replace("_", " "))
            views.append({"uri": uri, "alt": caption, "caption": caption})
    return views


def data_reports(run: RunFiles) -> list[tuple[str, str]]:
    """Counts of `data/<report>` in metrics.json."""
    return [
        (_words(name.removeprefix("data/")), format_number(value))
        for name, value in run.metrics.items()
        if name.startswith("data/")
    ]


def settings(run: RunFiles) -> list[tuple[str, list[tuple[str, str]]]]:
    """config.yaml by its top-level groups, then method.yaml of each method, then all metrics."""
    groups = []
    loose = [
        (str(name), _value(value)) for name, value in run.config.items() if not isinstance(value, dict) or not value
    ]
    if loose:
        groups.append(("run", loose))
    groups += [
        (str(name), list(flat(value))[:MAX_SETTINGS])
        for name, value in run.config.items()
        if isinstance(value, dict) and value
    ]
    groups += [(f"{scores.name}, as resolved", list(flat(scores.settings))[:MAX_SETTINGS]) for scores in run.scores]
    metrics = [(name, format_number(value)) for name, value in run.metrics.items()]
    return [*groups, ("all metrics", metrics)] if metrics else groups


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (`model.head`, value as text)."""
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, dict) and inner:
            yield from flat(inner, f"{path}.")
        else:
            yield path, _value(inner)


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "–"}[value]
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return str(value)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _words(name: str) -> str:
    return name.replace("/", " ").replace("_", " ").replace(" f1", " F1")
