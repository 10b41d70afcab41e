"""Scores of training tokens in the run's tables: lists name the text and the token's place in it.

`top_index` and `bottom_index` stay rows of the train split, so that whatever reads lists finds the texts;
`top_position` and `bottom_position` say which token. The scores of a text's tokens add up to the text's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow
import torch
from torch import Tensor

from twinlens.callbacks.passes.session import Session


@dataclass(frozen=True)
class TokenRows:
    """Where each row of tokens stands.

    Attributes:
        document: row of the train split, [tokens].
        position: of the token in its text's `input_ids`, [tokens].
        text: the token as it is written, [tokens].
        n_documents: rows of the train split.
    """

    document: Tensor
    position: Tensor
    text: list[str]
    n_documents: int


def token_rows(session: Session) -> TokenRows:
    """The tokens of the train split in the order of their rows."""
    texts = session.data.splits["train"]["input_ids"][:]
    lengths = torch.tensor([len(ids) for ids in texts])
    tokenizer: Any = session.readable.tokenizer
    words = [tokenizer.decode([token]) for ids in texts for token in ids]
    position = torch.cat([torch.arange(length) for length in lengths.tolist()])
    return TokenRows(torch.arange(len(texts)).repeat_interleave(lengths), position, words, len(texts))


def with_places(lists: Mapping[str, Tensor], tokens: TokenRows) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Lists of token rows as lists of texts, and beside them the positions.

    Args:
        lists: the fields of `InstanceScores`.

    Returns:
        the same with texts in `top_index` and `bottom_index`; `top_position` and `bottom_position`.
    """
    named = dict(lists)
    positions = {}
    for end in ("top", "bottom"):
        rows = lists[f"{end}_index"]
        named[f"{end}_index"] = tokens.document[rows].where(rows >= 0, -1)  # −1: a text that is left out has no list
        positions[f"{end}_position"] = tokens.position[rows]
    return named, positions


def token_table(columns: Mapping[str, Tensor], tokens: TokenRows) -> pyarrow.Table:
    """The summary of each token: `index` counts tokens, `document`, `position` and `text` say which one it is."""
    table = {name: pyarrow.array(values.numpy()) for name, values in columns.items()}
    table["document"] = pyarrow.array(tokens.document.numpy())
    table["position"] = pyarrow.array(tokens.position.numpy())
    table["text"] = pyarrow.array(tokens.text, pyarrow.string())
    return pyarrow.table(table)


def of_documents(columns: Mapping[str, Tensor], tokens: TokenRows) -> dict[str, Tensor]:
    """The train summary by texts: means and votes add up over tokens, the highest score is that of a token.

    A text's self-influence does not follow from those of its tokens and is NaN.
    """

    def reduced(name: str, how: str, start: float) -> Tensor:
        empty = torch.full((tokens.n_documents,), start, dtype=columns[name].dtype)
        return empty.scatter_reduce(0, tokens.document, columns[name], how)

    return {
        "index": torch.arange(tokens.n_documents),
        "mean": reduced("mean", "sum", 0),
        "max": reduced("max", "amax", -torch.inf),
        "votes": reduced("votes", "sum", 0),
        "self_influence": torch.full((tokens.n_documents,), torch.nan, dtype=torch.float64),
    }
