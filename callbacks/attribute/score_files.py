"""Stored scores as tables: the contract's columns, written from tensors and read back block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.compute
import torch
from torch import Tensor

from twinlens.attribution.bridge.neuron_lists import NeuronLists
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.method import Method, Role, UnitKind
from twinlens.attribution.neuron.ranking import ATTENTION, FFN, FIRST_ATTENTION, SITES
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.callbacks.store.files import write_yaml
from twinlens.callbacks.store.formats import FORMAT, METHOD_FORMAT

AGAINST = "target_against"
"""Column of the output that a target is set apart from."""
CONTROL = "control"
"""Key of method.yaml that says of a control that it is one."""
ROWS_READ_AT_ONCE = 4096
"""Rows of a stored table that are in memory as a table; what is kept of them is tensors."""


def score_name(name: str, seed: int | None) -> str:
    """Folder of a method's scores below `scores/`."""
    return name if seed is None else f"{name}/seed{seed}"


def write_description(folder: Path, name: str, method: Method, described: Mapping[str, object]) -> None:
    """Write `method.yaml`: what the method says of itself, and what it says of its settings on this model and data.

    Args:
        described: resolved settings; where sign or unit is among them, it is the better answer.
    """
    said: dict[str, object] = {FORMAT: METHOD_FORMAT, "name": name, **({CONTROL: True} if method.is_control else {})}
    said |= {key: text for key, text in (("sign", method.sign), ("unit", method.unit)) if text}
    write_yaml(folder / "method.yaml", {**said, **described, **method.choices})


def neuron_table(
    rows: Mapping[str, Tensor],
    role: Role = "value",
    unit_kind: UnitKind = "neuron",
    experts: ExpertPlaces | None = None,
) -> pyarrow.Table:
    """The contract's columns; entries with layer −1 stand for shorter lists and are left out.

    Args:
        rows: the parts of `NeuronScores` with `index`; without `site` all units are FFN neurons, without `position`
            none has one; with `head`, bool, lists hold heads among neurons.
        role, unit_kind: of the method.
        experts: of the model; with them come the columns of `expert_columns`.
    """
    kept = rows["layer"] >= 0
    lengths = kept.sum(1)
    offsets = pyarrow.array(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int().numpy())

    def listed(values: Tensor) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values[kept].numpy()))

    def constant(value: str) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array([value] * int(lengths.sum()), pyarrow.string()))

    def worded(numbers: Tensor, words: Sequence[str]) -> pyarrow.Array:
        coded = pyarrow.DictionaryArray.from_arrays(pyarrow.array(numbers[kept].int().numpy()), list(words))
        return pyarrow.ListArray.from_arrays(offsets, coded.cast(pyarrow.string()))

    site = rows.get("site", torch.full_like(rows["layer"], FFN))
    completeness = rows.get("completeness")
    return pyarrow.table(
        {
            "index": pyarrow.array(rows["index"].numpy()),
            "target": pyarrow.array(rows["target"].long().numpy()),
            **({AGAINST: pyarrow.array(rows[AGAINST].long().numpy())} if AGAINST in rows else {}),
            "target_prob": pyarrow.array(rows["target_prob"].float().numpy()),
            "role": constant(role),
            "unit_kind": worded(rows["head"], ("neuron", "head")) if "head" in rows else constant(unit_kind),
            "site": worded(site, SITES),
            "layer": listed(rows["layer"].int()),
            "unit": listed(rows["unit"].int()),
            **{
                name: pyarrow.ListArray.from_arrays(offsets, values)
                for name, values in expert_columns(
                    experts if unit_kind == "neuron" else None, rows["layer"][kept], rows["unit"][kept], site[kept]
                ).items()
            },
            "position": listed(rows.get("position", torch.full_like(rows["unit"], -1)).int()),
            "score": listed(rows["score"].float()),
            **({} if "token" not in rows else {"token": _shares(rows["token"], kept)}),
            "completeness": pyarrow.array(
                [None] * len(kept) if completeness is None else completeness.tolist(), pyarrow.list_(pyarrow.float32())
            ),
        }
    )


def expert_columns(experts: ExpertPlaces | None, layer: Tensor, unit: Tensor, site: Tensor) -> dict[str, pyarrow.Array]:
    """Columns `expert` and `expert_unit` of entries, each [entries]; none where the model has no experts.

    −1 stands in both for attention neurons and for layers without experts; the number behind the last routed expert is
    the shared experts'.
    """
    if experts is None:
        return {}
    found = experts.of(layer, torch.where(site == FFN, unit, -1))
    return {name: pyarrow.array(own.int().numpy()) for name, own in zip(("expert", "expert_unit"), found, strict=True)}


def told_of_experts(experts: ExpertPlaces | None) -> dict[str, object]:
    """What method.yaml and neurons.yaml say of a model's experts; nothing where it has none."""
    if experts is None:
        return {}
    return {
        "experts": experts.described(),
        "coefficient": "activation times the router's weight, which stays that of the unedited token",
    }


def _shares(token: Tensor, kept: Tensor) -> pyarrow.Array:
    """Shares of each entry's score by the tokens of its example, which ends where they are NaN.

    Args:
        token: [examples, entries, tokens].
        kept: entries of each list, bool [examples, entries].
    """
    lists = [[entry[~entry.isnan()].tolist() for entry in row[own]] for row, own in zip(token, kept, strict=True)]
    return pyarrow.array(lists, pyarrow.list_(pyarrow.list_(pyarrow.float32())))


def instance_table(
    scores: InstanceScores,
    positions: Mapping[str, Tensor] | None = None,
    explained: Mapping[str, Tensor] | None = None,
) -> pyarrow.Table:
    """The contract's columns of instance scores; a list of −1 stands for a test that is left out, and is empty.

    Args:
        positions: further lists, of tokens in their texts or of shares of each score, [tests, entries, …].
        explained: further columns, what is explained of each test, [tests].
    """
    kept = scores.top_index >= 0
    offsets = pyarrow.array(torch.cat([torch.zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)]).int().numpy())

    def lists(values: Tensor) -> pyarrow.Array:
        entries = values[kept]
        if entries.dim() > 1:
            return pyarrow.ListArray.from_arrays(
                offsets, pyarrow.array(entries.tolist(), pyarrow.list_(pyarrow.float32()))
            )
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(entries.numpy()))

    columns = {"index": pyarrow.array(scores.index.numpy())}
    columns |= {name: pyarrow.array(values.long().numpy()) for name, values in (explained or {}).items()}
    for name in ("top_index", "top_score", "bottom_index", "bottom_score"):
        columns[name] = lists(getattr(scores, name))
    columns |= {name: lists(values) for name, values in (positions or {}).items()}
    return pyarrow.table(columns)


def read_neuron_lists(folder: Path, length: int, n_layers: int, n_neurons: int, n_attention: int) -> NeuronLists:
    """The first neurons of every example's stored list.

    Attention neurons follow the FFN neurons of their layer: attention neuron k has the unit n_neurons + k, and a layer
    of the lists n_neurons + n_attention units, so that neurons of the two sites never have one address.

    Args:
        folder: a stored split of a neuron method.
        length: longest list that is kept.
        n_layers, n_neurons, n_attention: of the model; FFN and attention neurons of one layer.

    Returns:
        [examples, length], −1 in layer and unit where a list is shorter.
    """
    blank: dict[str, tuple[torch.dtype, float]] = {
        "layer": (torch.int32, -1),
        "unit": (torch.int32, -1),
        "score": (torch.float32, 0.0),
        "site": (torch.int32, FFN),
    }
    lists = _read_lists(folder, length, blank)
    unit = lists["unit"] + n_neurons * (lists["site"] == ATTENTION).int()
    return NeuronLists(lists["layer"], unit, lists["score"], n_layers, n_neurons + n_attention)


def read_addresses(folder: Path, length: int) -> tuple[Tensor, Tensor]:
    """Layer and unit of every example's first neurons, int32 [examples, length] each; −1 where a list is shorter.

    Attention neurons have `FIRST_ATTENTION` added to their unit.
    """
    blank: dict[str, tuple[torch.dtype, float]] = {
        "layer": (torch.int32, -1), "unit": (torch.int32, -1), "site": (torch.int32, FFN),
    }  # fmt: skip
    lists = _read_lists(folder, length, blank)
    return lists["layer"], lists["unit"] + FIRST_ATTENTION * (lists["site"] == ATTENTION).int()


def read_best_instances(folder: Path, length: int) -> tuple[Tensor, Tensor]:
    """Train rows and scores of the first instances of every example's stored list, [examples, at most length] each."""
    lists = _read_lists(folder, length, {"top_index": (torch.int64, -1), "top_score": (torch.float32, 0.0)})
    longest = int((lists["top_index"] >= 0).sum(1).max()) if len(lists["top_index"]) else 0
    return lists["top_index"][:, :longest], lists["top_score"][:, :longest]


def _read_lists(folder: Path, length: int, blank: Mapping[str, tuple[torch.dtype, float]]) -> dict[str, Tensor]:
    """List columns as tensors [rows, length]; `blank` gives each column's type and what stands where a list ended.

    Sites are read as their numbers in `SITES`.
    """
    stored = datasets.load_from_disk(str(folder))
    read = {name: torch.full((len(stored), length), fill, dtype=dtype) for name, (dtype, fill) in blank.items()}
    for start, table in _blocks(stored.select_columns(list(blank)).with_format("arrow")):
        for name in blank:
            lists = table.column(name).combine_chunks()
            lengths = torch.from_numpy(lists.value_lengths().to_numpy(zero_copy_only=False).copy()).long()
            if not int(lengths.sum()):
                continue
            flat = lists.flatten()
            if pyarrow.types.is_string(flat.type):
                flat = pyarrow.compute.index_in(flat, value_set=pyarrow.array(SITES))
            values = torch.from_numpy(flat.to_numpy(zero_copy_only=False).copy())
            row = torch.arange(len(lengths)).repeat_interleave(lengths)
            place = torch.arange(len(values)) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
            kept = place < length
            read[name][start + row[kept], place[kept]] = values[kept].to(read[name].dtype)
    return read


def _blocks(stored: Any) -> Iterator[tuple[int, Any]]:
    for start in range(0, len(stored), ROWS_READ_AT_ONCE):
        yield start, stored[start : start + ROWS_READ_AT_ONCE]
