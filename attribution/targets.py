"""Targets: what is explained of each example, one output, or how much likelier it is than another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.protocols import Batch


@dataclass(frozen=True)
class Targets:
    """Outputs that are explained, of the examples of a split.

    φ = log p(target), or with `against` φ = log p(target) − log p(against), in nats. Instance methods differentiate φ
    on the side of the test; neuron methods share φ, or the target's probability, out among neurons.

    Attributes:
        target: class, choice or token, [examples], int64; a folded class where there is a `fold`.
        against: the other one, [examples], int64; None: the target alone is explained.
        fold: class → folded class, [classes]. With it p(target) is the sum over the classes of the folded one.
        completions: what is explained instead where examples are prompts and whatever follows them is explained whole;
            `target` and `against` are then its first token and the foil's.

    Example:
        >>> import torch
        >>> from twinlens.attribution.targets import Targets
        >>> targets = Targets(torch.tensor([1, 0, 1]), against=torch.tensor([0, 1, 1]))
        >>> targets.left_out  # nothing sets the third apart from itself
        tensor([False, False,  True])
        >>> targets.at(torch.tensor([2])).target
        tensor([1])
    """

    target: Tensor
    against: Tensor | None = None
    fold: Tensor | None = None
    completions: Completions | None = None

    def __len__(self) -> int:
        return len(self.target)

    def at(self, index: Tensor) -> Targets:
        """Those of some examples, by their rows, [rows]."""
        against = None if self.against is None else self.against[index]
        completions = None if self.completions is None else self.completions.at(index)
        return Targets(self.target[index], against, self.fold, completions)

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        target, against, fold = (None if part is None else part.to(device) for part in self._tensors)
        assert target is not None
        return Targets(target, against, fold, self.completions)

    @property
    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.target, self.against, self.fold

    @property
    def left_out(self) -> Tensor:
        """Examples whose target is what it would be explained against, [examples], bool: φ is 0 whatever is done."""
        if self.against is None or self.completions is not None:  # a foil is never the completion itself
            return torch.zeros_like(self.target, dtype=torch.bool)
        return self.target == self.against

    def of_batch(self, batch: Batch) -> Batch:
        """The batch with the keys `target` and, where there is one, `against`, [batch] each."""
        index, here = batch["index"].cpu(), batch["index"].device
        found = {**batch, "target": self.target[index].to(here)}
        return found if self.against is None else {**found, "against": self.against[index].to(here)}


def target_of(batch: Batch, scores: Tensor) -> Tensor:
    """What is explained of a batch, [batch], int64: its key `target`, and without one what scores highest.

    Args:
        scores: of the model, [batch, outputs].

    Example:
        >>> import torch
        >>> from twinlens.attribution.targets import target_of
        >>> target_of({"target": torch.tensor([0])}, torch.tensor([[0.1, 0.9]])).item()
        0
        >>> target_of({}, torch.tensor([[0.1, 0.9]])).item()
        1
    """
    return batch["target"].long() if "target" in batch else scores.argmax(-1)


def phi(log_prob: Tensor, targets: Targets) -> Tensor:
    """φ of examples, in nats: log p of the target, less that of what it is explained against, [...].

    Args:
        log_prob: log-probabilities, [..., tests, classes].
        targets: of the tests; of a folded target the probabilities of its classes are summed.

    Example:
        >>> import torch
        >>> from twinlens.attribution.targets import Targets, phi
        >>> log_prob = torch.tensor([[0.5, 0.25, 0.25]]).log()
        >>> phi(log_prob, Targets(torch.tensor([1]), fold=torch.tensor([0, 1, 1]))).exp()  # ¼ + ¼
        tensor([0.5000], dtype=torch.float64)
        >>> phi(log_prob, Targets(torch.tensor([0]), against=torch.tensor([2]))).exp().round()  # twice as likely
        tensor([2.], dtype=torch.float64)
    """
    log_prob, fold = log_prob.double(), targets.fold

    def of(classes: Tensor) -> Tensor:
        if fold is None:
            return log_prob.gather(-1, classes.expand(log_prob.shape[:-1])[..., None])[..., 0]
        own = fold == classes[:, None]  # [tests, classes]
        return log_prob.masked_fill(~own, -torch.inf).logsumexp(-1)

    return of(targets.target) if targets.against is None else of(targets.target) - of(targets.against)
