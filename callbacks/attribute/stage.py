"""The attribution stage: every configured method over the explained split, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.method import Method
from twinlens.callbacks.attribute.dispatch import reads_of
from twinlens.callbacks.attribute.group_scores import GROUPS
from twinlens.callbacks.attribute.method_graph import train_lists_of
from twinlens.callbacks.attribute.reads import Reads
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.files import link
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Entry


def attribute_stage(
    session: Session, name: str, methods: Mapping[str, Method], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Attribute the explained split with one method, once per seed where the method draws random numbers.

    Neuron scores of the train split that a bridge reads are computed, or read from the store, before it.

    Args:
        session: gets the folder of the scores; the run folder gets `scores/<name>/[seed<k>/]<split>`. The scores of
            the methods it needs are there already.
        name: the method's name in the configuration.
        methods: all methods of the run by name.
        settings: their configurations, plain values.
    """
    for source in train_lists_of(methods[name]):
        if (source, "train") not in session.scores:
            attribute_split(session, source, methods, settings[source], None, "train")
    for seed in methods[name].seeds:
        attribute_split(session, name, methods, settings[name], seed, session.split)


def attribute_split(
    session: Session,
    name: str,
    methods: Mapping[str, Method],
    settings: Mapping[str, Any],
    seed: int | None,
    split: str,
) -> None:
    """Attribute a split with one method and one seed (None: it draws nothing), or read what the store has."""
    reads = reads_of(session, name, methods, seed)
    inputs = method_inputs(reads, {**settings, "seed": seed}, split)
    labels = session.labels(method=name, split=split, draw=seed)
    title = score_name(name, seed) + ("" if split == session.split else f" on {split}")
    entry = session.store.get("attribute", inputs, lambda folder: reads.build(split, folder), labels, title)
    session.scores[score_name(name, seed), split] = entry.path
    _link_scores(session, name, seed, split, entry)


def method_inputs(reads: Reads, settings: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Everything the scores of a method on a split depend on; `settings` with the seed where there is one."""
    return {
        **reads.inputs(split),
        "method": {k: v for k, v in settings.items() if v is not None},
        "code": code_of(type(reads), reads.method, settings),
    }


def _link_scores(session: Session, name: str, seed: int | None, split: str, entry: Entry) -> None:
    folder = session.folder / "scores" / score_name(name, seed)
    for part in dict.fromkeys((split, "train", GROUPS, "train_summary", "train_tokens")):
        if (entry.path / part).is_dir():
            link(entry.path / part, folder / part)
    link(entry.path / "method.yaml", session.folder / "scores" / name / "method.yaml")
