"""Modules and libraries that no fingerprint covers, each with its reason: a change in them changes no stored number.

A folder stands for all modules in it. A stage for whose results such a module does matter names it beside its own, see
`fingerprints.code_of`. tests/callbacks/store/test_code_change.py changes every constant in these modules and looks at
the scores.
"""

from __future__ import annotations

CHANGES_NO_NUMBER = {
    "twinlens.callbacks.processes": "which process computes what; rows are the same for any number of processes",
    "twinlens.callbacks.store": "locks, entries and checksums; a file comes back as it was written or not at all",
    "twinlens.callbacks.passes.progress": "bars and lines",
    "twinlens.callbacks.passes.memory": "how many examples are computed at a time; rows do not depend on it",
    "twinlens.callbacks.passes.costs": "counts bytes and operations, for cutting batches and for the plan",
    "twinlens.attribution.errors": "messages",
    "twinlens.attribution.memory_amounts": "bytes in words",
    "twinlens.data.data_report": "counts what was noticed about the rows",
}
"""Module or folder → why no result depends on it."""

STANDS_IN_THE_INPUTS = {
    "twinlens.callbacks.fit.stage": "weights; who fits for itself has `fit_inputs` in its own inputs",
    "twinlens.callbacks.attribute.stored_gradients": "stored rows; a reader's inputs hold their fingerprint",
    "twinlens.callbacks.attribute.whole_gradient_factors": "stored factors; a reader's inputs hold what they depend on",
    "twinlens.callbacks.evaluate.evaluation_inputs": "lists; an evaluation's inputs hold a digest of their values",
}
"""Module → what it gives to other stages, whose inputs cover it. So a stage does not depend on stages that it could
read and does not, such as a method on gradients that another one reads."""

LIBRARIES = {
    "huggingface_hub": "fetches files; what is in them is hashed",
    "hydra": "composes the configuration, which is in the fingerprint",
    "jinja2": "pages",
    "markupsafe": "pages",
    "matplotlib": "figures",
    "omegaconf": "composes the configuration, which is in the fingerprint",
    "psutil": "looks at memory and processes",
    "safetensors": "a tensor comes back as it was written",
    "wandb": "logs",
    "yaml": "writes settings",
}
"""Library → why its version changes no number."""


def is_without_effect(module: str) -> bool:
    """Whether a module that a stage reaches is no part of the stage's fingerprint."""
    if module in STANDS_IN_THE_INPUTS:
        return True
    return any(module == listed or module.startswith(f"{listed}.") for listed in CHANGES_NO_NUMBER)
