"""The evaluation stage: every configured test over what the run has, stored under its own fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.base import Batch
from attribution.evaluation.artifacts import mispredicted_as_entailed, own_artifacts
from attribution.evaluation.concepts import COLUMN as CONCEPT
from attribution.evaluation.needs import what_is_missing
from attribution.evaluation.result import Result
from attribution.neuron.random_neurons import RandomNeurons
from callbacks.attribute import score_name
from callbacks.costs import faithfulness_need
from callbacks.evaluation_inputs import (
    available,
    best_rows,
    compared_instances,
    compared_neurons,
    fold_of,
    folded_predictions,
    instance_lists,
    of_kind,
    pairs_of,
    scores_of,
    seedless_rankings,
    texts_of,
    train_facts,
)
from callbacks.files import is_first_process, write_json
from callbacks.fingerprints import with_imports
from callbacks.memory import WithinMemory
from callbacks.passes import run_pass
from callbacks.retrain import Recipe, retraining_results
from callbacks.session import Session
from callbacks.store import code_hash

CONTROL = "random_neurons"
CODE = ("models.last_token", "models.families", "attribution.neuron.random_neurons", "callbacks.evaluate")


def evaluate_stage(
    session: Session,
    name: str,
    evaluation: Any,
    settings: Mapping[str, Any],
    methods: Mapping[str, Any],
    recipe: Recipe | None = None,
    earlier: Mapping[str, list[Result]] = {},
) -> list[Result]:
    """Results of one evaluation; an evaluation that nothing in the run serves says so and gives none.

    Args:
        session: of the run.
        name: the evaluation's name in the configuration.
        evaluation: what to evaluate; its `requires` says what it is given.
        settings: its configuration, plain values.
        methods: all methods of the run.
        recipe: how the run has fitted its model; None: it has not.
        earlier: results of the evaluations before, by name.
    """
    missing = what_is_missing(evaluation, available(session, methods, recipe is not None))
    if missing:
        return _skipped(name, missing)
    if evaluation.requires == "rankings":
        assert recipe is not None, "an evaluation that fits says that it needs a recipe"
        return retraining_results(session, name, evaluation, methods, recipe)
    if evaluation.requires == "subsets":
        return _subsets(session, name, evaluation, methods, earlier)
    if evaluation.requires == "neuron":
        return _faithfulness(session, name, evaluation, settings, of_kind(methods, "neuron", "ia_neurons"))
    by_need: dict[str, Callable[[Session, str, Any, Mapping[str, Any]], list[Result]]] = {
        "examples": _examples, "instance": _instances, "lists": _lists, "pairs": _pairs, "concepts": _concepts,
    }  # fmt: skip
    return by_need[evaluation.requires](session, name, evaluation, methods)


def evaluations_in_order(evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluations that read others' results after these, each told of all others; else the configured order."""
    follow = {name: hasattr(evaluation, "after") for name, evaluation in evaluations.items()}
    ordered = sorted(evaluations, key=lambda name: follow[name])
    return {name: evaluations[name].after(evaluations) if follow[name] else evaluations[name] for name in ordered}


def _skipped(name: str, needs: str) -> list[Result]:
    print(f"{name}: skipped: needs {needs}", flush=True)
    return []


# -- one function per need ---------------------------------------------------------------------------------------


def _examples(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of every predicted split but train."""
    return [
        result
        for split in sorted(session.predictions)
        if split != "train"
        for result in evaluation.evaluate(*folded_predictions(session, split), split)
    ]


def _instances(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of each instance method by itself."""
    return [
        replace(result, method=method)
        for method, configured in of_kind(methods, "instance").items()
        for result in evaluation.evaluate(instance_lists(session, method, configured))
    ]


def _lists(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of all methods' rankings and lists together."""
    neurons, of_instances = (compared_neurons(session, methods, kind) for kind in ("neuron", "ia_neurons"))
    return evaluation.evaluate(compared_instances(session, methods, evaluation.rank_by), neurons, of_instances)


def _pairs(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of train instances that are put forward for pairs mispredicted as entailment."""
    predicted, label, _ = folded_predictions(session, session.split)
    asked = mispredicted_as_entailed(predicted, label)
    challenge = fold_of(session, session.split) is not None
    if not challenge:
        asked &= own_artifacts(pairs_of(session, session.split))
    if not bool(asked.any()):
        kind = "example" if challenge else "pair with full lexical overlap"
        return _skipped(name, f"a {session.split} {kind} that is mispredicted as entailment")
    group = "challenge" if challenge else "own"
    return evaluation.evaluate(pairs_of(session, "train"), best_rows(session, methods), asked, group)


def _concepts(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of the concepts of train and explained split and of what is retrieved."""
    train, test = (texts_of(session, split, CONCEPT) for split in ("train", session.split))
    return evaluation.evaluate(train, test, best_rows(session, methods))


def _subsets(
    session: Session, name: str, evaluation: Any, methods: Mapping[str, Any], earlier: Mapping[str, list[Result]]
) -> list[Result]:
    """Of the subsets that retraining trains on, and of its accuracy where it was measured."""
    rankings = seedless_rankings(session, methods, evaluation.grid.rank_by)
    described = evaluation.evaluate(rankings, train_facts(session))
    regression = evaluation.regress(described, earlier.get(evaluation.of, []))
    if isinstance(regression, str):
        print(f"{name}: {regression}", flush=True)
        return described
    return [*described, *regression]


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
