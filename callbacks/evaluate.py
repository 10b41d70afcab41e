"""The evaluation stage: every configured test over what the run has, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import datasets

from attribution.evaluation.instance_lists import InstanceLists
from attribution.evaluation.result import Result
from attribution.instance.protocol import InstanceScores
from callbacks.faithfulness_stage import faithfulness_stage
from callbacks.method_graph import kind_of
from callbacks.score_tables import score_name
from callbacks.session import Session


def evaluate_stage(
    session: Session, name: str, evaluation: Any, settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> list[Result]:
    """Results of one evaluation; an evaluation that nothing in the run serves says so and gives none."""
    if evaluation.requires == "examples":
        return [
            result
            for split in sorted(session.predictions)
            if split != "train"
            for result in evaluation.evaluate(
                session.predictions[split].column("prediction"),
                session.predictions[split].column("label"),
                len(session.data.label_names),
                split,
            )
        ]
    of_kind = {
        method: configured for method, configured in methods.items() if kind_of(configured) == evaluation.requires
    }
    missing = _what_is_missing(session, name, evaluation.requires, of_kind)
    if missing:
        print(f"{name}: skipped: needs {missing}", flush=True)
        return []
    if evaluation.requires == "neuron":
        return faithfulness_stage(session, name, evaluation, settings, of_kind)
    return [
        result
        for method, configured in of_kind.items()
        for result in (
            _of_method(result, method) for result in evaluation.evaluate(instance_lists(session, method, configured))
        )
    ]


def _of_method(result: Result, method: str) -> Result:
    return Result(**{**asdict(result), "method": method})


def _what_is_missing(session: Session, name: str, kind: str, methods: Mapping[str, Any]) -> str:
    if not methods:
        return f"at least one {kind} method (e.g. method={'ig' if kind == 'neuron' else 'gradsim'})"
    if name == "duplicates":
        if "twin" not in session.data.plant_columns:
            return "data with planted near-duplicates (data=demo)"
        if not bool((session.predictions[session.split].column("twin") >= 0).any()):
            return "a planted near-duplicate among the explained examples (raise data.limit)"
    return ""


def scores_of(session: Session, name: str, seed: int | None) -> datasets.Dataset:
    """The stored scores of a method of this run, torch-formatted."""
    folder = session.scores[score_name(name, seed), session.split] / session.split
    return datasets.load_from_disk(str(folder)).with_format("torch")


def instance_lists(session: Session, name: str, method: Any) -> InstanceLists:
    """A method's lists of all seeds, with the planted twins where the data have them."""
    fields = ("index", "top_index", "top_score", "bottom_index", "bottom_score")
    runs = []
    for seed in getattr(method, "seeds", [None]):
        rows = scores_of(session, name, seed)
        runs.append(InstanceScores(*(rows[field][:] for field in fields)))
    twin = session.predictions[session.split].column("twin") if "twin" in session.data.plant_columns else None
    return InstanceLists.of(runs, method.top_k, twin)
