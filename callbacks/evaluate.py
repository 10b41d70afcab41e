"""The evaluation stage: every configured test over what the run has, stored under its own fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from attribution.base import Batch
from attribution.evaluation.instance_lists import InstanceLists
from attribution.evaluation.result import Result
from attribution.instance.protocol import InstanceScores
from attribution.neuron.random_neurons import RandomNeurons
from callbacks.costs import faithfulness_need
from callbacks.files import is_first_process, write_json
from callbacks.fingerprints import with_imports
from callbacks.memory import WithinMemory
from callbacks.method_graph import kind_of
from callbacks.passes import run_pass
from callbacks.score_tables import score_name
from callbacks.session import Session
from callbacks.store import code_hash

CONTROL = "random_neurons"
CODE = ("models.last_token", "models.families", "attribution.neuron.random_neurons", "callbacks.evaluate")


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
        return _faithfulness(session, name, evaluation, settings, of_kind)
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


# -- faithfulness ------------------------------------------------------------------------------------------------


def _faithfulness(
    session: Session, name: str, evaluation: Any, settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> list[Result]:
    lists, seeds_of = neuron_lists(session, evaluation, methods)
    control = control_of(evaluation, methods)
    inputs = faithfulness_inputs(session, evaluation, settings, lists, control)

    def build(folder: Path) -> None:
        result = _preserved(session, name, evaluation, lists, control, folder)
        if is_first_process():
            answers = {key: column.tolist() for key, column in result.items() if key != "index"}
            write_json(folder / "answers.json", answers)

    entry = session.store.get("evaluate", inputs, build, session.labels(evaluation=name, split=session.split))
    answers = {key: torch.tensor(v) for key, v in json.loads((entry.path / "answers.json").read_text()).items()}
    if control:
        seeds_of = {**seeds_of, CONTROL: [score_name(CONTROL, seed) for seed in control]}
    return evaluation.evaluate(answers, seeds_of)


def control_of(evaluation: Any, methods: Mapping[str, Any]) -> list[int]:
    """Seeds of the random control, none where the run has random neurons of its own."""
    return [] if any(isinstance(m, RandomNeurons) for m in methods.values()) else list(evaluation.control_seeds)


def faithfulness_inputs(
    session: Session,
    evaluation: Any,
    settings: Mapping[str, Any],
    lists: Mapping[str, tuple[Tensor, Tensor]],
    control: list[int],
) -> dict[str, Any]:
    """Everything the answers depend on."""
    return {
        "examples": session.predictions[session.split].fingerprint,
        "lists": {key: _digest(layer, unit) for key, (layer, unit) in lists.items()},
        "evaluation": dict(settings),
        "control": control,
        "code": code_hash(with_imports((type(evaluation).__module__, *CODE))),
    }


def neuron_lists(
    session: Session, evaluation: Any, methods: Mapping[str, Any]
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, list[str]]]:
    """Stored lists of all methods and seeds, [examples, longest r] each, and which belong to which method."""
    longest = max([*evaluation.sufficiency, *evaluation.comprehensiveness])
    lists, seeds_of = {}, {}
    for method, configured in methods.items():
        evaluation.require_length(method, configured.top_k)
        seeds_of[method] = [score_name(method, seed) for seed in getattr(configured, "seeds", [None])]
        for seed, key in zip(getattr(configured, "seeds", [None]), seeds_of[method], strict=True):
            rows = scores_of(session, method, seed).with_format(None)
            lists[key] = (_padded(rows["layer"][:], longest), _padded(rows["unit"][:], longest))
    return lists, seeds_of


def _padded(lists: list[list[int]], length: int) -> Tensor:
    """Ragged lists as [examples, length], −1 where a list has ended."""
    return torch.tensor([(row + [-1] * length)[:length] for row in lists], dtype=torch.int32)


def _digest(layer: Tensor, unit: Tensor) -> str:
    return hashlib.sha256(layer.numpy().tobytes() + unit.numpy().tobytes()).hexdigest()


def _preserved(
    session: Session,
    name: str,
    evaluation: Any,
    lists: Mapping[str, tuple[Tensor, Tensor]],
    control: list[int],
    folder: Path,
) -> dict[str, Tensor]:
    engine = session.classifier.engine()
    longest = max([*evaluation.sufficiency, *evaluation.comprehensiveness])

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        index = batch["index"]
        asked = {
            key: (layer[index.cpu()].to(index.device), unit[index.cpu()].to(index.device))
            for key, (layer, unit) in lists.items()
        }
        for seed in control:
            drawn = RandomNeurons([seed], longest).attribute(engine, batch, budget)
            asked[score_name(CONTROL, seed)] = (drawn.layer, drawn.unit)
        return {"index": index, **evaluation.preserved(engine, batch, asked, budget)}

    n_questions = len(evaluation.questions([*lists, *map(str, control)]))
    need = faithfulness_need(engine.footprint, n_questions, bool(control))
    return run_pass(
        f"{name} on {session.split}",
        session.classifier,
        WithinMemory(f"{name} on {session.split}", compute, session.memory_budget, need),
        session.shards(session.split),
        session.loader(session.split),
        folder / "shards",
        session.trainers,
    ).rows
