"""The column `setting`: what is not as shipped, of the method of a row and of all that it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from twinlens.attribution.bridge.neuron_instances import NeuronInstances
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.run.folder import RunFolder
from twinlens.callbacks.run.method_settings import method_settings, setting_of
from twinlens.conf.checking.shipped import non_default, same, shipped, shown

METHODS = {
    "ig": IntegratedGradients(preset="reference"),
    "na_instances": NeuronInstances(source="ig"),
    "gradsim": GradientSimilarity(),
    "own": IntegratedGradients(n_steps=7),
}
NODES: dict[str, dict[str, Any]] = {
    **{name: dict(shipped(name, "method") or {}) for name in METHODS},
    "own": {"_target_": "twinlens.attribution.neuron.ig.IntegratedGradients", "n_steps": 7, "preset": "paper"},
}
NODES["ig"] |= {"preset": "reference", "top_k": 50}


def test_settings_of_a_method_and_of_what_it_reads() -> None:
    assert method_settings(METHODS, NODES) == {
        "ig": "preset=reference;top_k=50",
        "na_instances": "ig.preset=reference;ig.top_k=50",
        "gradsim": "",
        "own": "n_steps=7",  # not shipped: beside the defaults of its class
    }


def test_a_row_has_the_settings_of_both_its_methods(tmp_path: Path) -> None:
    run, settings = RunFolder(tmp_path), method_settings(METHODS, NODES)
    rows = [
        Result("sufficiency", 1.0, method="ig"),
        Result("sufficiency", 1.0, method="random_neurons", reference_group="ig"),  # drawn for its lists
        Result("instance_overlap", 1.0, method="gradsim", reference_group="na_instances"),
        Result("accuracy", 1.0, reference_group="a type"),
    ]
    run.add_results("any", rows, {"model": "tiny", "data": "demo", "seed": 0}, settings=settings)
    run.write()
    assert [row["setting"] for row in read_results(tmp_path / "results.csv")] == [
        "preset=reference;top_k=50",
        "ig.preset=reference;ig.top_k=50",
        "na_instances.ig.preset=reference;na_instances.ig.top_k=50",
        None,
    ]
    assert "any/ig/sufficiency" in run.metrics  # names of metrics stay comparable between runs
    assert setting_of(settings, "ig", "ig") == "preset=reference;top_k=50"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (1e-5, "1e-05"), ([0, 1], "[0,1]"), ("*.mlp.*", "*.mlp.*"), ({"a": 1}, "{a:1}")],
)
def test_values_are_shown_as_they_are_typed(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_number_is_no_yes_and_an_unknown_name_has_no_settings() -> None:
    assert not same(1, True)
    assert same((0, 1), [0, 1])
    assert shipped("../train", "method") is None
    assert non_default("unheard_of", "method", {"a": 1}) == {}
