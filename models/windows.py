"""Windows of long documents: a row of a batch holds all of them, the model reads each by itself."""

from __future__ import annotations

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
