"""The evaluation stage: every configured test over what the run has, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twinlens.attribution.evaluation.artifacts import mispredicted_as_entailed, own_artifacts
from twinlens.attribution.evaluation.concepts import COLUMN as CONCEPT
from twinlens.attribution.evaluation.needs import what_is_missing
from twinlens.attribution.evaluation.parts import broken_down
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.evaluate.certificate import certificate_results
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
from twinlens.callbacks.evaluate.neuron_level_pass import Job
from twinlens.callbacks.evaluate.neuron_truth import neuron_truth_results
from twinlens.callbacks.evaluate.randomised import randomised_results
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.retraining import retraining_results
from twinlens.callbacks.evaluate.site_ablation import site_ablation_stage
from twinlens.callbacks.evaluate.tail_patch import tail_patch_results
from twinlens.callbacks.evaluate.unit_retraining import unit_retraining_results
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.passes.session import Session


@dataclass(frozen=True)
class Asked:
    """One evaluation with all that a run has for it.

    Attributes:
        session: of the run.
        name: the evaluation's name in the configuration.
        evaluation: what to evaluate; its `requires` says what it is given.
        settings: its configuration, plain values.
        methods: all methods of the run.
        recipe: how the run has fitted its model; None: it has not.
        earlier: results of the evaluations before, by name.
        of_methods: configurations of all methods, plain values.
        jobs: what the shared pass has answered (`shared_pass_stage`), by name.
    """

    session: Session
    name: str
    evaluation: Any
    settings: Mapping[str, Any]
    methods: Mapping[str, Any]
    recipe: Recipe | None = None
    earlier: Mapping[str, list[Result]] = field(default_factory=dict)
    of_methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    @property
    def of_neurons(self) -> dict[str, Any]:
        """The run's methods that list neurons."""
        return of_kind(self.methods, "neuron", "ia_neurons")


def evaluate_stage(asked: Asked) -> list[Result]:
    """Results of one evaluation; an evaluation that nothing in the run serves says so and gives none."""
    missing = what_is_missing(asked.evaluation, available(asked.session, asked.methods, asked.recipe is not None))
    return skipped(asked.name, missing) if missing else BY_NEED[asked.evaluation.requires](asked)


def shared_pass_stage(
    session: Session, evaluations: Mapping[str, Any], settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> dict[str, Job]:
    """Go through the explained sentences once for all evaluations of the second paper; their results come later.

    Args:
        evaluations: all of the run, by name.
        settings: their configurations by name, plain values.
        methods: all methods of the run.

    Returns:
        what was asked, by the evaluations' names; each stage takes it on, with the lists that it has read.
    """
    asked = {name: evaluation for name, evaluation in evaluations.items() if evaluation.requires == "neuron_level"}
    if session.readout.of_sequences or not asked:
        return {}
    there = available(session, methods, fits=False)
    served = {
        name: evaluation
        for name, evaluation in asked.items()
        if not what_is_missing(evaluation, there) and _takes_targets(session, evaluation)
    }
    return neuron_level_pass(session, served, settings, of_kind(methods, "neuron", "ia_neurons"))


def _takes_targets(session: Session, evaluation: Any) -> bool:
    """Whether an evaluation of the second paper asks about what is explained, be it a completion."""
    return session.explain.neuron.target != COMPLETION or getattr(evaluation, "of_completions", False)


def evaluations_in_order(evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluations that read others' results after these, each told of all others; else the configured order."""
    follow = {name: hasattr(evaluation, "after") for name, evaluation in evaluations.items()}
    ordered = sorted(evaluations, key=lambda name: follow[name])
    return {name: evaluations[name].after(evaluations) if follow[name] else evaluations[name] for name in ordered}


# -- one function per need ---------------------------------------------------------------------------------------


def _examples(asked: Asked) -> list[Result]:
    """Of every predicted split but train."""
    session, found = asked.session, list[Result]()
    if session.readout.of_vocabulary:
        return skipped(asked.name, "data with classes or choices; known_facts asks for next tokens")
    for split in sorted(session.predictions):
        if split != "train":
            predicted, label, n_classes = folded_predictions(session, split)
            rows = asked.evaluation.evaluate(predicted, label, n_classes, split)
            parts = {part: chosen[label >= 0] for part, chosen in parts_of(session, split, of_outcome=False).items()}
            found += [*rows, *broken_down(rows, parts)]
    return found


def _answers(asked: Asked) -> list[Result]:
    """Of every predicted split of prompts but train."""
    session = asked.session
    if not session.readout.of_vocabulary:
        return skipped(asked.name, "prompts with answers (e.g. data=knowledge)")
    return [
        result
        for split in sorted(session.predictions)
        if split != "train"
        for result in asked.evaluation.evaluate(*answers_of(session, split), split)
    ]


def _instances(asked: Asked) -> list[Result]:
    """Of each instance method by itself."""
    return [
        replace(result, method=method)
        for method, configured in of_kind(asked.methods, "instance").items()
        for result in asked.evaluation.evaluate(instance_lists(asked.session, method, configured))
    ]


def _lists(asked: Asked) -> list[Result]:
    """Of all methods' rankings and lists together."""
    session, evaluation = asked.session, asked.evaluation
    neurons, of_instances = (compared_neurons(session, asked.methods, kind) for kind in ("neuron", "ia_neurons"))
    return evaluation.evaluate(compared_instances(session, asked.methods, evaluation.rank_by), neurons, of_instances)


def _pairs(asked: Asked) -> list[Result]:
    """Of train instances that are put forward for pairs mispredicted as entailment."""
    session = asked.session
    predicted, label, _ = folded_predictions(session, session.split)
    chosen = mispredicted_as_entailed(predicted, label, entailed_class(session, session.split))
    challenge = fold_of(session, session.split) is not None
    if not challenge:
        chosen &= own_artifacts(pairs_of(session, session.split))
    if not bool(chosen.any()):
        kind = "example" if challenge else "pair with full lexical overlap"
        return skipped(asked.name, f"a {session.split} {kind} that is mispredicted as entailment")
    group = "challenge" if challenge else "own"
    chosen = chosen[kept_rows(session)]
    return asked.evaluation.evaluate(pairs_of(session, "train"), best_rows(session, asked.methods), chosen, group)


def _concepts(asked: Asked) -> list[Result]:
    """Of the concepts of train and explained split and of what is retrieved."""
    session = asked.session
    train, test = (texts_of(session, split, CONCEPT) for split in ("train", session.split))
    test = [test[row] for row in kept_rows(session).tolist()]
    return asked.evaluation.evaluate(train, test, best_rows(session, asked.methods))


def _subsets(asked: Asked) -> list[Result]:
    """Of the subsets that retraining trains on, and of its accuracy where it was measured."""
    session, evaluation = asked.session, asked.evaluation
    rankings = seedless_rankings(session, asked.methods, evaluation.grid.rank_by)
    described = evaluation.evaluate(rankings, train_facts(session))
    regression = evaluation.regress(described, asked.earlier.get(evaluation.of, []))
    if isinstance(regression, str):
        print(f"{asked.name}: {regression}", flush=True)
        return described
    return [*described, *regression]


def _rankings(asked: Asked) -> list[Result]:
    """Of models that are fitted again on parts of the train split."""
    assert asked.recipe is not None, "an evaluation that fits says that it needs a recipe"
    return retraining_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.recipe)


def _ground_truth(asked: Asked) -> list[Result]:
    """Of instance methods beside models that are fitted on other rows."""
    return ground_truth_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.recipe)


def _certificate(asked: Asked) -> list[Result]:
    """Of predictions without their first instances and neurons."""
    return certificate_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.recipe)


def _neuron_truth(asked: Asked) -> list[Result]:
    """Of neuron methods beside exact ablation."""
    return neuron_truth_results(asked.session, asked.name, asked.evaluation, asked.methods)


def _randomised(asked: Asked) -> list[Result]:
    """Of methods on a model with shuffled weights."""
    return randomised_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.of_methods)


def _tail_patch(asked: Asked) -> list[Result]:
    """Of instance methods by a step on the first of their lists."""
    return tail_patch_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.settings)


def _units(asked: Asked) -> list[Result]:
    """Of units in models that are fitted again without the rows said to have built them."""
    assert asked.recipe is not None, "an evaluation that fits says that it needs a recipe"
    return unit_retraining_results(asked.session, asked.name, asked.evaluation, asked.methods, asked.recipe)


def _cost(asked: Asked) -> list[Result]:
    """Of what each method took."""
    return cost_results(asked.session, asked.name, asked.evaluation, asked.methods)


def _neurons(asked: Asked) -> list[Result]:
    """Of lists of neurons, and their parts by label, outcome and case."""
    session = asked.session
    found = faithfulness_stage(session, asked.name, asked.evaluation, asked.settings, asked.of_neurons)
    kept, parts = kept_rows(session), parts_of(session, session.split)
    return [*found, *broken_down(found, {part: chosen[kept] for part, chosen in parts.items()})]


def _sites(asked: Asked) -> list[Result]:
    """Of the model without whole sites."""
    return site_ablation_stage(asked.session, asked.name, asked.evaluation, asked.settings)


def _neuron_level(asked: Asked) -> list[Result]:
    """Of the second paper."""
    if asked.session.readout.of_sequences:
        return skipped(asked.name, "one sequence per example, and multiple choice has several")
    if not _takes_targets(asked.session, asked.evaluation):
        return skipped(asked.name, "one next token, and completions are explained, which interventions asks about")
    job = asked.jobs.get(asked.name)
    return neuron_level_stage(asked.session, asked.name, asked.evaluation, asked.settings, asked.of_neurons, job)


BY_NEED: Mapping[str, Callable[[Asked], list[Result]]] = {
    "examples": _examples,
    "answers": _answers,
    "instance": _instances,
    "lists": _lists,
    "pairs": _pairs,
    "concepts": _concepts,
    "subsets": _subsets,
    "rankings": _rankings,
    "ground_truth": _ground_truth,
    "certificate": _certificate,
    "neuron_truth": _neuron_truth,
    "randomised": _randomised,
    "tail_patch": _tail_patch,
    "units": _units,
    "cost": _cost,
    "neuron": _neurons,
    "sites": _sites,
    "neuron_level": _neuron_level,
}
"""What an evaluation requires → what gives it that."""
