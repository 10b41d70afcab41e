"""The attribution stage: every configured method over the explained split, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.callbacks.attribute import bridge_scores, instance_scores, neuron_scores
from twinlens.callbacks.attribute import whole_gradient_scores as layer_scores
from twinlens.callbacks.attribute.method_graph import reads_of, train_lists_of
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.files import link
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Entry


def attribute_stage(
    session: Session, name: str, methods: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
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
    for seed in getattr(methods[name], "seeds", [None]):
        attribute_split(session, name, methods, settings[name], seed, session.split)


def attribute_split(
    session: Session, name: str, methods: Mapping[str, Any], settings: Mapping[str, Any], seed: int | None, split: str
) -> None:
    """Attribute a split with one method and one seed (None: it draws nothing), or read what the store has."""
    method = for_seed(methods[name], seed)

    def build(folder: Path) -> None:
        if isinstance(method, InstanceNeurons):
            longest = methods[method.source].top_k
            bridge_scores.build_bridge_scores(session, name, method, longest, split, folder)
        elif isinstance(method, NeuronMethod):
            neuron_scores.build_neuron_scores(session, name, method, split, folder)
        elif reads_of(method) == "layers":
            layer_scores.build_layer_scores(session, name, method, split, folder)
        else:
            instance_scores.build_instance_scores(session, name, method, split, folder)

    inputs = method_inputs(session, method, {**settings, "seed": seed}, split)
    labels = session.labels(method=name, split=split, draw=seed)
    entry = session.store.get("attribute", inputs, build, labels)
    session.scores[score_name(name, seed), split] = entry.path
    _link_scores(session, name, seed, split, entry)
    title = score_name(name, seed) + ("" if split == session.split else f" on {split}")
    print(f"{title}: {'read from the store' if entry.reused else 'computed'}", flush=True)


def for_seed(method: Any, seed: int | None) -> Any:
    """The method of one seed, itself where it draws nothing."""
    return method if seed is None else method.for_seed(seed)


def method_inputs(session: Session, method: Any, settings: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Everything the scores of a method on a split depend on; `settings` with the seed where there is one."""
    read: dict[str, Any]
    entry: ModuleType
    if isinstance(method, InstanceNeurons):
        read, entry = bridge_scores.bridge_inputs(session, method, split), bridge_scores
    elif isinstance(method, NeuronMethod):
        read, entry = neuron_scores.neuron_inputs(session, split), neuron_scores
    elif reads_of(method) == "layers":
        read, entry = layer_scores.layer_score_inputs(session, method, split), layer_scores
    else:
        read, entry = instance_scores.instance_score_inputs(session, method, split), instance_scores
    return {
        **read,
        "method": {k: v for k, v in settings.items() if v is not None},
        "code": code_of(entry, method, settings),
    }


def _link_scores(session: Session, name: str, seed: int | None, split: str, entry: Entry) -> None:
    folder = session.folder / "scores" / score_name(name, seed)
    for part in (split, "train_summary", "train_tokens"):
        if (entry.path / part).is_dir():
            link(entry.path / part, folder / part)
    link(entry.path / "method.yaml", session.folder / "scores" / name / "method.yaml")
