"""Integrated gradients of all neurons: twinlens, the plain loop of full forwards, and captum.

All compute Eq. 6 of Yu, Atanasova and Augenstein (2024) with a right Riemann sum: scores of every input of every MLP
down-projection at the last token, unit probability, [layers, neurons]. The peers use transformers' own forward and
nothing of twinlens; the weights are frozen for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from benchmarks.pairs import Timed, timed
from twinlens.attribution.neuron.ig import PRESETS
from twinlens.attribution.neuron.path_integral import Path, integrated_gradients
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.last_token import LastTokenEngine

N_CLASSES = 4
MEMORY_BUDGET = 4 * 2**30
"""The default of conf/train.yaml."""


@dataclass(frozen=True)
class Subject:
    """A frozen random classifier and one unpadded input.

    Attributes:
        backbone, head: called by the peers as they are.
        engine: the same two in twinlens; its checks at load time stand outside the clock.
        input_ids: [1, tokens].
        n_steps: steps m of the quadrature.
    """

    backbone: Any  # of transformers, whose outputs are untyped
    head: nn.Linear
    engine: LastTokenEngine
    input_ids: Tensor
    n_steps: int

    @property
    def n_layers(self) -> int:
        return self.engine.n_layers

    @property
    def projections(self) -> list[nn.Module]:
        """Every layer's MLP down-projection, whose inputs are the neurons."""
        anatomy = self.engine.anatomy
        return [anatomy.down_projection(block) for block in anatomy.blocks]


def build_subject(config: PretrainedConfig, n_tokens: int, n_steps: int, seed: int = 0) -> Subject:
    """Random weights as transformers draws them, and a head whose scores are of order one."""
    torch.manual_seed(seed)
    backbone = AutoModel.from_config(config).eval().requires_grad_(False)
    head = nn.Linear(config.hidden_size, N_CLASSES).requires_grad_(False)
    head.weight.normal_(std=1 / math.sqrt(config.hidden_size))
    input_ids = torch.randint(0, config.vocab_size, (1, n_tokens))
    return Subject(backbone, head, LastTokenEngine(build_anatomy(backbone), head), input_ids, n_steps)


def chosen_layers(n_layers: int, count: int) -> list[int]:
    """`count` layers at even distances with the first and the last; where they fall between two, the later one.

    The backward pass from layer l runs through the layers above it, so a peer's time falls linearly with l and the
    mean over such layers is the mean over all. Later layers cost less: rounding up favours the peer.
    """
    if count >= n_layers:
        return list(range(n_layers))
    if count == 1:
        return [n_layers - 1]
    return [math.ceil(i * (n_layers - 1) / (count - 1)) for i in range(count)]


def ours(subject: Subject, path: Path | None = None, n_steps: int | None = None) -> Timed[Tensor]:
    """Scores of all layers by the last-token engine, [layers, neurons]; every forward it takes is on the clock."""
    batch = {
        "index": torch.tensor([0]),
        "input_ids": subject.input_ids,
        "attention_mask": torch.ones_like(subject.input_ids),
        "labels": torch.tensor([-1]),
    }
    run = timed(
        lambda: integrated_gradients(
            subject.engine, batch, path or PRESETS["paper"], n_steps or subject.n_steps, MEMORY_BUDGET
        )
    )
    return Timed(run.seconds, run.result.scores[0])


def plain_loop(subject: Subject, layers: Sequence[int]) -> Timed[Tensor]:
    """Scores of some layers by a full forward and backward per layer and step, [len(layers), neurons].

    Its seconds are those of all layers: the clean forward and the mean of the timed layers times the layer count.
    """

    def one_layer(layer: int, clean: Tensor, target: int) -> Tensor:
        total = torch.zeros_like(clean)
        for step in range(1, subject.n_steps + 1):
            point = (clean * (step / subject.n_steps)).requires_grad_()
            probability = probabilities(subject, layer, point[None])[0, target]
            (slope,) = torch.autograd.grad(probability, point)
            total += clean * slope / subject.n_steps
        return total

    return _layer_by_layer(subject, layers, one_layer)


def captum_scores(subject: Subject, layers: Sequence[int], internal_batch_size: int) -> Timed[Tensor]:
    """The same by captum's IntegratedGradients, `internal_batch_size` steps of a layer in one batched full forward.

    Raises:
        ImportError: captum is not installed.
    """
    from captum.attr import IntegratedGradients

    def one_layer(layer: int, clean: Tensor, target: int) -> Tensor:
        method = IntegratedGradients(lambda points: probabilities(subject, layer, points))
        scores = method.attribute(
            clean[None],
            baselines=0.0,
            target=target,
            n_steps=subject.n_steps,
            method="riemann_right",
            internal_batch_size=internal_batch_size,
        )
        return scores[0]

    return _layer_by_layer(subject, layers, one_layer)


def probabilities(subject: Subject, layer: int, points: Tensor) -> Tensor:
    """Class probabilities of full forwards whose last token has the given activation in one layer.

    Args:
        points: [copies, neurons], in place of the input of the layer's down-projection.

    Returns:
        [copies, classes], differentiable with respect to `points`.
    """

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (torch.cat([args[0][:, :-1], points[:, None]], 1),)

    handle = subject.projections[layer].register_forward_pre_hook(replace)
    try:
        output = subject.backbone(subject.input_ids.expand(len(points), -1), use_cache=False)
    finally:
        handle.remove()
    return subject.head(output.last_hidden_state[:, -1]).softmax(-1)


def relative_difference(scores: Tensor, reference: Tensor) -> float:
    """Largest difference relative to the largest score of its layer, both [layers, neurons]."""
    return float(((scores - reference).abs().amax(1) / reference.abs().amax(1)).max())


def relative_error(scores: Tensor, reference: Tensor) -> float:
    """Euclidean length of the difference over that of the reference."""
    return float((scores - reference).norm() / reference.norm())


def _layer_by_layer(
    subject: Subject, layers: Sequence[int], one_layer: Callable[[int, Tensor, int], Tensor]
) -> Timed[Tensor]:
    clean = timed(lambda: _clean(subject))
    activations, target = clean.result
    scores, seconds = [], []
    for layer in layers:
        found = timed(partial(one_layer, layer, activations[layer], target))
        scores.append(found.result)
        seconds.append(found.seconds)
    whole = clean.seconds + sum(seconds) / len(layers) * subject.n_layers
    return Timed(whole, torch.stack(scores), seconds)


@torch.no_grad()
def _clean(subject: Subject) -> tuple[list[Tensor], int]:
    """The last token's activation in every layer, [neurons] each, and the predicted class, from one forward."""
    kept: list[Tensor] = []
    handles = [
        projection.register_forward_pre_hook(lambda module, args: kept.append(args[0][0, -1]))
        for projection in subject.projections
    ]
    try:
        output = subject.backbone(subject.input_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return kept, int(subject.head(output.last_hidden_state[0, -1]).argmax())
