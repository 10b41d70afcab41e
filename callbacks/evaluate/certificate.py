"""Certificate as a stage: lists, refits of the head and fits of the model, and a line for every example."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor

from twinlens.attribution.evaluation.ground_truth.certificate import Certificate
from twinlens.attribution.evaluation.ground_truth.certified_changes import Certified, Removed, change_with_neurons_off
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.targets import phi
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows, score_folder, scores_of, skipped
from twinlens.callbacks.evaluate.ground_truth import StoredScores, truth_inputs
from twinlens.callbacks.evaluate.neurons_off import WITHOUT, NeuronsOff
from twinlens.callbacks.evaluate.refits import Recipe
from twinlens.callbacks.evaluate.shared_fits import SharedFits
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.files import write_text

COLUMNS = ("index", "target", "truth", "part", "predicted", "low", "high", "realised", "holds")
"""Of <run>/<name>_examples.csv; changes are of φ, in nats."""


def certificate_results(
    session: Session, name: str, evaluation: Certificate, methods: Mapping[str, Any], recipe: Recipe | None
) -> list[Result]:
    """Results over the explained split, and <run>/<name>_examples.csv with a line for every example and part."""
    if session.readout.of_vocabulary or session.readout.of_sequences:
        return skipped(name, "data with classes, whose head alone is refitted")
    if lacking := evaluation.lacking(len(kept_rows(session))):
        return skipped(name, lacking)
    instances, neurons = evaluation.chosen(methods)
    inputs = truth_inputs(session, methods)
    assert inputs.head is not None, "data with classes have head inputs"
    off = NeuronsOff.of_lists(session, neurons, methods[neurons], evaluation.ablated)
    taken = _taken(session, evaluation, (instances, neurons), methods)
    ablated = off.features(session, name)[inputs.index]
    found = evaluation.refitted(inputs.head, ablated, taken, inputs.memory_budget)
    if evaluation.retrained:
        assert recipe is not None, "an evaluation that fits says that it needs a recipe"
        found += _retrained(session, name, evaluation, taken, off, recipe, found)
    targets = session.targets("instance", session.split).at(inputs.index)
    if is_first_process():
        _write(session, name, inputs.index, targets.target, found)
    return evaluation.evaluate(found, (instances, neurons))


def _taken(session: Session, evaluation: Certificate, named: tuple[str, str], methods: Mapping[str, Any]) -> Removed:
    """First rows and neurons of every test that no lens leaves out, and what their scores add up to."""
    instances, neurons = named
    n_train = len(session.data.splits["train"])
    rows, scores = StoredScores(session, instances, methods[instances], n_train).first(0, evaluation.removed)
    seed = methods[neurons].seeds[0]
    lists = scores_of(session, neurons, seed)
    sums = torch.tensor(
        [float(own[: evaluation.ablated].double().sum()) for own in lists["score"]], dtype=torch.float64
    )
    said = yaml.safe_load((score_folder(session, neurons, seed) / "method.yaml").read_text())
    shares = str(said.get("unit")).startswith("probability")  # alone, or with how it is taken
    prob = lists["target_prob"][:] if shares else None
    return Removed(rows, scores.double().sum(1), change_with_neurons_off(sums, prob))


def _retrained(
    session: Session,
    name: str,
    evaluation: Certificate,
    taken: Removed,
    off: NeuronsOff,
    recipe: Recipe,
    refit: list[Certified],
) -> list[Certified]:
    kept = kept_rows(session)
    tests = evaluation.tests_to_retrain(len(kept))
    targets = session.targets("instance", session.split).at(kept[tests])
    every = set(range(len(session.data.splits["train"])))
    fits = SharedFits(session, name, recipe, off)
    left = [sorted(every - set(rows)) for rows in taken.rows[tests].tolist()]
    asked = [sorted(every), *left]
    fits.prepare([(rows, evaluation.seed) for rows in asked])
    whole, *without = (fits(rows, evaluation.seed) for rows in asked)

    def of(models: Sequence[Mapping[str, Tensor]], column: str) -> Tensor:
        """φ of each test under a model of its own, [tests]."""
        own = [model[column][row] for model, row in zip(models, kept[tests].tolist(), strict=True)]
        return phi(torch.stack(own), targets)

    outcomes = [of(models, column) for column in ("log_prob", WITHOUT) for models in ([whole] * len(tests), without)]
    return evaluation.of_retrained(torch.stack(outcomes), taken, tests, targets, refit)


def _write(session: Session, name: str, index: Tensor, target: Tensor, found: Sequence[Certified]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for one in found:
        holds = one.intervals.hold(one.realised).tolist()
        numbers = (one.intervals.predicted, one.intervals.low, one.intervals.high, one.realised)
        for place, test in enumerate(one.tests.tolist()):
            said = [f"{float(column[place]):.6g}" for column in numbers]
            writer.writerow([int(index[test]), int(target[test]), one.truth, one.part, *said,
                             str(holds[place]).lower()])  # fmt: skip
    session.folder.mkdir(parents=True, exist_ok=True)
    write_text(session.folder / f"{name}_examples.csv", text.getvalue())
