"""Shape of the project: what is told apart where, what lies where, how long files are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, REPOSITORY, called, git, name_of, nodes, sources, text, tree

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
