"""Stored neuron lists of whole texts: a row for each text, whose entries say at which of its tokens they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
import torch
from torch import Tensor

from twinlens.attribution.bridge.text_neuron_lists import TextNeuronLists
from twinlens.attribution.method import Role, UnitKind
from twinlens.attribution.neuron.ranking import ATTENTION, SITES
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.callbacks.attribute.score_files import ROWS_READ_AT_ONCE, expert_columns

ENTRIES = ("layer", "unit", "score", "site", "position")


def text_table(
    rows: Mapping[str, Tensor], n_texts: int, role: Role, unit_kind: UnitKind, experts: ExpertPlaces | None = None
) -> pyarrow.Table:
    """The contract's columns, the entries of all tokens of a text in one list, best first; of equal ones the earlier
    token comes first.

    `target` is the first token that counts, `target_prob` the probability of all that count.

    Args:
        rows: the parts of `TokenLists`, in any order.
        n_texts: rows of the split; one without a token that counts has an empty list and the target −1.
        experts: of the model, as of `neuron_table`.
    """
    order = np.lexsort((rows["position"].numpy(), rows["index"].numpy()))
    rows = {name: values[torch.from_numpy(order)] for name, values in rows.items()}
    width = rows["layer"].shape[1]
    text = rows["index"].numpy().repeat(width)
    flat = {name: rows[name].flatten().numpy() for name in ("layer", "unit", "score", "site")}
    flat["position"] = rows["position"].numpy().repeat(width)
    place = np.lexsort((-flat["score"], text))  # stable: tokens in their order, then each list's own
    place = place[flat["layer"][place] >= 0]
    flat = {name: values[place] for name, values in flat.items()}
    counts = np.bincount(text[place], minlength=n_texts)
    offsets = pyarrow.array(np.concatenate([[0], counts.cumsum()]).astype(np.int32))
    words = pyarrow.DictionaryArray.from_arrays(pyarrow.array(flat["site"].astype(np.int32)), list(SITES))
    log_prob = torch.zeros(n_texts, dtype=torch.float64)
    log_prob.index_add_(0, rows["index"], rows["target_prob"].double().log())
    first = np.searchsorted(rows["index"].numpy(), np.arange(n_texts)).clip(max=len(rows["index"]) - 1)
    own = rows["index"].numpy()[first] == np.arange(n_texts)

    def listed(values: pyarrow.Array) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(offsets, values)

    def constant(value: str) -> pyarrow.Array:
        return listed(pyarrow.array([value] * len(place), pyarrow.string()))

    entries = (torch.from_numpy(flat[name]) for name in ("layer", "unit", "site"))
    of_experts = expert_columns(experts if unit_kind == "neuron" else None, *entries)
    return pyarrow.table(
        {
            "index": pyarrow.array(np.arange(n_texts)),
            "target": pyarrow.array(np.where(own, rows["target"].numpy()[first], -1)),
            "target_prob": pyarrow.array(log_prob.exp().float().numpy()),
            "role": constant(role),
            "unit_kind": constant(unit_kind),
            "site": listed(words.cast(pyarrow.string())),
            "layer": listed(pyarrow.array(flat["layer"].astype(np.int32))),
            "unit": listed(pyarrow.array(flat["unit"].astype(np.int32))),
            **{name: listed(values) for name, values in of_experts.items()},
            "position": listed(pyarrow.array(flat["position"].astype(np.int32))),
            "score": listed(pyarrow.array(flat["score"].astype(np.float32))),
            "completeness": pyarrow.array([None] * n_texts, pyarrow.list_(pyarrow.float32())),
        }
    )


def read_text_lists(folder: Path, length: int, n_layers: int, n_neurons: int, n_attention: int) -> TextNeuronLists:
    """The first neurons of every token's list, the tokens of a text in their order.

    Args:
        folder, length, n_layers, n_neurons, n_attention: as of `read_neuron_lists`.
    """
    stored = datasets.load_from_disk(str(folder))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*ENTRIES, "text")}
    for start in range(0, len(stored), ROWS_READ_AT_ONCE):
        table = stored.select_columns(list(ENTRIES)).with_format("arrow")[start : start + ROWS_READ_AT_ONCE]
        columns = {name: table.column(name).combine_chunks() for name in ENTRIES}
        counts = columns["layer"].value_lengths().to_numpy(zero_copy_only=False)
        flat = {name: column.flatten() for name, column in columns.items()}
        flat["site"] = pyarrow.compute.index_in(flat["site"], value_set=pyarrow.array(SITES))
        for name, values in flat.items():
            parts[name].append(values.to_numpy(zero_copy_only=False))
        parts["text"].append(start + np.arange(len(counts)).repeat(counts))
    every = {name: np.concatenate(found) for name, found in parts.items()}
    order = np.lexsort((every["position"], every["text"]))  # stable: best first within a token
    every = {name: values[order] for name, values in every.items()}
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(every["text"]) != 0) | (np.diff(every["position"]) != 0)
    token = new.cumsum() - 1
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - starts[token]
    kept = rank < length
    width = int(rank[kept].max()) + 1 if kept.any() else 1
    unit = every["unit"] + n_neurons * (every["site"] == ATTENTION)
    lists = {}
    for name, values, fill in (("layer", every["layer"], -1), ("unit", unit, -1), ("score", every["score"], 0)):
        dtype = torch.float32 if name == "score" else torch.int32
        lists[name] = torch.full((len(starts), width), fill, dtype=dtype)
        at = torch.from_numpy(token[kept]), torch.from_numpy(rank[kept])
        lists[name][at] = torch.from_numpy(np.ascontiguousarray(values[kept])).to(dtype)
    text = torch.from_numpy(every["text"][starts].astype(np.int64))
    shape = n_layers, n_neurons + n_attention
    return TextNeuronLists(lists["layer"], lists["unit"], lists["score"], *shape, text=text, n_texts=len(stored))
