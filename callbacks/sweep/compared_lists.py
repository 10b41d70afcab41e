"""Lists of several runs side by side: what they share, method by method, and on which examples they disagree most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinlens.callbacks.report.explained_examples import verdict
from twinlens.callbacks.report.sections import run_name
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet
from twinlens.callbacks.sweep.compared_runs import ComparedRuns
from twinlens.callbacks.sweep.shared_lists import mean_share, names_neurons, shared_instances, shared_neurons

K = 10
"""First entries by which examples are told apart; as many as a list shows before it is unfolded."""


@dataclass(frozen=True)
class Agreement:
    """What a method's lists of two runs share.

    Attributes:
        method, kind: of both runs.
        first, second: places of the runs.
        shares: first k entries → share in per cent, NaN for an example without lists, [matched examples].
    """

    method: str
    kind: str
    first: int
    second: int
    shares: dict[int, Tensor]

    def row(self, k: int) -> dict[str, Any]:
        """Mean, standard error and number of examples for the page."""
        about = {"method": self.method, "kind": self.kind, "first": self.first, "second": self.second, "k": k}
        return about | mean_share(self.shares[k])


def agreements(compared: ComparedRuns) -> list[Agreement]:
    """Every method that two runs have, controls apart, for every two runs.

    Instances are counted in per cent of k, and are the same where row and text are; neurons in per cent of the union,
    for two runs of one model only, since neurons of two models are different things.
    """
    return [
        found
        for first, second in combinations(range(len(compared.runs)), 2)
        for found in _of_pair(compared, first, second)
    ]


def disagreement(same: np.ndarray, found: list[Agreement]) -> np.ndarray:
    """Order of the matched examples: other predictions first, then by rising mean share of the first entries.

    Args:
        same: see `same_predictions`.
        found: what the lists of the runs share.
    """
    n = len(same)
    shares = [agreement.shares[K].numpy() for agreement in found if K in agreement.shares]
    sums = np.zeros(n)
    counts = np.zeros(n)
    for share in shares:
        sums += np.nan_to_num(share)
        counts += ~np.isnan(share)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    return np.lexsort((mean, same))


def same_predictions(compared: ComparedRuns) -> np.ndarray:
    """Whether all runs predict the same, by the name of the class or the token, [matched examples]."""
    predicted = [
        _predictions(run, index) for run, index in zip(compared.runs, compared.tests.index, strict=True)
    ]  # fmt: skip
    return np.array([len(set(said)) == 1 for said in zip(*predicted, strict=True)], dtype=bool)


def right(run: RunFiles, index: list[int]) -> int | None:
    """How many of these examples a run predicts as they are labelled; None where none has a label."""
    rows = run.examples(run.split).rows(index, without=("input_ids",))
    verdicts = [verdict(rows[i]) for i in index]
    return None if set(verdicts) == {"unlabelled"} else verdicts.count("right")


def _predictions(run: RunFiles, index: list[int]) -> list[str]:
    rows = run.examples(run.split).rows(index, without=("input_ids",))
    names = run.label_names
    found = []
    for i in index:
        token, number = rows[i].get("prediction_token"), rows[i].get("prediction")
        found.append(str(token) if token else "" if number is None else names.get(number, str(number)))
    return found


def _of_pair(compared: ComparedRuns, first: int, second: int) -> Iterator[Agreement]:
    runs = compared.runs[first], compared.runs[second]
    theirs = {scores.name: scores for scores in runs[1].scores if not scores.control}
    one_model = run_name(runs[0], "model") == run_name(runs[1], "model")
    for a in runs[0].scores:
        b = theirs.get(a.name)
        if a.control or b is None or b.kind != a.kind:
            continue
        of_a, of_b, there = _listed(compared, first, second, a, b)
        if a.kind == "instance" and compared.train is not None:
            names = compared.train_names(first), compared.train_names(second)
            shares = dict(shared_instances(a, b, of_a, of_b, names))
        elif one_model and names_neurons(a) and names_neurons(b):
            shares = dict(shared_neurons(a, b, of_a, of_b))
        else:
            continue
        yield Agreement(a.name, a.kind, first, second, {k: _spread(share, there) for k, share in shares.items()})


def _listed(
    compared: ComparedRuns, first: int, second: int, a: ScoreSet, b: ScoreSet
) -> tuple[list[int], list[int], np.ndarray]:
    """Indices in both runs of the matched examples that both methods have lists of, and which these are."""
    index = [np.array(compared.tests.index[run], dtype=np.int64) for run in (first, second)]
    there = (a.rows.positions(index[0].tolist()) >= 0) & (b.rows.positions(index[1].tolist()) >= 0)
    return index[0][there].tolist(), index[1][there].tolist(), there


def _spread(share: Tensor, there: np.ndarray) -> Tensor:
    found = torch.full((len(there),), torch.nan, dtype=torch.float64)
    found[torch.from_numpy(there)] = share.double()
    return found
