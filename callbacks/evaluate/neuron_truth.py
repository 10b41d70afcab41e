"""Neuron truth as a stage: stored lists of all neurons, block by block, against those of exact ablation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from twinlens.attribution.evaluation.ground_truth.neuron_truth import Agreement, NeuronTruth
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.evaluate.evaluation_inputs import of_kind, scores_of
from twinlens.callbacks.passes.session import Session

NUMBERS_AT_ONCE = 4_000_000
"""Scores of neurons that are in memory at a time."""


def neuron_truth_results(
    session: Session, name: str, evaluation: NeuronTruth, methods: Mapping[str, Any]
) -> list[Result]:
    """Results of every neuron method that ranks the site of the truth; others are named and left out."""
    of_neurons = of_kind(methods, "neuron")
    site = of_neurons[evaluation.of].ranks
    other = [key for key, method in of_neurons.items() if method.ranks != site]
    if other:
        print(f"{name}: left out: {', '.join(other)}, whose lists are not of site={site} as those of {evaluation.of}")
    n_layers, n_units = session.footprint.n_layers, session.footprint.units(site)
    found = {
        key: [
            _compared(session, evaluation, (key, seed), (n_layers, n_units)) for seed in method.seeds
        ]  # of each of its seeds
        for key, method in of_neurons.items()
        if key != evaluation.of and method.ranks == site
    }
    return evaluation.evaluate(found, [key for key in found if methods[key].is_control])


def _compared(
    session: Session, evaluation: NeuronTruth, method: tuple[str, int | None], shape: tuple[int, int]
) -> Agreement:
    """Agreement of all tests, computed in blocks of them."""
    own, truth = scores_of(session, *method), scores_of(session, evaluation.of, None)
    step = max(1, NUMBERS_AT_ONCE // (shape[0] * shape[1]))
    parts = [
        evaluation.compare(dense(own[start : start + step], shape), dense(truth[start : start + step], shape))
        for start in range(0, len(own), step)
    ]
    along = {"pearson": 0, "spearman": 0, "of_layers": 1, "recall": 1}
    return Agreement(**{key: torch.cat([getattr(part, key) for part in parts], axis) for key, axis in along.items()})


def dense(rows: Mapping[str, Any], shape: tuple[int, int]) -> Tensor:
    """Scores of stored lists in their places, [tests, layers, units], float32; 0 where a list does not name a neuron.

    Args:
        rows: columns `layer`, `unit` and `score` of some tests, torch-formatted.
        shape: layers, and units of each.
    """
    layer, unit, score = (pad_sequence(list(rows[key]), batch_first=True) for key in ("layer", "unit", "score"))
    listed = torch.arange(layer.shape[1]) < torch.tensor([[len(entries)] for entries in rows["layer"]])
    place = torch.where(listed, layer.long() * shape[1] + unit.long(), shape[0] * shape[1])
    found = torch.zeros(len(layer), shape[0] * shape[1] + 1)  # the last column swallows what fills shorter lists
    return found.scatter_(1, place, score.float())[:, :-1].unflatten(1, shape)
