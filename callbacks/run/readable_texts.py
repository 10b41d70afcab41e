"""Texts that a model cannot read, refused by their row before its first forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.data.sampling import token_lengths
from twinlens.models.own_form import learned_positions, length_of_same_rotation

SHOWN = 60
"""Characters of a text in a message."""


def refuse_unreadable_texts(
    data: Any, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, known: int, model: str
) -> None:
    """Refuse what the model has no embedding or position for, or would read differently from batch to batch.

    Args:
        data: prepared.
        config: of the model.
        tokenizer: of the model.
        known: size of its vocabulary.
        model: in words.

    Raises:
        UserError: naming the first text, the token or the length, and the model's size.
    """
    for split, rows in data.splits.items():
        _refuse_unknown_tokens(data, split, rows, tokenizer, known, model)
    positions = learned_positions(config)
    if positions is not None:
        _refuse_longer(data, positions, f"{model} has {positions} positions", model)
    same = length_of_same_rotation(config)
    if same is not None:
        length, kind = same
        _refuse_longer(
            data,
            length,
            f"beyond {length} tokens {model} (rope_type={kind}) rotates a text by the longest one of its batch, so "
            "that its scores would depend on the batch",
            model,
        )


def _refuse_unknown_tokens(
    data: Any, split: str, rows: Any, tokenizer: PreTrainedTokenizerBase, known: int, model: str
) -> None:
    unknown = [(row, token) for row, ids in enumerate(_ids(rows)) for token in ids[ids >= known][:1]]
    if not unknown:
        return
    row, token = unknown[0]
    name = tokenizer.convert_ids_to_tokens(int(token))
    raise UserError(
        f"{len(unknown)} texts of the {split} split hold tokens that {model} does not know: "
        f"{_where(data, split, row)} has the token {name!r} with the id {int(token)}, but the model knows {known} "
        "tokens "
        f"(the tokenizer {len(tokenizer)}); expected the tokenizer that the model was trained with: set "
        "model.tokenizer_path."
    )


def _refuse_longer(data: Any, length: int, reason: str, model: str) -> None:
    for split, rows in data.splits.items():
        lengths = numpy.minimum(token_lengths(rows), data.max_length)  # of the windows that a document is read in
        if len(lengths) and lengths.max() > length:
            row = int((lengths > length).argmax())
            raise UserError(
                f"{int((lengths > length).sum())} texts of the {split} split are too long: {_where(data, split, row)} "
                f"has {lengths[row]} tokens, but {reason}; expected at most {length}: set data.max_length={length} "
                "to cut "
                "them, or leave them out."
            )


def _ids(rows: Any) -> Iterator[numpy.ndarray]:
    """All token ids of every row, those of its choices joined."""
    table = rows.with_format("arrow")
    behind = [table[name][:].to_pylist() for name in ("answer_ids", "foil_ids") if name in rows.column_names]
    for row, ids in enumerate(table["input_ids"][:].to_pylist()):
        own = [token for choice in ids for token in choice] if ids and isinstance(ids[0], list) else ids
        yield numpy.asarray(own + [token for column in behind for token in column[row]])


def _where(data: Any, split: str, row: int) -> str:
    found = data.splits[split][row]
    text = " ".join(str(found[column]) for column in data.text_columns)
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return f"row {found['source_index']} ({shown!r})"
