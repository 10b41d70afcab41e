"""Layers of a neuron method's top neurons: the share and the summed score of each layer.

The scores stream through in Arrow batches, so that neither their number nor their length matters for memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.run_files import RunFiles, ScoreSet

MAX_LABELS = 8
"""Explained classes that get a row of their own, the most frequent ones; tokens of a vocabulary get none."""
MAX_LAYERS = 10_000
"""More is no network but a damaged file."""


@dataclass(frozen=True)
class LayerProfile:
    """The layers of one method's listed neurons, over all explained examples or those of one explained class.

    Attributes:
        method: its name, with seed, site and role where it has several.
        target: the explained class, None for all.
        label: its name, empty for all.
        share: part of the listed neurons that lies in each layer, sums to one, [layers].
        score: summed score of a layer's listed neurons, mean over examples, in the method's unit, [layers].
        examples: number of examples.
        listed: neurons per example, mean.
        control: a random control.
    """

    method: str
    target: int | None
    label: str
    share: np.ndarray
    score: np.ndarray
    examples: int
    listed: float
    control: bool


@dataclass
class _Sums:
    count: np.ndarray
    score: np.ndarray


def layer_profiles(run: RunFiles) -> list[LayerProfile]:
    """Profiles of every neuron method, over all examples and then over each explained class (not for controls).

    Raises:
        UserError: scores of a method are damaged (lists of unequal length, layers outside the model).
    """
    methods = [scores for scores in run.scores if scores.kind == "neuron"]
    layers = _model_layers(run) or max([_highest_layer(scores) + 1 for scores in methods], default=0)
    if layers > MAX_LAYERS:
        raise UserError(
            f"The scores of {run.path} name layer {layers - 1}; expected fewer than {MAX_LAYERS} layers: "
            "make them again with overwrite=true."
        )
    return [profile for scores in methods for profile in _profiles(run, scores, layers)]


def _profiles(run: RunFiles, scores: ScoreSet, layers: int) -> list[LayerProfile]:
    sums: dict[tuple[str, str, int | None], _Sums] = {}
    columns = scores.rows.dataset.column_names
    targets: Counter[int] = Counter()
    if "target" in columns:
        for batch in scores.rows.batches(["target"]):
            targets.update(_integers(batch.column("target")).tolist())
    kept = [number for number, _ in targets.most_common(MAX_LABELS) if number in run.label_names]
    names = [name for name in ("target", "layer", "score", "site", "role") if name in columns]
    for batch in scores.rows.batches(names):
        _add(sums, batch, kept, layers, scores)
    kinds = list(dict.fromkeys((site, role) for site, role, _ in sums))
    sites, roles = {site for site, _ in kinds}, {role for _, role in kinds}
    n_rows = len(scores.rows.dataset)
    found = []
    for site, role in kinds:
        detail = [site] * (len(sites) > 1) + [role] * (len(roles) > 1)
        detail += [f"seed {scores.seed}"] * (len(scores.seeds) > 1)
        name = f"{scores.name} ({', '.join(detail)})" if detail else scores.name
        for number in [None, *sorted(kept)] if len(kept) > 1 and not scores.control else [None]:
            part = sums.get((site, role, number))
            if part is not None:
                n = n_rows if number is None else targets[number]
                label = "" if number is None else run.label_names[number]
                total = part.count.sum()
                found.append(
                    LayerProfile(
                        name, number, label, part.count / total, part.score / n, n, float(total / n), scores.control
                    )
                )
    return found


def _add(
    sums: dict[tuple[str, str, int | None], _Sums], batch: pa.Table, kept: Sequence[int], layers: int, scores: ScoreSet
) -> None:
    """Add a batch's listed neurons to the sums of their site and role, once for all and once for a kept class."""
    lengths = pc.list_value_length(batch.column("layer")).fill_null(0).to_numpy()
    layer, value = _flat(batch, "layer"), _flat(batch, "score")
    if len(layer) != len(value):
        raise UserError(
            f"Lists of layer and score in {scores.rows.path} differ in length ({len(layer)} and {len(value)} in all); "
            "expected one score per neuron: make it again with overwrite=true."
        )
    layer = layer.astype(np.int64)
    outside = layer[(layer < 0) | (layer >= layers)]
    if len(outside):
        raise UserError(
            f"{scores.rows.path} names layer {outside[0]}; expected 0 to {layers - 1}: "
            "make it again with overwrite=true."
        )
    has_target = "target" in batch.column_names
    target = _integers(batch.column("target")) if has_target else np.full(len(batch), -1)
    of_entry = np.repeat(target, lengths)
    site = _flat(batch, "site") if "site" in batch.column_names else np.full(len(layer), "")
    role = _flat(batch, "role") if "role" in batch.column_names else np.full(len(layer), "")
    for s in dict.fromkeys(site.tolist()):
        for r in dict.fromkeys(role[site == s].tolist()):
            here = (site == s) & (role == r)
            for number in [None, *(number for number in kept if (of_entry[here] == number).any())]:
                mask = here if number is None else here & (of_entry == number)
                part = sums.setdefault((s, r, number), _Sums(np.zeros(layers), np.zeros(layers)))
                part.count += np.bincount(layer[mask], minlength=layers)
                part.score += np.bincount(layer[mask], weights=value[mask], minlength=layers)


def _flat(batch: pa.Table, name: str) -> np.ndarray:
    return np.asarray(pc.list_flatten(batch.column(name)).to_numpy())


def _integers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).fill_null(-1).to_numpy()


def _model_layers(run: RunFiles) -> int:
    for name in ("num_hidden_layers", "n_layer", "num_layers"):
        value = run.model_config.get(name)
        if isinstance(value, int):
            return value
    return 0


def _highest_layer(scores: ScoreSet) -> int:
    highest = -1
    for batch in scores.rows.batches(["layer"]):
        top = pc.max(pc.list_flatten(batch.column("layer"))).as_py()
        highest = max(highest, -1 if top is None else top)
    return highest
