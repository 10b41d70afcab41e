"""Imports of the project: which part may know which, and which library stays where."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, REPOSITORY, imported, imports_of, is_within, module_of, sources, text

WINGS = (
    "processes",
    "store",
    "passes",
    "fit",
    "predict",
    "attribute",
    "evaluate",
    "results",
    "figures",
    "report",
    "tracking",
    "share",
    "run",
    "plan",
    "sweep",
)
"""Of callbacks/, from the ground up: each may import those before it."""
LEAVES = (
    "twinlens.attribution.errors",
    "twinlens.attribution.protocols",
    "twinlens.attribution.readouts",
    "twinlens.attribution.residual_protocol",
)


def modules() -> dict[str, Path]:
    """Every module of the project by its name."""
    return {module_of(file): file for file in sources("twinlens", *PACKAGES, "train")}


def edges() -> dict[str, set[str]]:
    """Module → modules of the project that it imports, wherever in the file."""
    known = modules()
    graph = {}
    for name, file in known.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        found = (longest_module(wanted, known) for wanted in imported(text(file), package))
        graph[name] = {module for module in found if module} - {name}
    return graph


def longest_module(name: str, known: dict[str, Path]) -> str:
    """The module that an imported name is or lies in, empty for other packages."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """What is left when modules that import nothing of the rest are taken away, again and again."""
    left = dict(graph)
    while ready := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in ready:
            del left[name]
    return [[name, *sorted(wanted & left.keys())] for name, wanted in sorted(left.items())]


@pytest.mark.parametrize("package", ["attribution", "models", "data"])
def test_inner_packages_do_not_know_each_other(package: str) -> None:
    others = {f"twinlens.{name}" for name in (*PACKAGES, "train") if name != package} | {"tests", "benchmarks"}
    wrong = [
        (file, name)
        for file, name in imports_of(package)
        if any(is_within(name, other) for other in others) and not any(is_within(name, leaf) for leaf in LEAVES)
    ]
    assert wrong == []


def test_callbacks_and_conf_know_nothing_above_them() -> None:
    wrong = [
        (file, name)
        for folder, outside in (
            ("callbacks", ("twinlens.train", "tests", "benchmarks")),
            ("conf", ("twinlens.train", "twinlens.callbacks", "tests", "benchmarks")),
        )
        for file, name in imports_of(folder)
        if any(is_within(name, module) for module in outside)
    ]
    assert wrong == []


def test_wings_import_only_downwards() -> None:
    wrong = [
        (file, name)
        for wing in WINGS
        for file, name in imports_of(f"callbacks/{wing}")
        for above in WINGS[WINGS.index(wing) + 1 :]
        if is_within(name, f"twinlens.callbacks.{above}")
    ]
    assert wrong == []


def test_every_file_of_callbacks_lies_in_a_wing() -> None:
    folder = REPOSITORY / "callbacks"
    assert [file.name for file in folder.glob("*.py")] == ["__init__.py"]
    assert {file.parent.name for file in folder.glob("*/__init__.py")} == set(WINGS)
    assert {len(file.relative_to(folder).parts) for file in folder.rglob("*.py")} == {1, 2}


def test_nothing_imports_in_a_circle() -> None:
    assert circles(edges()) == []


def test_circles_are_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["a", "b"], ["b", "c"], ["c", "b"]]
    assert edges()["twinlens.train"] >= {"twinlens.callbacks.run.pipeline"}


def test_every_module_imports_under_one_name() -> None:
    for name in modules():
        if name != "twinlens._wheel":  # which builds wheels, and needs setuptools
            importlib.import_module(name)
    files = set(modules().values())
    names: dict[str, list[str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and name != "__main__" and Path(file) in files:
            names.setdefault(file, []).append(name)
    assert len(names) == len(files) - 1
    assert {file: several for file, several in names.items() if len(several) > 1} == {}


def test_own_imports_carry_the_prefix() -> None:
    bare = (*PACKAGES, "train")
    found = [
        (file, name)
        for file, name in imports_of("twinlens", *PACKAGES, "train", "tests", "benchmarks")
        if any(is_within(name, module) for module in bare)
    ]
    assert found == []


def test_benchmarks_do_not_lean_on_the_tests() -> None:
    assert [(file, name) for file, name in imports_of("benchmarks") if is_within(name, "tests")] == []


def test_attribution_is_pure_torch() -> None:
    outside = ("lightning", "pytorch_lightning", "hydra", "omegaconf", "wandb", "datasets")
    wrong = [
        (file, name) for file, name in imports_of("attribution") if any(is_within(name, module) for module in outside)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [("hydra", ("train.py", "conf/", "callbacks/sweep/sweep_table.py")), ("wandb", ("callbacks/",))],
)
def test_libraries_stay_where_they_belong(library: str, allowed: tuple[str, ...]) -> None:
    users = {file for file, name in imports_of(*PACKAGES, "train", "benchmarks") if is_within(name, library)}
    assert users, f"nothing imports {library}: has the walk lost its way?"
    assert [file for file in sorted(users) if not file.startswith(allowed)] == []


def test_sizes_of_shards_stand_in_one_place() -> None:
    users = {file for file, name in imports_of(*PACKAGES) if name == "twinlens.data.sampling.length_sorted_batches"}
    assert users == {"callbacks/passes/shards.py"}


def test_no_private_name_is_imported() -> None:
    folders = (*PACKAGES, "train", "tests", "benchmarks")
    private = [(file, name) for file, name in imports_of(*folders) if name.rpartition(".")[2].startswith("_")]
    assert [(file, name) for file, name in private if name != "__future__.annotations"] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.nn as nn, wandb", ["torch.nn", "wandb"]),
        ("from twinlens.attribution.errors import UserError", ["twinlens.attribution.errors.UserError"]),
        ("from twinlens.attribution import protocols", ["twinlens.attribution.protocols"]),
        ("def f():\n    from twinlens.callbacks import store", ["twinlens.callbacks.store"]),
        ("from .ig import Path", ["twinlens.attribution.neuron.ig.Path"]),
        ("from ..protocols import Batch", ["twinlens.attribution.protocols.Batch"]),
        ("from . import ig", ["twinlens.attribution.neuron.ig"]),
        ("importlib.import_module('wandb')", ["wandb"]),
    ],
)
def test_the_walk_sees_every_form_of_import(source: str, names: list[str]) -> None:
    assert list(imported(source, "twinlens.attribution.neuron")) == names
