"""Units of predictions, and what each of them contributes to one: a functional that stands where a test loss does.

The contribution of a neuron or head to a prediction is φ = log p(target) − log p(target | the unit's coefficients are 0
at the answer token). Along the path from 0 to its coefficient a it is the integral of ∂log p/∂a da: the coefficient
times its mean effect, exactly. Both terms are forwards of the same parameters, so that the gradient of φ is a
difference of two ordinary gradients, over every layer below and above the unit, its own value vector among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinlens.attribution.bridge.instance_neurons import first_occurrence
from twinlens.attribution.errors import UserError
from twinlens.attribution.method import UnitKind
from twinlens.attribution.neuron.ranking import ATTENTION, FFN, SITES
from twinlens.attribution.targets import Targets, phi

HEAD = "head"
UNIT_WORDS = (*SITES, HEAD)
"""Kinds of units by name: neurons of either site, and whole heads."""

FUNCTIONAL = (
    "contribution of the unit: log p of the target less log p with the unit's coefficients 0 at the answer token, "
    "which is the coefficient times its mean effect between 0 and the coefficient"
)
"""What is differentiated, in words for `method.yaml`."""


@dataclass(frozen=True)
class Units:
    """Pairs of an example and a unit, one functional each.

    Attributes:
        index: row of the example in its split, [pairs], int64.
        site: number in `SITES`, [pairs], int64.
        layer, unit: address, [pairs], int64; of a head its number.
        head: whether the unit is a whole head, [pairs], bool.

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.units import Units
        >>> units = Units.named([["ffn", 3, 17], ["head", 1, 0]], torch.tensor([4, 5]))  # two units of two examples
        >>> units.index.tolist(), units.layer.tolist(), units.head.tolist()
        ([4, 4, 5, 5], [3, 1, 3, 1], [False, True, False, True])
        >>> units.name(1)
        'head 0 of layer 1'
    """

    index: Tensor
    site: Tensor
    layer: Tensor
    unit: Tensor
    head: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def named(units: Sequence[Sequence[str | int]], index: Tensor) -> Units:
        """The same units of every example.

        Args:
            units: [kind, layer, unit] each, see `UNIT_WORDS`.
            index: rows of the examples, [examples].
        """
        n, words = len(index), [str(unit[0]) for unit in units]
        site = torch.tensor([FFN if word == SITES[FFN] else ATTENTION for word in words])
        layer, unit = (torch.tensor([int(each[place]) for each in units]) for place in (1, 2))
        head = torch.tensor([word == HEAD for word in words])
        return Units(index.repeat_interleave(len(words)), *(part.repeat(n) for part in (site, layer, unit, head)))

    @staticmethod
    def listed(site: Tensor, layer: Tensor, unit: Tensor, unit_kind: UnitKind) -> Units:
        """The units of every example's list, in its order, each once.

        Args:
            site, layer, unit: of each entry, [examples, entries]; layer −1: none.
            unit_kind: of all of them, `neuron` or `head`.

        Example:
            >>> import torch
            >>> from twinlens.attribution.bridge.units import Units
            >>> one = torch.tensor([[1, 1, 0]])
            >>> Units.listed(torch.zeros_like(one), one, torch.tensor([[4, 4, 2]]), "neuron").unit.tolist()
            [4, 2]
        """
        numbers = torch.stack([site, layer, unit], -1).flatten(0, 1).unique(dim=0, return_inverse=True)[1]
        kept = (layer >= 0) & first_occurrence(numbers.view(layer.shape))
        index = torch.arange(len(layer))[:, None].expand_as(layer)[kept]
        head = torch.full((len(index),), unit_kind == HEAD)
        return Units(index, site[kept].long(), layer[kept].long(), unit[kept].long(), head)

    def at(self, pairs: Tensor) -> Units:
        """Some of the pairs, by their numbers, [pairs]."""
        return Units(*(part[pairs] for part in vars(self).values()))

    def to(self, device: torch.device) -> Units:
        """The same on another device."""
        return Units(*(part.to(device) for part in vars(self).values()))

    def numbers(self) -> Tensor:
        """A number of each pair's unit, the same for the same unit of another example, [pairs], int64."""
        columns = torch.stack([self.head.long(), self.site, self.layer, self.unit], 1)
        return columns.unique(dim=0, return_inverse=True)[1]

    def name(self, pair: int) -> str:
        """A pair's unit in words."""
        kind = "head" if bool(self.head[pair]) else f"{SITES[int(self.site[pair])].upper()} neuron"
        return f"{kind} {int(self.unit[pair])} of layer {int(self.layer[pair])}"


def require_words(setting: str, units: Sequence[Sequence[str | int]]) -> None:
    """Refuse units that are not written as [kind, layer, unit], and one that is named twice.

    Args:
        setting: that names them.

    Raises:
        UserError: naming the first of them.
    """
    for unit in units:
        written = isinstance(unit, list | tuple) and len(unit) == 3 and unit[0] in UNIT_WORDS
        if not written or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in unit[1:]):
            raise UserError(
                f"{setting} names {unit}; expected [kind, layer, unit] with a kind of {', '.join(UNIT_WORDS)} and "
                "numbers from 0 on: write [[ffn,3,17]] for FFN neuron 17 of layer 3."
            )
    known = [tuple(unit) for unit in units]
    twice = next((unit for place, unit in enumerate(known) if unit in known[:place]), None)
    if twice is not None:
        raise UserError(f"{setting} names {list(twice)} twice; expected each unit once: leave one out.")


def require_units(
    setting: str, units: Sequence[Sequence[str | int]], n_layers: int, n_of_kind: dict[str, int], model: str
) -> None:
    """Refuse units that a model does not have.

    Args:
        setting: that names them.
        n_layers: of the model.
        n_of_kind: units of a layer by the words of `UNIT_WORDS`.
        model: its type.

    Raises:
        UserError: naming the first of them.
    """
    for kind, layer, unit in units:
        most = n_of_kind[str(kind)]
        if int(layer) >= n_layers or int(unit) >= most:
            raise UserError(
                f"{setting} names unit {unit} of kind {kind} in layer {layer}, but the {model} model has {n_layers} "
                f"layers with {most} such units each; expected a layer below {n_layers} and a unit below {most}: name "
                "another one."
            )


def contributions(scores: Tensor, targets: Targets) -> Tensor:
    """φ of pairs, in nats, [pairs], float64.

    Args:
        scores: logits of each pair as the model is, and of the same without its unit behind it, [2 · pairs, outputs].
        targets: what is explained, [pairs].

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.units import contributions
        >>> from twinlens.attribution.targets import Targets, phi
        >>> logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # one pair: the unit raises the first logit
        >>> contributions(logits, Targets(torch.tensor([0]))).round(decimals=2)
        tensor([0.3800], dtype=torch.float64)
    """
    log_prob = scores.double().log_softmax(-1)
    return phi(log_prob[0::2], targets) - phi(log_prob[1::2], targets)


def best_units(scores: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of each row the k pairs with the highest scores, no unit twice: a unit's best pair stands for it.

    Args:
        scores: [rows, pairs].
        numbers: of the pairs' units (`Units.numbers`), [pairs] or [rows, pairs]; −1: no pair.
        k: pairs of each row at most.

    Returns:
        places of the pairs, [rows, min(k, pairs)], −1 where there are fewer units, and their scores (0 there).

    Example:
        >>> import torch
        >>> from twinlens.attribution.bridge.units import best_units
        >>> best_units(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([3, 8, 8]), k=3)  # two pairs of unit 8
        (tensor([[ 1,  0, -1]]), tensor([[0.9000, 0.1000, 0.0000]]))
    """
    ordered, place = scores.sort(dim=1, descending=True, stable=True)
    own = numbers.expand_as(scores).gather(1, place)
    kept = first_occurrence(own) & (own >= 0)
    first = (~kept).int().argsort(dim=1, stable=True)[:, :k]
    kept = kept.gather(1, first)
    return place.gather(1, first).where(kept, -1), ordered.gather(1, first).where(kept, 0)
