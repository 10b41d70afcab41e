"""Batches of documents: a mask of the tokens that count, long documents in windows of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from twinlens.data.collate import PaddingCollator


class DocumentCollator(PaddingCollator):
    """Pads documents to the longest of a batch, or to whole windows where one is longer than a window.

    Args:
        pad_token_id, padding_side: see `PaddingCollator`; every window is padded by itself.
        window: tokens of a window.
    """

    def __init__(self, pad_token_id: int, padding_side: str, window: int) -> None:
        super().__init__(pad_token_id, padding_side)
        self.window = window

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate rows; those with `counts` are documents.

        Returns:
            As `PaddingCollator`, and of documents `loss_mask` [batch, tokens], 1 where a token's loss counts. Where one
            is longer than a window, tokens are those of all windows one behind the other, and `window` [batch] says how
            long each of them is.
        """
        if "counts" not in rows[0]:
            return super().__call__(rows)
        n_windows = max(-(-len(row["input_ids"]) // self.window) for row in rows)
        if n_windows < 2:
            batch = super().__call__(rows)
            return {**batch, "loss_mask": self._pad([row["counts"] for row in rows])[0] * batch["attention_mask"]}
        pieces = [
            [{**row, **{name: row[name][start : start + self.window] for name in ("input_ids", "counts")}}
             for start in range(0, n_windows * self.window, self.window)]
            for row in rows
        ]  # fmt: skip
        whole = {"input_ids": [0] * self.window, "counts": [0] * self.window}  # so that every window is that long
        flat = super().__call__([*(piece for row in pieces for piece in row), {**rows[0], **whole}])
        counts = self._pad([*(piece["counts"] for row in pieces for piece in row), whole["counts"]])[0]
        tokens = {**{name: flat[name] for name in ("input_ids", "attention_mask")}, "loss_mask": counts}
        tokens = {name: tensor[:-1].reshape(len(rows), -1) for name, tensor in tokens.items()}
        return {
            "index": torch.tensor([row["index"] for row in rows], dtype=torch.int64),
            "labels": torch.tensor([row["label"] for row in rows], dtype=torch.int64),
            "window": torch.full((len(rows),), self.window),
            **tokens,
            "loss_mask": tokens["loss_mask"] * tokens["attention_mask"],
        }
