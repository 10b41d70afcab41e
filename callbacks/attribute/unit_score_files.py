"""Tables of the causal bridge: lists of train examples for each unit of a prediction, and units for a train example."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from safetensors.torch import load_file
from torch import Tensor

from twinlens.attribution.bridge.units import HEAD, Units
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.neuron.ranking import SITES
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.score_files import instance_table, neuron_table, write_description
from twinlens.callbacks.store.store import Finish

BUILT = "built.safetensors"
"""File of the units that each train example built most, where the run asks for them."""
UNIT_COLUMNS = ("index", "role", "unit_kind", "site", "layer", "unit", "contribution")
"""Columns that tell the rows of a table of units apart, and what the unit contributes."""


def write_unit_scores(
    folder: Path, units: Units, contribution: Tensor, lists: InstanceScores, explained: Mapping[str, Tensor]
) -> None:
    """Write one row per pair of an example and a unit.

    Args:
        units: all pairs.
        contribution: φ of each, nats, [pairs].
        lists: of each, their `index` the numbers of the pairs.
        explained: what is explained of every example of the split, [examples] each.
    """
    columns = {
        "index": pyarrow.array(units.index.numpy()),
        **{name: pyarrow.array(values[units.index].long().numpy()) for name, values in explained.items()},
        "role": pyarrow.array(["value"] * len(units), pyarrow.string()),
        "unit_kind": pyarrow.array([HEAD if head else "neuron" for head in units.head.tolist()], pyarrow.string()),
        "site": pyarrow.array([SITES[site] for site in units.site.tolist()], pyarrow.string()),
        "layer": pyarrow.array(units.layer.int().numpy()),
        "unit": pyarrow.array(units.unit.int().numpy()),
        "contribution": pyarrow.array(contribution.double().numpy()),
    }
    ranked = instance_table(lists)
    columns |= {name: ranked.column(name) for name in ranked.column_names if name != "index"}
    datasets.Dataset(pyarrow.table(columns)).save_to_disk(str(folder))


def read_units(folder: Path) -> tuple[Units, Tensor, Tensor]:
    """Stored pairs of a split, their contributions, [pairs], float64, and their best train rows, [pairs, k]."""
    stored = datasets.load_from_disk(str(folder))
    numbers = stored.with_format("torch")
    site = torch.tensor([SITES.index(name) for name in stored["site"][:]])
    head = torch.tensor([kind == HEAD for kind in stored["unit_kind"][:]])
    index, layer, unit = (numbers[name][:].long() for name in ("index", "layer", "unit"))
    contribution = torch.tensor(stored["contribution"][:], dtype=torch.float64)
    return Units(index, site, layer, unit, head), contribution, numbers["top_index"][:].long()


class BuiltReads(Reads):
    """Units kept of each train example by the pass of another method; there is none of its own."""

    def inputs(self, split: str) -> dict[str, Any]:
        """That method's stored scores, and the train split's predictions."""
        session = self.session
        stored = session.scores[self.method.of, split].name
        return {"units": stored, "examples": session.predictions["train"].fingerprint, "split": split}

    def build(self, split: str, folder: Path) -> Finish:
        """Write `train/` and `method.yaml`, in the first process."""
        return lambda: self._write(split, folder)

    def _write(self, split: str, folder: Path) -> None:
        found = load_file(self.session.scores[self.method.of, split] / BUILT)
        rows = {name: values[:, : self.method.top_k] for name, values in found.items()}
        label = self.session.predictions["train"].column("label")
        n_train = len(label)
        rows |= {"index": torch.arange(n_train), "target": label, "target_prob": torch.full((n_train,), torch.nan)}
        table = neuron_table(rows)
        explained = [row[kept].tolist() for row, kept in zip(rows["explained"], rows["layer"] >= 0, strict=True)]
        table = table.append_column("explained", pyarrow.array(explained, pyarrow.list_(pyarrow.int64())))
        datasets.Dataset(table).save_to_disk(str(folder / "train"))
        write_description(folder, self.name, self.method, self.method.describe())

    def cost(self, plan: Planned, split: str) -> PassCost:
        """The lists; there is no pass."""
        size = len(plan.lengths["train"]) * self.method.top_k
        return PassCost(0.0, 54 * size, 44 * size, on_host=True, remark="no pass")
