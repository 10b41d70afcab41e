"""Base line of faithfulness, r = 0: every neuron of a site switched off (sufficiency), or none (comprehensiveness)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from twinlens.attribution.evaluation.questions import PROBABILITY, Question

BASE_LINE = "no_neurons"
"""Method name of the base line in results: a list without any neuron, which says the same at every r."""


def base_line_name(site: str) -> str:
    """Name of the empty list of a site, `ffn`, `attn` or `both`."""
    return BASE_LINE if site == "ffn" else f"{BASE_LINE}/{site}"


def base_lines(names: Iterable[str], sites: Mapping[str, str]) -> dict[str, str]:
    """Name of the empty list → site, for every site that lists are of.

    Args:
        names: of the lists.
        sites: of each list that ranks others than FFN neurons.

    Example:
        >>> from twinlens.attribution.evaluation.base_line import base_lines
        >>> base_lines(["ig", "ig_attn"], {"ig_attn": "attn"})
        {'no_neurons': 'ffn', 'no_neurons/attn': 'attn'}
    """
    return {base_line_name(site): site for site in dict.fromkeys(sites.get(name, "ffn") for name in names)}


def no_neurons(n_examples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Layers and units of the empty list, int32 [examples, 0] each."""
    empty = torch.zeros(n_examples, 0, dtype=torch.int32, device=device)
    return empty, empty


def base_line_answers(answers: dict[str, Tensor], name: str, questions: Sequence[Question]) -> dict[str, Tensor]:
    """Answers about an empty list to questions at any r: with nothing kept those at r = 0, with nothing removed none.

    Args:
        answers: of other lists, and of the empty one to sufficiency at r = 0, which is taken out.
        name: of the empty list.
        questions: about it.

    Returns:
        as `Faithfulness.answers`.
    """
    nothing_kept = Question(name, "sufficiency", 0)
    unedited = answers[PROBABILITY]
    found: dict[str, Tensor] = {}
    for question in questions:
        if question.test == "sufficiency":
            found[question.key] = answers[nothing_kept.key]
            found[question.probability_key] = answers[nothing_kept.probability_key]
        else:
            found[question.key] = torch.ones_like(unedited, dtype=torch.bool)
            found[question.probability_key] = unedited
    for key in (nothing_kept.key, nothing_kept.probability_key):
        answers.pop(key, None)
    return found
