"""Windows of long documents: a row of a batch holds all of them, the model reads each by itself."""

from __future__ import annotations

from collections.abc import Iterator

from twinlens.attribution.protocols import Batch


def by_window(batch: Batch) -> Batch:
    """The sequences that a model reads: the batch itself, or the windows of its documents, those of one row next to
    each other.

    A window that holds no token is read as if its padding were tokens, so that no row of attention is empty; its states
    are nobody's.

    Args:
        batch: `input_ids`, `attention_mask` and perhaps `loss_mask`, [batch, tokens]; with `window`, [batch], the
            tokens of each window, which `tokens` is a multiple of.
    """
    if "window" not in batch:
        return batch
    width = int(batch["window"][0])
    names = ("input_ids", "attention_mask", "loss_mask")
    parts = {name: batch[name].reshape(-1, width) for name in names if name in batch}
    empty = ~parts["attention_mask"].bool().any(1, keepdim=True)
    return {**parts, "attention_mask": parts["attention_mask"] + empty.to(parts["attention_mask"])}


def in_parts(batch: Batch, n: int) -> Iterator[Batch]:
    """A batch's rows, n at a time."""
    for start in range(0, len(batch["input_ids"]), n):
        yield {name: values[start : start + n] for name, values in batch.items()}


def some_windows(batch: Batch, n: int) -> Iterator[Batch]:
    """A batch of one document as batches of n of its windows at most; those behind its last token are left out.

    Args:
        batch: with `window`, see `by_window`; one row.
    """
    width = int(batch["window"][0])
    names = ("input_ids", "attention_mask", "loss_mask")
    filled = batch["attention_mask"].bool().view(-1, width).any(1).nonzero()
    end = width * (1 + int(filled.max())) if len(filled) else width
    for start in range(0, end, n * width):
        stop = min(start + n * width, end)
        yield {**batch, **{name: batch[name][:, start:stop] for name in names if name in batch}}
