"""Reading without running: nothing in the project opens a file in a way that would run its code."""

from __future__ import annotations

import ast

import pytest

from tests.source_files import PACKAGES, called, imported, name_of, nodes, sources, text

UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe_reads(source: str) -> list[str]:
    """Calls and imports that would run code found in a file: unpickling in any guise."""
    found = [name for name in imported(source) if name.split(".")[0] in UNPICKLING]
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if called(node) == "load" and owner == "torch" and given.get("weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if given.get("allow_pickle", False) is not False:
            found.append("allow_pickle")
        if called(node) in ("read_pickle", "unsafe_load") or (
            owner == "yaml" and called(node) in ("load", "load_all") and not reads_safely(node)
        ):
            found.append(f"{owner}.{called(node)}")
    return found


def reads_safely(node: ast.Call) -> bool:
    """Whether a yaml.load names a loader that builds plain values only."""
    loaders = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "Loader")]
    return any("Safe" in ast.unparse(loader) for loader in loaders)


def test_nothing_unpickles() -> None:
    found = {name_of(file): unsafe_reads(text(file)) for file in sources(*PACKAGES, "train")}
    assert {file: reads for file, reads in found.items() if reads} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "numpy.load(file, allow_pickle=True)",
        "pandas.read_pickle(file)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
    ],
)
def test_the_walk_sees_unpickling(source: str) -> None:
    assert unsafe_reads(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file, weights_only=True)",
        "yaml.safe_load(text)",
        "yaml.load(t, yaml.CSafeLoader)",
        "json.load(file)",
    ],
)
def test_the_walk_lets_safe_reads_pass(source: str) -> None:
    assert unsafe_reads(source) == []
