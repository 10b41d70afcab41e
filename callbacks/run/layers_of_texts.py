"""Readings of settings that are made for classifiers where a model is a language model: layers, neuron lists."""

from __future__ import annotations

import importlib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.readouts import READOUTS

OF_THE_HEAD = ("head", "weight")
"""Values of `params` that name a classifier's head."""


def with_layers_of_texts(config: Any) -> tuple[Any, str]:
    """A configuration whose gradient methods are about all linear layers where its data ask for next tokens, and a line
    that says so; others as they are, and "".

    Documents have a loss at every token, and what they teach lies in the layers; the readout is mostly the embedding.
    Projected gradients are small, and stored once for all methods. Over a vocabulary no curvature takes an expectation,
    so that the Fisher matrix is that of the documents' own losses.
    """
    if not _of_vocabulary(str((config.get("data") or {}).get("_target_", ""))):
        return config, ""
    copy = _writable(config)
    changed: list[str] = []
    layers = "*lora*" if (copy.get("model") or {}).get("adapter") == "lora" else "all"  # those that are trained
    for name, node in (copy.get("method") or {}).items():
        if not isinstance(node, DictConfig) or node.get("params") not in OF_THE_HEAD or "projection" not in node:
            continue
        settings = {"params": layers}
        if node.get("projection") == "none":
            settings["projection"] = "random"
        if node.get("curvature") in ("kfac", "ekfac") and node.get("fisher") == "expectation":
            settings["fisher"] = "empirical"
        node.update(settings)
        changed.append(f"method.{name} ({', '.join(f'{key}={value}' for key, value in settings.items())})")
    if not changed:
        return config, ""
    return copy, (
        f"layers: a language model learns below its readout, so that params=head is read so: {'; '.join(changed)}"
    )


def with_readings_of_texts(config: Any) -> tuple[Any, str]:
    """A configuration whose `na_instances` compare the lists of every token as those of texts where their data ask for
    next tokens, and a line that says so; others as they are, and "".

    The paper's gain grows with a neuron's score, of which a few tokens that the model is sure of have the most.
    """
    if not _of_vocabulary(str((config.get("data") or {}).get("_target_", ""))):
        return config, ""
    copy = _writable(config)
    changed = []
    for name, node in (copy.get("method") or {}).items():
        if isinstance(node, DictConfig) and node.get("preset") == "paper" and node.get("positions") == "all":
            node.update({"preset": "texts"})
            changed.append(f"method.{name}")
    if not changed:
        return config, ""
    return copy, (
        "neurons: texts are compared by the neurons that their tokens share, so that preset=paper is read as texts: "
        f"{', '.join(changed)}"
    )


def _writable(config: Any) -> Any:
    copy = config.copy()
    OmegaConf.set_readonly(copy, False)
    OmegaConf.set_struct(copy, False)
    return copy


def _of_vocabulary(target: str) -> bool:
    """Whether a class of data asks for the next token; what cannot be imported is refused where it is built."""
    module, _, name = target.rpartition(".")
    if not module.startswith("twinlens.data."):
        return False
    try:
        readout = getattr(getattr(importlib.import_module(module), name), "readout", "")
    except (ImportError, AttributeError):
        return False
    return readout in READOUTS and READOUTS[readout].of_vocabulary
