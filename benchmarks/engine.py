"""What the last-token engine adds to the work that it cannot avoid.

Integrated gradients of all layers at m steps need R = layers · m variant rows of the answer token; those of layer l run
through the blocks above l alone, so that on average each runs through half of them. The floor is therefore one
forward over the input without gradients, and one forward and backward over R/2 single-token rows through all blocks,
with respect to activations alone: no attention to the input, no edits, no quadrature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.ig import Subject
from benchmarks.pairs import Timed, timed


def floor(subject: Subject) -> Timed[None]:
    """The forward over the input and the forward and backward over R/2 rows."""
    rows = max(1, subject.n_layers * subject.n_steps // 2)
    return timed(lambda: _run(subject, rows))


def _run(subject: Subject, rows: int) -> None:
    with torch.no_grad():
        prefix: Tensor = subject.backbone(subject.input_ids, use_cache=False).last_hidden_state
        embedded = prefix[:, -1:].expand(rows, -1, -1).contiguous()
    embedded.requires_grad_(True)
    last = subject.backbone(inputs_embeds=embedded, use_cache=False).last_hidden_state
    torch.autograd.grad(subject.head(last[:, -1]).softmax(-1)[:, 0].sum(), embedded)
