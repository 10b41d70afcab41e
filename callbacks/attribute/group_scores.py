"""Scores of queries asked together: ranked train rows for each group, and which of these pull alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.block_sizes import block_sizes
from twinlens.attribution.instance.groups import clusters_of, grouped
from twinlens.attribution.instance.stream import stream_scores
from twinlens.callbacks.attribute.score_files import instance_table
from twinlens.callbacks.attribute.token_rows import TokenRows, with_places
from twinlens.callbacks.passes.session import Session
from twinlens.data.marked_rows import GROUP

GROUPS = "groups"
"""Folder of the groups' lists, beside that of the split."""


def groups_of(session: Session, split: str) -> dict[str, list[int]]:
    """Rows of the queries asked together by their group's name, in the file's order; none without `data.group`."""
    rows = session.data.splits[split]
    if GROUP not in session.data.plant_columns or GROUP not in rows.column_names:
        return {}
    found: dict[str, list[int]] = {}
    for row, name in enumerate(rows[GROUP][:]):
        if name:
            found.setdefault(name, []).append(row)
    return found


def asked_groups(session: Session, split: str, left_out: Tensor) -> dict[str, list[int]]:
    """Groups without the rows that a method leaves out, [examples], bool; a group of none is none."""
    kept = {name: [row for row in rows if not left_out[row]] for name, rows in groups_of(session, split).items()}
    return {name: rows for name, rows in kept.items() if rows}


def write_group_scores(
    folder: Path,
    scorer: Any,
    test: Any,
    groups: dict[str, list[int]],
    top_k: int,
    memory_budget: int,
    tokens: TokenRows | None,
) -> None:
    """Write `groups/`: of each group `index`, `group`, `queries`, the lists of instance methods, and `top_cluster`.

    Args:
        scorer: prepared on the train split.
        test: of all queries.
        groups: rows of each.
        top_k: length of the lists.
        memory_budget: bytes of working memory.
        tokens: what train rows are where they are tokens.
    """
    members = [torch.tensor(rows) for rows in groups.values()]
    lists, _ = stream_scores(scorer, grouped(test, members), torch.arange(len(groups)), top_k, memory_budget)
    clusters = [
        clusters_of(pulls_of(scorer, test, own, top, memory_budget), score)
        for own, top, score in zip(members, lists.top_index, lists.top_score, strict=True)
    ]
    named, positions = (dict(vars(lists)), {}) if tokens is None else with_places(vars(lists), tokens)
    table = instance_table(type(lists)(**named), {**positions, "top_cluster": torch.stack(clusters)})
    about = {
        "group": pyarrow.array(list(groups), pyarrow.string()),
        "queries": pyarrow.array(list(groups.values()), pyarrow.list_(pyarrow.int64())),
    }
    for place, (name, values) in enumerate(about.items(), start=1):
        table = table.add_column(place, name, values)
    datasets.Dataset(table).save_to_disk(str(folder / GROUPS))


def pulls_of(scorer: Any, test: Any, members: Tensor, rows: Tensor, memory_budget: int) -> Tensor:
    """Scores of some train rows for each test of a group, [rows, tests], float32.

    Args:
        scorer: prepared on the train split.
        test: of all queries.
        members: rows of the group's tests, rising, [tests].
        rows: of the train split, [rows].
    """
    parts = []
    size, block = block_sizes(scorer, len(members), memory_budget)
    for some in _runs(members.tolist(), size):
        query = scorer.query(test.rows(some[0], some[-1] + 1), torch.tensor(some))
        found = torch.empty(len(some), len(rows))
        for start in range(0, scorer.n_train, block):
            inside = torch.nonzero((rows >= start) & (rows < start + block))[:, 0]
            if len(inside):
                scores = scorer.scores(query, start, min(start + block, scorer.n_train)).float().cpu()
                found[:, inside] = scores[:, rows[inside] - start]
        parts.append(found)
    return torch.cat(parts).T


def refuse_ungrouped(session: Session, name: str, serves_groups: bool) -> None:
    """Refuse groups of a method whose tests cannot be put together.

    Raises:
        UserError: naming the method.
    """
    if serves_groups or not groups_of(session, session.split):
        return
    raise UserError(
        f"method={name} scores each query by itself, and data.group asks some of them together; expected methods whose "
        "queries can be put together: those over stored gradients (projection=random or pca), bm25, similarity and "
        f"random_instances: leave {name} out, or set data.group=null."
    )


def _runs(rows: Sequence[int], size: int) -> list[list[int]]:
    """Rising rows in consecutive runs of at most so many."""
    found: list[list[int]] = []
    for row in rows:
        if found and row == found[-1][-1] + 1 and len(found[-1]) < size:
            found[-1].append(row)
        else:
            found.append([row])
    return found
