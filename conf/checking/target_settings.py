"""Target of a run: `explain` stands at the top level, for all methods; settings of methods that meant it are mapped.

Until 0.1.0 neuron methods had a `target` of their own and the `labels` of instance methods chose both sides, so that
the two lenses of one run could explain different classes unsaid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.former_names import READ_UNTIL

EXPLAIN = "explain"
OF_A_METHOD = ("explain", "explain_against", "target")
"""Keys that mean the target where a method has them."""
_KEY = re.compile(rf"method\.([^.]+)\.({'|'.join(OF_A_METHOD)})$")
NEXT_TOKEN = ("twinlens.data.knowledge.", "twinlens.data.prompts.", "twinlens.data.fact_sentences.")
"""Beginnings of the classes of data whose target was the answer where nobody said."""


def target_of_a_method(key: str, value: Any) -> UserError | None:
    """The sentence for a target that is set inside a method; None where `key` is something else."""
    found = _KEY.match(key)
    if found is None:
        return None
    name, setting = found.groups()
    run = "explain_against" if setting == "explain_against" else EXPLAIN
    said = "null" if value is None else value
    return UserError(
        f"{key}={said}: what is explained is a setting of the run, so that all methods of both lenses explain the "
        f"same; expected it at the top level: write {run}={said} and leave it out of method.{name}."
    )


def check_target_settings(values: Mapping[str, Any]) -> None:
    """Refuse a target inside a method of this project; a class of the user's own may have a setting of that name.

    Raises:
        UserError: naming the key.
    """
    methods = values.get("method")
    for name, node in methods.items() if isinstance(methods, Mapping) else ():
        if not isinstance(node, Mapping) or not str(node.get("_target_", "")).startswith("twinlens."):
            continue
        for setting in OF_A_METHOD:
            if setting in node and (error := target_of_a_method(f"method.{name}.{setting}", node[setting])):
                raise error


def with_target_of_run(config: DictConfig) -> tuple[DictConfig, str]:
    """A configuration of before with `explain`, and a line that says what it was read as; others as they are, and "".

    Raises:
        UserError: its methods explain different targets within one lens.
    """
    if EXPLAIN in config:
        return config, ""
    copy = config.copy()
    OmegaConf.set_readonly(copy, False)
    OmegaConf.set_struct(copy, False)
    methods = copy.get("method") or {}
    of_tokens = str((copy.get("data") or {}).get("_target_", "")).startswith(NEXT_TOKEN)
    default = "answer" if of_tokens else "predicted"
    asked: dict[str, dict[str, str]] = {"instance": {}, "neuron": {}}
    for name, node in methods.items():
        if not isinstance(node, DictConfig):
            continue
        if "labels" in node:
            asked["instance"][str(name)] = default if node.labels == "predicted" or of_tokens else "gold"
        if "target" in node and str(node.get("_target_", "")).startswith("twinlens."):
            asked["neuron"][str(name)] = str(node.pop("target") or default)
    found = {lens: _one_target(lens, words) or default for lens, words in asked.items()}
    same = found["instance"] == found["neuron"] or not asked["instance"]
    copy[EXPLAIN] = found["neuron"] if same else found
    copy.setdefault("explain_against", None)
    said = copy[EXPLAIN] if same else "{" + ", ".join(f"{lens}: {word}" for lens, word in found.items()) + "}"
    return (
        copy,
        f"explain: this configuration is older than the setting; read as explain={said}, what its methods meant, "
        f"until version {READ_UNTIL}",
    )


def _one_target(lens: str, words: Mapping[str, str]) -> str | None:
    different = sorted(set(words.values()))
    if len(different) > 1:
        listed = ", ".join(f"method.{name}: {word}" for name, word in words.items())
        raise UserError(
            f"the {lens} methods of this configuration explain different targets ({listed}), and a run explains one; "
            f"expected one word for all: run it with +explain={different[0]}, then with +explain={different[1]}."
        )
    return different[0] if different else None
