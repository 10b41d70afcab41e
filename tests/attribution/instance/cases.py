"""Small heads and splits shared by the tests of instance attribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from twinlens.attribution.instance.inputs import HeadInputs
from twinlens.attribution.instance.protocol import InstanceMethod, InstanceScorer

HIDDEN = 5
CLASSES = 3
CHOICES = 4
BUDGET = 2**26


def make_head(kind: str, hidden: int = HIDDEN, classes: int = CLASSES, seed: int = 0) -> nn.Module:
    """`linear` as transformers' score layer, `linear_bias`, `mlp` as the project's, `mlp_no_bias`, `deep`."""
    torch.manual_seed(seed)
    heads = {
        "linear": lambda: nn.Linear(hidden, classes, bias=False),
        "linear_bias": lambda: nn.Linear(hidden, classes),
        "mlp": lambda: nn.Sequential(nn.Linear(hidden, 4), nn.Tanh(), nn.Linear(4, classes)),
        "mlp_no_bias": lambda: nn.Sequential(
            nn.Linear(hidden, 4, bias=False), nn.Tanh(), nn.Linear(4, classes, bias=False)
        ),
        "deep": lambda: nn.Sequential(
            nn.Linear(hidden, 4), nn.GELU(), nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, classes)
        ),
    }
    return heads[kind]().eval()


def make_split(head: nn.Module, n: int, seed: int = 1, hidden: int = HIDDEN, classes: int = CLASSES) -> HeadInputs:
    """Random features and labels."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, hidden, generator=generator)
    return HeadInputs(features, torch.randint(0, classes, (n,), generator=generator), head)


def make_choices(head: nn.Module, n: int, seed: int = 1, choices: int = CHOICES, hidden: int = HIDDEN) -> HeadInputs:
    """Random features of several sequences per example, for heads with one output."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, choices, hidden, generator=generator)
    return HeadInputs(features, torch.randint(0, choices, (n,), generator=generator), head)


def choice_head(kind: str) -> nn.Module:
    """A head of one output per sequence."""
    return make_head(kind, classes=1)


def score_matrix(scorer: InstanceScorer, test: HeadInputs) -> Tensor:
    """All scores at once, [tests, n_train]."""
    return scorer.scores(scorer.query(test, torch.arange(len(test))), 0, scorer.n_train)


def prepared_scores(method: InstanceMethod, train: HeadInputs, test: HeadInputs) -> Tensor:
    """All scores of a method, [tests, n_train]."""
    return score_matrix(method.prepare(train, BUDGET), test)
