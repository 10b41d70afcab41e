"""Instance scores of units' contributions: the pass of whole gradients, with a functional for each unit of each test.

The tests of the pass are pairs of an example and a unit. Each is held as the solved gradient of its contribution, in
blocks that the memory budget bounds; of the train examples the best and the worst of each pair are kept and, where
`neurons_of_data` asks for them, the best units of each train example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from twinlens.attribution.bridge.data_of_neurons import DataOfNeurons
from twinlens.attribution.bridge.units import UNIT_WORDS, Units, best_units, contributions
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.stream import concatenate
from twinlens.attribution.neuron.ranking import ATTENTION, FIRST_ATTENTION
from twinlens.attribution.protocols import Batch
from twinlens.attribution.targets import Targets
from twinlens.callbacks.attribute.explained_outputs import explained_columns, explained_words, left_out_of
from twinlens.callbacks.attribute.score_files import read_addresses, write_description
from twinlens.callbacks.attribute.unit_score_files import BUILT, write_unit_scores
from twinlens.callbacks.attribute.whole_gradient_block import GradientBlock, Holder
from twinlens.callbacks.attribute.whole_gradient_inputs import covered_by, cut_batch
from twinlens.callbacks.attribute.whole_gradient_scores import LayerReads, merged_lists
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import PARTIAL_SUMS
from twinlens.callbacks.store.store import Finish
from twinlens.data.sampling import token_lengths
from twinlens.models.anatomy_check import require_parts
from twinlens.models.encoder_anatomy import require_encoder_parts
from twinlens.models.encoders import reads_first
from twinlens.models.footprint import footprint_of
from twinlens.models.unit_removal import UnitRemoval

CONTRIBUTION = "contribution"


class UnitReads(LayerReads):
    """Whole gradients of linear layers, those of units' contributions on the side of the tests."""

    @classmethod
    def refuse(cls, method: Any, architecture: Callable[[], Any]) -> None:
        """See `LayerReads.refuse`, `DataOfNeurons.require_model` and `require_parts`."""
        super().refuse(method, architecture)
        lm = architecture()
        if reads_first(lm):
            require_encoder_parts(lm.base_model)
        else:
            require_parts(lm.base_model, attention=False)
        sizes = footprint_of(lm.base_model)
        counts = (sizes.n_neurons, sizes.query_width, sizes.n_heads)
        method.require_model(sizes.n_layers, dict(zip(UNIT_WORDS, counts, strict=True)), sizes.family)

    def inputs(self, split: str) -> dict[str, Any]:
        """See `LayerReads.inputs`; beside it the lists that name the units, and how many are kept of a train row."""
        named = self.method.of is None
        lists = None if named else self.session.scores[self.method.of, split].name
        return {**super().inputs(split), "lists": lists, "built": self.method.built}

    def build(self, split: str, folder: Path) -> Finish:
        """Score the units of a split and write `<split>/`, of train examples `built.safetensors`, and `method.yaml`."""
        session, name, method = self.session, self.name, self.method
        units = units_of(session, name, method, self.methods, split)
        numbers = units.numbers()
        block_of = partial(UnitBlock, units=units, numbers=numbers, built=method.built)
        layers, inverses, passes = self.passes(split, folder, torch.arange(len(units)), block_of)

        def finish() -> None:
            n_train = len(session.data.splits["train"])
            lists = concatenate(
                [merged_lists(result, tests, method.top_k) for tests, result in passes], min(method.top_k, n_train)
            )
            phi = torch.cat([result.partials[0][CONTRIBUTION] for _, result in passes])
            explained = explained_columns(session, method, split)
            write_unit_scores(folder / split, units, phi, lists, explained)
            if method.built:
                pair = torch.cat([result.rows["pair"] for _, result in passes], 1)
                score = torch.cat([result.rows["pair_score"] for _, result in passes], 1)
                place, best = best_units(score, torch.where(pair < 0, -1, numbers[pair.clamp(min=0)]), method.built)
                chosen = pair.gather(1, place.clamp(min=0)).where(place >= 0, -1)
                save_file(built_lists(units, chosen, best), folder / BUILT)
            covered = covered_by(session, method.params)
            described = {"top_k": method.top_k, "pairs": len(units), **method.describe_layers(layers, inverses)}
            write_description(folder, name, method, {**described, **covered, **explained_words(session, method)})

        return finish

    def n_tests(self, n_examples: int) -> int:
        """Pairs at the highest."""
        return self.method.pairs(n_examples)


def units_of(session: Session, name: str, method: DataOfNeurons, methods: Any, split: str) -> Units:
    """The units that a method asks about, in the order of the examples and their lists.

    Raises:
        UserError: no list has an entry.
    """
    if method.units is not None:
        return Units.named(method.units, torch.nonzero(~left_out_of(session, method, split))[:, 0])
    assert method.of is not None, "checked when the method is made"
    layer, coded = read_addresses(session.scores[method.of, split] / split, method.n_units)
    attention = coded >= FIRST_ATTENTION
    unit = torch.where(attention, coded - FIRST_ATTENTION, coded)
    units = Units.listed(attention.long() * ATTENTION, layer, unit, methods[method.of].unit_kind)
    if not len(units):
        raise UserError(
            f"method.{name}.of={method.of} lists no unit of any {split} row, so that there is none to ask about; "
            f"expected lists with entries: name another method, or units by name in method.{name}.units."
        )
    return units


def unit_contributions(taken: UnitRemoval, units: Units, targets: Targets, batch: Batch) -> Tensor:
    """φ of pairs, [pairs], float64, in nats; differentiable by what the forward's layers put out.

    Args:
        units: of the batch's rows, one each, where the model is.
        targets: of the same rows, likewise.
    """
    scores = taken.scores(batch, units.site == ATTENTION, units.layer, units.unit, units.head)
    return contributions(scores, targets)


@dataclass
class UnitBlock(GradientBlock):
    """A pass over the train split against the contributions of some units.

    Args:
        tests: numbers of pairs.
        units: all pairs.
        numbers: of their units, [pairs].
        built: units that are kept of each train example.
    """

    units: Units
    numbers: Tensor
    built: int

    def __post_init__(self) -> None:
        self.own = False  # train examples are compared with units alone
        super().__post_init__()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        done = super().__call__(batch)
        return {**done, f"{PARTIAL_SUMS}{CONTRIBUTION}": self.phi} if done else done

    def add_tests(self, holder: Holder, device: torch.device) -> Holder:
        """Give a holder every unit's contribution, less its sign as a loss has it."""
        taken = UnitRemoval(self.session.readable)  # looks at the model, so before anything is recorded
        targets = self.session.targets("neuron", self.split)
        found: list[Tensor] = []
        start = 0
        for batch in self.batches(self.units.index[self.order].tolist(), device):
            numbers = torch.tensor(self.order[start : start + len(batch["index"])])
            start += len(numbers)
            for part in cut_batch({**batch, "pair": numbers}, self.cut.need, self.cut.budget // 2):
                own = targets.at(part["index"].cpu()).to(device)
                with recording(self.layers) as tape:
                    phi = unit_contributions(taken, self.units.at(part["pair"]).to(device), own, part)
                    holder.add(tape, -phi, None)
                found.append(phi.detach().cpu())
        self.phi = torch.cat(found)[torch.tensor(self.order).argsort()]
        return holder

    def longest_first(self) -> list[int]:
        """The pairs by the length of their examples."""
        lengths, index = token_lengths(self.session.data.splits[self.split]), self.units.index.tolist()
        return sorted(self.tests.tolist(), key=lambda pair: (-lengths[index[pair]], pair))

    def of_train(self, scores: Tensor) -> dict[str, Tensor]:
        """`pair` and `pair_score` of each train example's best units, [examples, built] each."""
        if not self.built:
            return {}
        order = torch.tensor(self.order, device=scores.device)
        place, best = best_units(scores.T, self.numbers.to(scores.device)[order], self.built)
        return {"pair": torch.where(place < 0, -1, order[place.clamp(min=0)]), "pair_score": best}


def built_lists(units: Units, pair: Tensor, score: Tensor) -> dict[str, Tensor]:
    """Columns of train examples' lists, [train examples, entries] each; `explained` is the prediction's row.

    Args:
        pair: number of each entry's pair, −1 where a list has ended.
        score: of each entry.
    """
    own, none = pair.clamp(min=0), pair < 0
    columns = {"explained" if name == "index" else name: part[own] for name, part in vars(units).items()}
    columns["layer"] = columns["layer"].masked_fill(none, -1)
    return {name: part.contiguous() for name, part in {**columns, "score": score.float()}.items()}
