"""Gradient similarity and influence over a linear head: twinlens beside captum and dattri, from the same cached inputs.

All give the same numbers: inner products of the gradients of one linear layer, plain or through the exact inverse of
the damped Hessian. Every side returns the best scores of each test, so that ranking is on everyone's clock.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.instance import MEMORY_BUDGET, Splits
from benchmarks.pairs import Timed, timed
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.stream import stream_scores

BATCH = 1024
"""Rows of the peers' batches: the fastest of 128, 512, 1024 and 4096 for both."""
DAMPING = 0.1
"""Relative to the mean eigenvalue, the default of `influence`."""


def gradsim(splits: Splits, params: str) -> Timed[Tensor]:
    """Best scores by twinlens, [tests, top_k]; `weight` as captum's fast form has no biases, `head` as dattri."""
    method = GradientSimilarity(params=params, top_k=splits.top_k, dtype="float32")
    return timed(lambda: _streamed(method, splits))


def influence(splits: Splits) -> Timed[Tensor]:
    """Best scores by twinlens' exact solve, [tests, top_k]."""
    return timed(lambda: _streamed(Influence(params="head", damping=DAMPING, top_k=splits.top_k), splits))


def captum_gradsim(splits: Splits) -> Timed[Tensor]:
    """captum's TracInCPFast with a single checkpoint of rate 1, which is gradient similarity."""
    from captum.influence import TracInCPFast

    head = splits.train.head
    model = nn.Sequential(nn.Identity(), head)

    def run() -> Tensor:
        peer = TracInCPFast(
            model,
            model[1],
            TensorDataset(splits.train.features, splits.train.labels),
            checkpoints=[0],
            checkpoints_load_func=lambda *_: 1.0,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
            batch_size=BATCH,
        )
        tests = (splits.test.features, splits.test.labels)
        return peer.influence(tests, k=splits.top_k).influence_scores

    return timed(run)


def dattri_gradsim(splits: Splits) -> Timed[Tensor]:
    """dattri's TracIn with a single checkpoint, its default random projection switched off."""
    from dattri.algorithm.tracin import TracInAttributor

    def run() -> Tensor:
        peer = TracInAttributor(_dattri_task(splits), torch.ones(1), normalized_grad=False)
        peer.projector_kwargs = None
        return _dattri_best(peer, splits)

    return timed(_quietly(run))


def dattri_influence(splits: Splits, damping: float) -> Timed[Tensor]:
    """dattri's explicit inverse of the damped Hessian of the mean train loss."""
    from dattri.algorithm.influence_function import IFAttributorExplicit

    def run() -> Tensor:
        peer = IFAttributorExplicit(_dattri_task(splits), regularization=damping)
        peer.cache(DataLoader(TensorDataset(splits.train.features, splits.train.labels), len(splits.train)))
        return _dattri_best(peer, splits)

    return timed(_quietly(run))


def absolute_damping(splits: Splits) -> float:
    """What `influence` adds to the eigenvalues, for the peers, which are told it."""
    found = Influence(damping=DAMPING).prepare(splits.train, MEMORY_BUDGET).describe()["damping_absolute"]
    assert isinstance(found, float)
    return found


def _streamed(method: Any, splits: Splits) -> Tensor:
    scorer = method.prepare(splits.train, MEMORY_BUDGET)
    index = torch.arange(len(splits.test))
    return stream_scores(scorer, splits.test, index, splits.top_k, MEMORY_BUDGET)[0].top_score


def _dattri_task(splits: Splits) -> Any:
    from dattri.task import AttributionTask

    head = splits.train.head

    def loss(parameters: Any, batch: Any) -> Tensor:
        features, labels = batch
        scores = torch.func.functional_call(head, parameters, (features.reshape(-1, features.shape[-1]),))
        return nn.functional.cross_entropy(scores, labels.reshape(-1))

    return AttributionTask(loss_func=loss, model=head, checkpoints=head.state_dict())


def dattri_gradient_scores(splits: Splits) -> Tensor:
    """All scores by dattri's TracIn with a single checkpoint of rate 1, [tests, n_train]."""
    from dattri.algorithm.tracin import TracInAttributor

    def run() -> Tensor:
        peer = TracInAttributor(_dattri_task(splits), torch.ones(1), normalized_grad=False)
        peer.projector_kwargs = None
        return _dattri_scores(peer, splits)

    return _quietly(run)()


def dattri_influence_scores(splits: Splits, damping: float) -> Tensor:
    """All scores by dattri's explicit inverse, [tests, n_train]; `damping` absolute."""
    from dattri.algorithm.influence_function import IFAttributorExplicit

    def run() -> Tensor:
        peer = IFAttributorExplicit(_dattri_task(splits), regularization=damping)
        peer.cache(DataLoader(TensorDataset(splits.train.features, splits.train.labels), len(splits.train)))
        return _dattri_scores(peer, splits)

    return _quietly(run)()


def _dattri_best(peer: Any, splits: Splits) -> Tensor:
    return _dattri_scores(peer, splits).topk(splits.top_k, dim=1).values


def _dattri_scores(peer: Any, splits: Splits) -> Tensor:
    train, test = (
        DataLoader(TensorDataset(part.features, part.labels), BATCH, shuffle=False)
        for part in (splits.train, splits.test)
    )
    return peer.attribute(train, test).detach().T


def _quietly(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Without dattri's progress bars."""

    def quiet() -> Tensor:
        with contextlib.redirect_stderr(io.StringIO()):
            return run()

    return quiet
