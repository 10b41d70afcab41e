"""Neuron scores of completions: every token by itself, teacher-forced, and their sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.neuron.ranking import NeuronScores, at_sites, rank_neurons, with_coefficient
from twinlens.attribution.protocols import Batch


def completion_scores(
    method: Any, model: Any, batch: Batch, completions: Completions, memory_budget: int, width: int
) -> NeuronScores:
    """The `top_k` best neurons of every example for the log-probability of its completion, less that of its foil.

    At every token the neurons that are scored are those of the token before it, at which the model says it; a neuron
    is the same neuron at all of them, and its scores add up. Scores of a foil's tokens come with their sign turned.

    Args:
        method: a neuron method whose scores add up (`Method.adds_up`).
        model: the engine that it asks for.
        batch: prompts.
        completions: of the examples of the batch.
        memory_budget: bytes that one token's scores may take; scores do not depend on it.
        width: tokens of the longest example of the split, its foil among them.

    Returns:
        Scores in nats with the share of each token (`token`); `target` is the first token, `target_prob` the
        probability of the whole completion, `completeness` the sum of the tokens' residuals.

    Example:
        >>> import torch
        >>> from twinlens.attribution.completions import Completions
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.completion_scores import completion_scores
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> method, two = IntegratedGradients(top_k=2), Completions([[1, 0], [1]])
        >>> found = completion_scores(method, ExampleNeuronModel(), example_batch(), two, BUDGET, width=2)
        >>> found.token.shape, found.token[1, 0].isnan().tolist()  # the second has one token
        (torch.Size([2, 2, 2]), [False, True])
        >>> bool((found.token.nansum(-1) - found.score).abs().max() < 1e-5)
        True
    """
    log_prob = residual = None
    n, n_ffn = len(completions), 0
    every: Tensor | None = None
    for step in completions.steps(batch):
        found = method.token_scores(model, step.batch, memory_budget)
        scores, n_ffn = found.of_units(), found.n_ffn
        if every is None or log_prob is None:
            every = scores.new_full((n, width, *scores.shape[1:]), torch.nan)
            log_prob = scores.new_zeros(n)
            residual = None if found.completeness is None else scores.new_zeros(n, scores.shape[1])
        every[step.rows, step.place] = step.sign * scores
        if step.sign > 0:
            log_prob[step.rows] += found.log_prob.to(log_prob)
        if residual is not None:
            residual[step.rows] += found.completeness
    assert every is not None, "every example has a token"
    assert log_prob is not None
    present = with_coefficient(model.experts, every.nan_to_num().abs().amax(1))
    ranked = rank_neurons(every.nansum(1), method.top_k, None, log_prob.exp(), residual, present)
    place = (ranked.layer.long() * every.shape[-1] + ranked.unit.long()).clamp(min=0)[:, None].expand(-1, width, -1)
    shares = every.flatten(2).gather(2, place).transpose(1, 2)
    first = torch.tensor([ids[0] for ids in completions.tokens], device=every.device)
    both = n_ffn < every.shape[-1]
    ranked = at_sites(ranked, n_ffn) if both else ranked
    return NeuronScores(**{**vars(ranked), "target": first, "token": shares})
