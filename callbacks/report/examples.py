"""The examples that the report opens up: which ones, and what both lenses say of them.

Training instances that stand in several lists are kept once, in a catalogue; lists refer to them by index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import numpy as np

from twinlens.attribution.errors import UserError
from twinlens.callbacks.attribute.score_files import AGAINST
from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.report.example_text import Text, is_twin, label_name, marks, text_fields
from twinlens.callbacks.report.neuron_names import entry, unit_name
from twinlens.callbacks.report.neuron_passages import Passage, Passages
from twinlens.callbacks.report.unit_rows import of_unit, rows_by_example
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

N_TOP = 5
N_BOTTOM = 3
N_NEURONS = 10
N_SUMMARY = 5
MAX_CLASSES = 6
"""Class probabilities shown; with more classes the most probable ones are."""
MOST_OF_COMPLETION = 80
"""Characters of a completion that scores are towards."""
_REMAKE = "make it again with overwrite=true"


@dataclass(frozen=True)
class Scored:
    """A training instance in a list; `share` is |score| relative to the list's largest."""

    rank: int
    index: int
    score: float
    share: float
    twin: bool


@dataclass(frozen=True)
class InstanceList:
    """What one instance method says of one example, or of a unit of it; `target` names what its scores are towards."""

    scores: ScoreSet
    target: str
    top: list[Scored]
    bottom: list[Scored]


@dataclass(frozen=True)
class Neuron:
    """A unit in a list; `share` is |score| relative to the list's largest, `passages` what activates it most."""

    name: str
    detail: str
    layer: int
    unit: int
    score: float
    share: float
    passages: list[Passage] = field(default_factory=list)


@dataclass(frozen=True)
class NeuronList:
    """What one neuron method says of one example."""

    scores: ScoreSet
    target: str
    target_prob: float | None
    neurons: list[Neuron]
    listed: int
    completeness: tuple[int, float] | None
    """Layer and size of the largest completeness residual."""


@dataclass(frozen=True)
class Example:
    """One example with its prediction and both lenses.

    Attributes:
        counts_as: the label that the prediction counts as where labels are folded, else empty.
        classes: name and probability of the model's classes, and whether it is the label.
        verdict: right, wrong or unlabelled.
    """

    index: int
    source_index: int | None
    texts: list[Text]
    label: str
    prediction: str
    counts_as: str
    prob: float | None
    classes: list[tuple[str, float, bool]]
    verdict: str
    marks: list[str]
    instances: list[InstanceList] = field(default_factory=list)
    neurons: list[NeuronList] = field(default_factory=list)


@dataclass(frozen=True)
class TrainInstance:
    """One training instance of the catalogue; `seen` are the shown examples in whose lists it stands."""

    index: int
    source_index: int | None
    texts: list[Text]
    label: str
    marks: list[str]
    seen: list[int]


def read_examples(run: RunFiles, indices: Sequence[int]) -> tuple[list[Example], dict[int, TrainInstance]]:
    """The chosen examples with their lenses, and the catalogue of training instances that they refer to.

    Raises:
        UserError: an example or a training instance that scores name is not among the run's examples.
    """
    rows = run.examples(run.split).rows(indices, without=("input_ids",))
    missing = [index for index in indices if index not in rows]
    if missing:
        raise UserError(
            f"{run.examples(run.split).path} has no example {missing[0]} that scores name; expected one: {_REMAKE}."
        )
    score_rows = [(scores, rows_by_example(scores, indices)) for scores in run.scores]
    lists = {
        (scores.name, index, number): _ends(scores, row)
        for scores, found in score_rows
        if scores.kind != "neuron"
        for index in indices
        for number, row in enumerate(found.get(index, ()))
    }
    wanted = {train for top, bottom in lists.values() for train, _ in (*top, *bottom)}
    wanted |= {train for scores in run.scores if scores.summary for train, *_ in summary_rows(scores)}
    train_rows = run.examples("train").rows(sorted(wanted), without=("input_ids", "prob")) if wanted else {}
    absent = sorted(wanted - set(train_rows))
    if absent:
        raise UserError(
            f"{run.examples('train').path} has no example {absent[0]} that scores name; expected one: {_REMAKE}."
        )
    examples, passages = [], Passages(run.path)
    for index in indices:
        example = _example(run, rows[index])
        for scores, found in score_rows:
            for number, row in enumerate(found.get(index, ())):
                if scores.kind == "neuron":
                    example.neurons.append(_neurons(run, scores, rows[index], row, passages))
                    continue
                top, bottom = lists[scores.name, index, number]
                target = of_unit(row) + target_name(run, scores, rows[index], row)
                ends = _scored(top, rows[index], train_rows), _scored(bottom, rows[index], train_rows)
                example.instances.append(InstanceList(scores, target, *ends))
        examples.append(example)
    seen: dict[int, list[int]] = {train: [] for train in sorted(wanted)}
    for (_, index, _), (top, bottom) in lists.items():
        for train, _ in (*top, *bottom):
            if index not in seen[train]:
                seen[train].append(index)
    columns = run.text_columns("train") if wanted else []
    catalogue = {
        train: TrainInstance(
            train,
            train_rows[train].get("source_index"),
            text_fields(train_rows[train], columns),
            label_name(run.gold_names("train"), train_rows[train].get("label")),
            marks(train_rows[train]),
            where,
        )
        for train, where in seen.items()
    }
    return examples, catalogue


def summary_rows(scores: ScoreSet, count: int = N_SUMMARY) -> list[tuple[int, int, float, float, float | None]]:
    """The training instances that most examples rest on: index, votes, mean, max, self-influence, best first."""
    assert scores.summary is not None
    votes, mean = scores.summary.column("votes"), scores.summary.column("mean")
    largest = scores.summary.column("max")
    own = scores.summary.column("self_influence") if "self_influence" in scores.summary.dataset.column_names else None
    order = np.lexsort((scores.summary.index, -mean, -votes))[:count]
    return [
        (
            int(scores.summary.index[i]),
            int(votes[i]),
            float(mean[i]),
            float(largest[i]),
            None if own is None or own[i] is None or math.isnan(own[i]) else float(own[i]),
        )
        for i in order
    ]


def _example(run: RunFiles, row: Mapping[str, Any]) -> Example:
    label, prediction = row.get("label"), row.get("prediction")
    known = label is not None and label >= 0 and prediction is not None
    folded = row.get(FOLDED_PREDICTION)
    counted = prediction if folded is None else folded
    verdict = ("right" if label == counted else "wrong") if known else "unlabelled"
    prob = row.get("prob")
    classes = []
    own = row.get("target_prob")
    if prob:
        order = sorted(range(len(prob)), key=lambda i: -prob[i])[:MAX_CLASSES]
        order = sorted(order) if len(prob) <= MAX_CLASSES else order
        classes = [(label_name(run.label_names, i), float(prob[i]), folded is None and i == label) for i in order]
        own = prob[prediction] if prediction is not None and 0 <= prediction < len(prob) else None
    return Example(
        int(row["index"]),
        row.get("source_index"),
        text_fields(row, run.text_columns(run.split)),
        row.get("label_token") or label_name(run.gold_names(run.split), label),
        row.get("prediction_token") or label_name(run.label_names, prediction),
        "" if folded is None else label_name(run.gold_names(run.split), folded),
        own,
        classes,
        verdict,
        marks(row),
    )


def _ends(scores: ScoreSet, row: Mapping[str, Any]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """First entries of both lists as (train index, score); an index below 0 fills a list up and is no instance."""
    ends = []
    for side, count in (("top", N_TOP), ("bottom", N_BOTTOM)):
        index, score = row[f"{side}_index"] or [], row[f"{side}_score"] or []
        if len(index) != len(score):
            raise UserError(
                f"{side}_index and {side}_score of example {row['index']} in {scores.rows.path} differ in length "
                f"({len(index)} and {len(score)}); expected one score per training instance: {_REMAKE}."
            )
        ends.append([(int(i), float(s)) for i, s in zip(index, score, strict=True) if i >= 0][:count])
    return ends[0], ends[1]


def _scored(
    entries: Sequence[tuple[int, float]], row: Mapping[str, Any], train_rows: Mapping[int, Mapping[str, Any]]
) -> list[Scored]:
    largest = max((abs(score) for _, score in entries), default=0.0)
    return [
        Scored(rank, train, score, abs(score) / largest if largest > 0 else 0.0, is_twin(row, train_rows[train]))
        for rank, (train, score) in enumerate(entries, 1)
    ]


def target_name(run: RunFiles, scores: ScoreSet, example: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a method's scores of an example are towards, `A` or `A against B`; empty where they speak of nothing."""
    if scores.settings.get("target") == "completion":
        texts = [example.get("completion", example.get("answer")) or example.get("prediction_token") or ""]
        texts += [example.get("foil") or ""] if row.get(AGAINST) is not None else []
        return " against ".join(shorten(repr(text.strip()), MOST_OF_COMPLETION, placeholder=" …'") for text in texts)
    folded = scores.settings.get("target") == "gold"
    names = run.gold_names(run.split) if folded else run.label_names
    spelled = {
        example.get(number): example.get(f"{number}_token")
        for number in ("prediction", "label")
        if f"{number}_token" in example
    }
    found = [
        spelled.get(row[column]) or label_name(names, row[column])
        for column in ("target", AGAINST)
        if row.get(column) is not None
    ]
    return " against ".join(filter(None, found))


def _neurons(
    run: RunFiles, scores: ScoreSet, example: Mapping[str, Any], row: Mapping[str, Any], passages: Passages
) -> NeuronList:
    layer, unit, score = row["layer"] or [], row["unit"] or [], row["score"] or []
    if not len(layer) == len(unit) == len(score):
        raise UserError(
            f"layer, unit and score of example {row['index']} in {scores.rows.path} differ in length "
            f"({len(layer)}, {len(unit)} and {len(score)}); expected one of each per neuron: {_REMAKE}."
        )
    largest = max((abs(s) for s in score[:N_NEURONS]), default=0.0)
    several = len(set(row.get("position") or [])) > 1
    neurons = []
    for i in range(min(N_NEURONS, len(layer))):
        site, kind, role = (entry(row, name, i) for name in ("site", "unit_kind", "role"))
        position = entry(row, "position", i)
        detail = [site.upper()] if site and site != "ffn" else []
        detail += [role] if role and role != "value" else []
        detail += [f"position {position}"] if several and position not in ("", "-1") else []
        name = f"L{layer[i]}" if kind == "layer" else f"L{layer[i]} · {unit_name(scores.settings, row, i, kind)}"
        share = abs(score[i]) / largest if largest > 0 else 0.0
        found = passages.of(site, layer[i], unit[i]) if kind in ("", "neuron") else []
        neurons.append(Neuron(name, ", ".join(detail), layer[i], unit[i], float(score[i]), share, found))
    residual = row.get("completeness") or []
    worst = max(range(len(residual)), key=lambda i: abs(residual[i]), default=None)
    return NeuronList(
        scores,
        target_name(run, scores, example, row),
        row.get("target_prob"),
        neurons,
        len(layer),
        None if worst is None else (worst, float(residual[worst])),
    )
