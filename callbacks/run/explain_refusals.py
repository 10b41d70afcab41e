"""Refusals of targets that data, labels and methods show to be impossible, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Lens, Method
from twinlens.callbacks.attribute.method_graph import train_lists_of
from twinlens.callbacks.attribute.text_lists import reads_tokens
from twinlens.callbacks.passes.explain import COMPLETION, FOIL
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
        _require_layers(session, name, method)
        if method.explains is None:
            continue
        _require_difference(session, name, method)
        _require_sums(session, name, method)
        splits.setdefault(method.explains, set()).add(session.split)
        for source in train_lists_of(method):
            if reads_tokens(session, methods, source, "train"):
                continue  # a text's tokens are its labels
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


def _require_layers(session: Session, name: str, method: Method) -> None:
    """Refuse a gradient of the readout alone where a loss is that of a whole text."""
    compares = method.explains is None and method.reads == "head"  # states, not gradients
    reads_head = method.lens == "instance" and method.reads in ("head", "checkpoints")
    if session.readout.of_vocabulary and reads_head and not compares:
        raise UserError(
            f"method={name} reads the readout's inputs at one token, and data={session.data.name} have a loss at every "
            "token of a text; expected a method over layers: use gradsim_cosine or influence_ekfac with params=all, "
            "bm25, or random_instances."
        )
    if session.readout.of_sequences and method.reads == "units":
        raise UserError(
            f"method={name} takes a unit away in the one sequence that a prediction reads, and "
            f"data={session.data.name} have one for each choice; expected data with classes or next "
            f"tokens: leave {name} out."
        )
    of_rows = method.reads in ("rows", "segment_rows")
    over_vocabulary = of_rows and getattr(method, "curvature_losses", None) == "expectation"
    over_vocabulary |= method.reads in ("layers", "units") and _expects_labels(method)
    if session.readout.of_vocabulary and over_vocabulary:
        raise UserError(
            f"method={name} takes the expectation of its curvature over the labels, and data={session.data.name} have "
            "a whole vocabulary of them at every token; expected the curvature of the texts' own losses: take "
            "influence_ekfac, influence_cg or source with fisher=empirical, or curvature=datainf."
        )


def _expects_labels(method: Any) -> bool:
    """Whether a method over whole layers has factors that are expectations over labels."""
    return bool(method.needs_factors) and method.fisher == "expectation"


def _require_sums(session: Session, name: str, method: Method) -> None:
    """Refuse completions for scores that do not add up over tokens, and foils that a query lacks."""
    asked = session.explain.of(method.explains or method.lens)
    if asked.target != COMPLETION:
        return
    if not method.adds_up:
        raise UserError(
            f"method={name} scores one next token, and explain={asked.told} asks for all tokens of a completion; "
            "expected scores that add up over tokens, as those of ig, logprob_increase, gradsim_cosine and "
            f"influence_ekfac: leave {name} out, or name one token in explain."
        )
    rows = session.data.splits[session.split]
    if asked.against != FOIL:
        return
    foils = rows["foil_ids"][:] if "foil_ids" in rows.column_names else [[]] * len(rows)
    lacking = [number for number, ids in enumerate(foils) if not ids]
    if lacking:
        where = rows["document"][lacking[0]] if "document" in rows.column_names else f"row {lacking[0]}"
        raise UserError(
            f"explain_against=foil needs a foil of every query, but {len(lacking)} of {len(rows)} have none (first: "
            f"{where}); expected the column foil filled in: add it, or set explain_against=null."
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
