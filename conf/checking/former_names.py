"""Names of 0.1.0 that are others now: classes that a configuration names, and files that a run leaves.

A run's config.yaml of then is read as if it held the names of now, which the run says in one line. The same tables
stand in `docs/former_names.md` for people.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

PACKAGES = ("attribution", "callbacks", "data", "models")
"""Stood at top level; now below `twinlens`."""
MODULES: Mapping[str, str] = {
    "attribution.base": "attribution.protocols",
    "attribution.bridge": "attribution.bridge.neuron_instances",
    "attribution.bridge_sums": "attribution.bridge.shared_sums",
    "attribution.evaluation.head_importance": "attribution.evaluation.neuron_level.head_importance",
    "attribution.evaluation.importance_sums": "attribution.evaluation.neuron_level.importance_sums",
    "attribution.evaluation.interventions": "attribution.evaluation.neuron_level.interventions",
    "attribution.evaluation.knowledge": "attribution.evaluation.neuron_level.sentences",
    "attribution.evaluation.knowledge_filter": "attribution.evaluation.neuron_level.known_prompts",
    "attribution.evaluation.known_facts": "attribution.evaluation.neuron_level.known_facts",
    "attribution.evaluation.layer_importance": "attribution.evaluation.neuron_level.layer_importance",
    "attribution.evaluation.neuron_layers": "attribution.evaluation.neuron_level.neuron_layers",
    "attribution.evaluation.prompt_text": "attribution.evaluation.neuron_level.prompt_text",
    "attribution.evaluation.prompt_view": "attribution.evaluation.neuron_level.prompt_view",
    "attribution.evaluation.query_interventions": "attribution.evaluation.neuron_level.query_interventions",
    "attribution.evaluation.query_layers": "attribution.evaluation.neuron_level.query_layers",
    "attribution.evaluation.segments": "attribution.evaluation.neuron_level.segments",
    "attribution.evaluation.shared_neurons": "attribution.evaluation.neuron_level.shared_neurons",
    "attribution.evaluation.value_interventions": "attribution.evaluation.neuron_level.value_interventions",
    "attribution.evaluation.value_neurons": "attribution.evaluation.neuron_level.value_neurons",
    "attribution.neuron.knowledge_scores": "attribution.neuron.neuron_score",
    "attribution.residual_base": "attribution.residual_protocol",
    "attribution.sizes": "attribution.memory_amounts",
    "callbacks.sharded": "callbacks.processes.fsdp",
    "callbacks.sweep": "callbacks.sweep.sweep_table",
    "callbacks.wandb_logger": "callbacks.tracking.wandb_logger",
    "data.base": "data.text_data_module",
    "data.files": "data.file_readers",
    "data.names": "data.dataset_name",
    "data.questions": "data.demo_questions",
    "data.report": "data.data_report",
    "data.sentences": "data.demo_sentences",
    "data.source": "data.source_rows",
    "data.text": "data.templates",
    "data.tokenizer": "data.tiny_tokenizer",
    "data.words": "data.common_words",
}
"""Module of before → module of now, below `twinlens`, of those that moved and hold what a configuration may name."""
CLASSES: Mapping[str, str] = {
    "attribution.bridge.InstanceNeurons": "attribution.bridge.instance_neurons.InstanceNeurons",
    "callbacks.wandb_logger.make_wandb_logger": "callbacks.tracking.wandb_logger.RunLogger",
}
"""Class of before → class of now, where it did not go with its module."""
OUTPUTS: Mapping[str, str] = {
    "knowledge_table": "neuron_level_table",
    "knowledge_figure": "neuron_level_figure",
}
"""How names of files in tables/ and figures/ began → how they begin now."""

READ_UNTIL = "0.4.0"
"""The version that reads former names, and configurations without `explain`, no longer."""

_TARGET = "_target_"


def current_name(target: object) -> str | None:
    """What a `_target_` of before is called now; None where there is no such class: it may be the user's own."""
    if not isinstance(target, str) or target.partition(".")[0] not in PACKAGES:
        return None
    if not all(part.isidentifier() for part in target.split(".")):
        return None
    module, _, name = target.rpartition(".")
    now = f"twinlens.{CLASSES.get(target) or f'{MODULES.get(module, module)}.{name}'}"
    try:
        found = importlib.import_module(now.rpartition(".")[0])
    except ModuleNotFoundError as error:
        return None if (error.name or "").startswith("twinlens") else now  # lacks a library, which the check says
    return now if callable(getattr(found, now.rpartition(".")[2], None)) else None


def with_current_names(config: DictConfig) -> tuple[DictConfig, dict[str, str]]:
    """A configuration in which every `_target_` has its name of now, and those that were replaced: before → now.

    Hydra's own node is left as it is. Without names of before it is the same object.
    """
    replaced: dict[str, str] = {}
    if not _names_before(OmegaConf.to_container(config, resolve=False)):
        return config, replaced
    copy = config.copy()
    OmegaConf.set_readonly(copy, False)
    for key in copy:
        if key != "hydra":
            _replace(copy, key, replaced)
    return (copy, replaced) if replaced else (config, replaced)


def current_output(stem: str) -> str:
    """What a file of tables/ or figures/ is called now, without its suffix."""
    beginning = next((former for former in OUTPUTS if stem.startswith(former)), None)
    return stem if beginning is None else OUTPUTS[beginning] + stem.removeprefix(beginning)


def _names_before(values: Any) -> bool:
    """Whether a `_target_` below is a name of before, or refers to a value that may be one."""
    if isinstance(values, list):
        return any(map(_names_before, values))
    if not isinstance(values, dict):
        return False
    target = values.get(_TARGET)
    refers = isinstance(target, str) and "${" in target
    return refers or current_name(target) is not None or any(map(_names_before, values.values()))


def _replace(node: DictConfig | ListConfig, key: Any, replaced: dict[str, str]) -> None:
    """Replace the names of before at and below one key; a value that refers to another one is replaced where it is."""
    if OmegaConf.is_missing(node, key) or (OmegaConf.is_interpolation(node, key) and key != _TARGET):
        return
    try:
        value = node[key]
    except Exception:  # a reference to nothing: the check of values says so
        return
    if key == _TARGET and (now := current_name(value)):
        node[key] = replaced[value] = now
    if isinstance(value, DictConfig):
        for name in value:
            _replace(value, name, replaced)
    if isinstance(value, ListConfig):
        for index in range(len(value)):
            _replace(value, index, replaced)
