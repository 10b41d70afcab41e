"""The evaluation stage: every configured test over what the run has, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twinlens.attribution.evaluation.artifacts import mispredicted_as_entailed, own_artifacts
from twinlens.attribution.evaluation.concepts import COLUMN as CONCEPT
from twinlens.attribution.evaluation.needs import what_is_missing
from twinlens.attribution.evaluation.parts import broken_down
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.evaluate.cost import cost_results
from twinlens.callbacks.evaluate.evaluation_inputs import (
    answers_of,
    available,
    best_rows,
    compared_instances,
    compared_neurons,
    entailed_class,
    fold_of,
    folded_predictions,
    instance_lists,
    kept_rows,
    of_kind,
    pairs_of,
    parts_of,
    seedless_rankings,
    skipped,
    texts_of,
    train_facts,
)
from twinlens.callbacks.evaluate.faithfulness import faithfulness_stage
from twinlens.callbacks.evaluate.ground_truth import ground_truth_results
from twinlens.callbacks.evaluate.neuron_level import neuron_level_pass, neuron_level_stage
from twinlens.callbacks.evaluate.neuron_truth import neuron_truth_results
from twinlens.callbacks.evaluate.randomised import randomised_results
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.retraining import retraining_results
from twinlens.callbacks.evaluate.site_ablation import site_ablation_stage
from twinlens.callbacks.evaluate.tail_patch import tail_patch_results
from twinlens.callbacks.passes.session import Session


def evaluate_stage(
    session: Session,
    name: str,
    evaluation: Any,
    settings: Mapping[str, Any],
    methods: Mapping[str, Any],
    recipe: Recipe | None = None,
    earlier: Mapping[str, list[Result]] = {},
    of_methods: Mapping[str, Mapping[str, Any]] = {},
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
        of_methods: configurations of all methods, plain values.
    """
    missing = what_is_missing(evaluation, available(session, methods, recipe is not None))
    if missing:
        return skipped(name, missing)
    if evaluation.requires == "rankings":
        assert recipe is not None, "an evaluation that fits says that it needs a recipe"
        return retraining_results(session, name, evaluation, methods, recipe)
    if evaluation.requires == "ground_truth":
        return ground_truth_results(session, name, evaluation, methods, recipe)
    if evaluation.requires == "neuron_truth":
        return neuron_truth_results(session, name, evaluation, methods)
    if evaluation.requires == "randomised":
        return randomised_results(session, name, evaluation, methods, of_methods)
    if evaluation.requires == "tail_patch":
        return tail_patch_results(session, name, evaluation, methods, settings)
    if evaluation.requires == "subsets":
        return _subsets(session, name, evaluation, methods, earlier)
    if evaluation.requires == "neuron":
        found = faithfulness_stage(session, name, evaluation, settings, of_kind(methods, "neuron", "ia_neurons"))
        kept, parts = kept_rows(session), parts_of(session, session.split)
        return [*found, *broken_down(found, {part: chosen[kept] for part, chosen in parts.items()})]
    if evaluation.requires == "sites":
        return site_ablation_stage(session, name, evaluation, settings)
    if evaluation.requires == "neuron_level":
        if session.readout.of_sequences:
            return skipped(name, "one sequence per example, and multiple choice has several")
        return neuron_level_stage(session, name, evaluation, settings, of_kind(methods, "neuron", "ia_neurons"))
    by_need: dict[str, Callable[[Session, str, Any, Mapping[str, Any]], list[Result]]] = {
        "examples": _examples, "answers": _answers, "instance": _instances, "lists": _lists, "pairs": _pairs,
        "concepts": _concepts, "cost": cost_results,
    }  # fmt: skip
    return by_need[evaluation.requires](session, name, evaluation, methods)


def shared_pass_stage(
    session: Session, evaluations: Mapping[str, Any], settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> None:
    """Go through the explained sentences once for all evaluations of the second paper; their results come later.

    Args:
        evaluations: all of the run, by name.
        settings: their configurations by name, plain values.
        methods: all methods of the run.
    """
    asked = {name: evaluation for name, evaluation in evaluations.items() if evaluation.requires == "neuron_level"}
    if session.readout.of_sequences or not asked:
        return
    there = available(session, methods, fits=False)
    served = {name: evaluation for name, evaluation in asked.items() if not what_is_missing(evaluation, there)}
    neuron_level_pass(session, served, settings, of_kind(methods, "neuron", "ia_neurons"))


def evaluations_in_order(evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluations that read others' results after these, each told of all others; else the configured order."""
    follow = {name: hasattr(evaluation, "after") for name, evaluation in evaluations.items()}
    ordered = sorted(evaluations, key=lambda name: follow[name])
    return {name: evaluations[name].after(evaluations) if follow[name] else evaluations[name] for name in ordered}


# -- one function per need ---------------------------------------------------------------------------------------


def _examples(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of every predicted split but train."""
    found: list[Result] = []
    for split in sorted(session.predictions):
        if split != "train":
            predicted, label, n_classes = folded_predictions(session, split)
            rows = evaluation.evaluate(predicted, label, n_classes, split)
            parts = {part: chosen[label >= 0] for part, chosen in parts_of(session, split, of_outcome=False).items()}
            found += [*rows, *broken_down(rows, parts)]
    return found


def _answers(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of every predicted split of prompts but train."""
    if not session.readout.of_vocabulary:
        return skipped(name, "prompts with answers (e.g. data=knowledge)")
    return [
        result
        for split in sorted(session.predictions)
        if split != "train"
        for result in evaluation.evaluate(*answers_of(session, split), split)
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
    asked = mispredicted_as_entailed(predicted, label, entailed_class(session, session.split))
    challenge = fold_of(session, session.split) is not None
    if not challenge:
        asked &= own_artifacts(pairs_of(session, session.split))
    if not bool(asked.any()):
        kind = "example" if challenge else "pair with full lexical overlap"
        return skipped(name, f"a {session.split} {kind} that is mispredicted as entailment")
    group = "challenge" if challenge else "own"
    asked = asked[kept_rows(session)]
    return evaluation.evaluate(pairs_of(session, "train"), best_rows(session, methods), asked, group)


def _concepts(session: Session, name: str, evaluation: Any, methods: Mapping[str, Any]) -> list[Result]:
    """Of the concepts of train and explained split and of what is retrieved."""
    train, test = (texts_of(session, split, CONCEPT) for split in ("train", session.split))
    test = [test[row] for row in kept_rows(session).tolist()]
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
