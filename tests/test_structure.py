"""The shape of the project: which part may import which, what lies where, how long files are."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("attribution", "models", "data", "callbacks", "conf")
"""Folders of the checkout, each a package below `twinlens`."""
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
LONGEST_FILE = 320
LONGEST_ENTRY_POINT = 120
TOP_LEVEL = {
    "train.py",
    "pyproject.toml",
    "constraints.txt",
    "Makefile",
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "CHANGELOG.md",
    *PACKAGES,
    "tests",
    "benchmarks",
    "docs",
    "twinlens",
    "CONTRIBUTING.md",
    "notebooks",
}
ASKING = {"what", "how", "which", "where", "when", "who", "whose", "why", "whether", "does", "do", "is", "are", "can"}
"""Words that a module's docstring does not begin with: it says what the file is, and asks nothing."""
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def sources(*folders: str) -> list[Path]:
    """Python files below the folders, and train.py where it is named."""
    files = [file for folder in folders for file in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [*files, REPOSITORY / "train.py"] if "train" in folders else files


def name_of(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@cache
def tree(source: str) -> ast.Module:
    """What a module says, read once for all tests."""
    return ast.parse(source)


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """All of it, in no order that matters."""
    return tuple(ast.walk(tree(source)))


def imported(source: str, package: str = "") -> Iterator[str]:
    """Full dotted names of all that a module imports, wherever in it the import stands.

    Args:
        package: the package that the module lies in, to resolve relative imports.
    """
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            yield from (str(given.value) for given in node.args[:1] if isinstance(given, ast.Constant))


def called(node: ast.Call) -> str:
    """Last part of the name of what is called."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def module_of(file: Path) -> str:
    """Name that a file of the checkout is imported by."""
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    within = parts and parts[0] in (*PACKAGES, "train")
    return ".".join(("twinlens", *parts) if within else parts)


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


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def imports_of(*folders: str) -> list[tuple[str, str]]:
    """(file, imported name) of every import below the folders."""
    pairs = []
    for file in sources(*folders):
        package = module_of(file.parent / "__init__.py")
        pairs += [(name_of(file), name) for name in imported(text(file), package)]
    return pairs


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


def method_names() -> set[str]:
    """Names of all classes of methods, and of what they extend."""
    import_of = {}
    for file in sources("attribution"):
        for node in nodes(text(file)):
            if isinstance(node, ast.ClassDef):
                import_of[node.name] = {ast.unparse(base) for base in node.bases}
    found = {"Method"}
    while more := {name for name, bases in import_of.items() if bases & found} - found:
        found |= more
    return found


def asked_of_methods(source: str, methods: set[str]) -> list[str]:
    """Calls of isinstance over methods."""
    return [
        ast.unparse(node)
        for node in nodes(source)
        if isinstance(node, ast.Call) and called(node) == "isinstance" and len(node.args) == 2
        for name in [{part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)} & methods]
        if name
    ]


def compared_words(source: str, words: set[str]) -> list[str]:
    """Comparisons of a readout with a word, and lists of several such words."""
    found = []
    for node in nodes(source):
        if isinstance(node, ast.Compare) and "readout" in ast.unparse(node):
            sides = [node.left, *node.comparators]
            found += [ast.unparse(node) for side in sides if isinstance(side, ast.Constant) and side.value in words]
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            listed = {item.value for item in node.elts if isinstance(item, ast.Constant)}
            found += [ast.unparse(node)] if len(listed & words) > 1 else []
    return found


def git(*arguments: str) -> list[str]:
    """Lines that git prints about the checkout; skips where this is none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs git")
    if done.returncode == 128:
        pytest.skip("needs a git checkout")
    return done.stdout.splitlines()


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


def test_only_the_dispatch_tells_methods_apart() -> None:
    methods = method_names()
    assert {"IntegratedGradients", "Influence", "NeuronInstances", "InstanceNeurons", "RandomNeurons"} <= methods
    found = {name_of(file): asked_of_methods(text(file), methods) for file in sources(*PACKAGES, "train")}
    assert {file for file, calls in found.items() if calls} == {"callbacks/attribute/dispatch.py"}
    assert asked_of_methods("isinstance(m, A | Influence)", methods) == ["isinstance(m, A | Influence)"]


def test_no_control_is_known_by_its_name() -> None:
    calls = [
        (name_of(file), ast.unparse(node))
        for file in sources(*PACKAGES, "train")
        for node in nodes(text(file))
        if isinstance(node, ast.Call)
        and called(node) in ("startswith", "match", "fullmatch")
        and any("random" in str(getattr(part, "value", "")) for part in node.args)
    ]
    assert calls == []


def test_readouts_are_listed_and_told_apart_in_one_place() -> None:
    from twinlens.attribution.readouts import READOUTS

    found = {name_of(file): compared_words(text(file), set(READOUTS)) for file in sources(*PACKAGES, "train")}
    assert {file: said for file, said in found.items() if said} == {}
    assert compared_words('data.readout == "token"', {"token"})
    assert compared_words('Literal["choice", "token"]', {"token", "choice"})


def test_sizes_of_shards_stand_in_one_place() -> None:
    users = {file for file, name in imports_of(*PACKAGES) if name == "twinlens.data.sampling.length_sorted_batches"}
    assert users == {"callbacks/passes/shards.py"}


def test_no_private_name_is_imported() -> None:
    folders = (*PACKAGES, "train", "tests", "benchmarks")
    private = [(file, name) for file, name in imports_of(*folders) if name.rpartition(".")[2].startswith("_")]
    assert [(file, name) for file, name in private if name != "__future__.annotations"] == []


def test_nothing_unpickles() -> None:
    found = {name_of(file): unsafe_reads(text(file)) for file in sources(*PACKAGES, "train")}
    assert {file: reads for file, reads in found.items() if reads} == {}


def test_every_module_has_a_docstring() -> None:
    files = sources(*PACKAGES, "train", "benchmarks")
    assert [name_of(file) for file in files if not ast.get_docstring(tree(text(file)))] == []


def first_word(source: str) -> str:
    """First word of a module's docstring, in lower case; empty where there is none."""
    return next(iter(re.findall(r"[a-z]+", (ast.get_docstring(tree(source)) or "").lower())), "")


def test_docstrings_of_modules_begin_with_a_noun_or_a_verb() -> None:
    """A list of files is read by first words: "Cost of …", "Check …", never "What a pass costs"."""
    files = sources("twinlens", *PACKAGES, "train", "benchmarks", "tests")
    assert [name_of(file) for file in files if first_word(text(file)) in ASKING] == []


@pytest.mark.parametrize(
    ("docstring", "word"), [("What it costs.", "what"), ("`Which` rows.", "which"), ("Cost of it.", "cost"), ("", "")]
)
def test_first_words_are_seen(docstring: str, word: str) -> None:
    assert first_word(f'"""{docstring}"""') == word


def test_files_are_short() -> None:
    files = sources("twinlens", *PACKAGES, "train", "benchmarks")
    lines = {name_of(file): len(text(file).splitlines()) for file in files}
    entry_point = lines.pop("train.py")
    assert {file: count for file, count in lines.items() if count > LONGEST_FILE} == {}
    assert entry_point <= LONGEST_ENTRY_POINT


def test_top_level_holds_only_what_the_layout_names() -> None:
    top = {Path(line).parts[0] for line in git("ls-files")}
    assert {name for name in top if not name.startswith(".")} - TOP_LEVEL == set()


def test_no_primary_config_shadows_a_replay() -> None:
    """A run is replayed with `--config-dir <run> --config-name config`; conf/config.yaml would be found first."""
    assert (REPOSITORY / "conf" / "train.yaml").is_file()
    assert not (REPOSITORY / "conf" / "config.yaml").exists()


def test_gitignore_is_anchored() -> None:
    lines = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns
    assert [pattern for pattern in patterns if not pattern.startswith("/") and pattern != "__pycache__/"] == []


def test_nothing_of_the_source_is_ignored() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
    fresh = [f"{folder}/{name}" for folder in (*PACKAGES, "tests", "docs") for name in ("new.py", "outputs/new.yaml")]
    assert git("check-ignore", *fresh) == []


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
