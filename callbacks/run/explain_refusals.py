"""Refusals of targets that data, labels and methods show to be impossible, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Lens, Method
from twinlens.callbacks.attribute.method_graph import train_lists_of
from twinlens.callbacks.passes.session import Session

ROWS_NAMED = 10
"""Rows that a message lists."""


def refuse_what_cannot_be_explained(session: Session, methods: Mapping[str, Method]) -> None:
    """Refuse what no method of the run can explain.

    Raises:
        UserError: gold labels where rows have none or where they join several of the model's classes, or a method
            without a form for the difference of two outputs.
    """
    splits: dict[Lens, set[str]] = {}
    for name, method in methods.items():
        if method.explains is None:
            continue
        _require_difference(session, name, method)
        splits.setdefault(method.explains, set()).add(session.split)
        for source in train_lists_of(method):
            splits.setdefault(methods[source].explains or "neuron", set()).add("train")
    for lens, needed in splits.items():
        for split in sorted(needed):
            _require_labels(session, lens, split)


def _require_difference(session: Session, name: str, method: Method) -> None:
    asked = session.explain.of(method.explains or method.lens)
    if asked.against is not None and not method.sets_apart:
        raise UserError(
            f"method={name} scores a neuron for one output, and explain_against={asked.against_name} asks how much "
            "likelier it is than another; expected a score that has such a form, as logprob_increase, log_prob, "
            f"grad_x_act or ig: leave {name} out or set explain_against=null."
        )


def _require_labels(session: Session, lens: Lens, split: str) -> None:
    asked = session.explain.of(lens)
    if not asked.needs_labels:
        return
    if split in session.data.folds and (lens == "neuron" or asked.against is not None):
        names = session.data.folds[split].names
        raise UserError(
            f"explain=gold asks for the label's own probability, but the {split} split has the labels "
            f"{', '.join(names)}, which join several of the model's classes; expected classes of the model: set "
            "explain=predicted, or explain='{instance: gold, neuron: predicted}' without explain_against."
        )
    label = torch.as_tensor(session.data.splits[split]["label"][:])
    missing = torch.nonzero(label < 0)[:, 0].tolist()
    if missing:
        listed = ", ".join(map(str, missing[:ROWS_NAMED])) + (" …" if len(missing) > ROWS_NAMED else "")
        otherwise = "answer" if session.readout.of_vocabulary else "predicted"
        raise UserError(
            f"explain=gold needs a label of every row, but {len(missing)} of {len(label)} rows of the {split} split "
            f"have none (index {listed}); expected labels: set explain={otherwise} or leave these rows out."
        )
