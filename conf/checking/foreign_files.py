"""Configuration files from somewhere else: bounds, and nothing that reads or runs while it is composed.

Foreign is every file outside the project's own configuration folder. What it sets is checked again once composed, see
`twinlens.conf.checking.trusted_hydra_node`; here stands what would already have happened by then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.plain_values import join

LARGEST_FILE = 256 * 1024
"""Bytes; the configuration of a run has some four thousand."""
DEEPEST = 40
"""Levels of nesting."""
MOST_VALUES = 50_000
"""Values with all aliases written out."""
MOST_DEFAULTS = 64
"""Entries of a defaults list."""
LONGEST_REFERENCE = 2_000
"""Characters of a text that refers to other values."""

REFERS = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # an odd backslash makes a literal of it
REFERENCE = OmegaConfGrammarParser.InterpolationResolverContext


def check_foreign_file(path: Path) -> None:
    """Check a file before anything of it is composed.

    Raises:
        UserError: one sentence about the first thing that a configuration from elsewhere may not hold.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise UserError(
            f"{path} has {size} bytes; expected a configuration of at most {LARGEST_FILE}: keep data in a data file "
            "and name it with data.path."
        )
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
        _check_nesting(text, loader, path)
        node = yaml.compose(text, Loader=loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (byte {error.start}); expected YAML: save it as UTF-8.") from error
    except yaml.YAMLError:
        return  # told when the file is composed, with its line
    if node is None:
        return
    _check_expansion(node, path)
    check_foreign_content(_content(node), path)


def check_foreign_content(content: Any, path: Path) -> None:
    """Check the parsed content of a file, all scalars as texts.

    Raises:
        UserError: see `check_foreign_file`.
    """
    for where, text in _texts(content):
        check_reference(text, f"{path}, {where}")
    if not isinstance(content, Mapping):
        return
    hydra = content.get("hydra")
    if (isinstance(hydra, Mapping) and "searchpath" in hydra) or "hydra.searchpath" in content:
        raise UserError(
            f"{path}: hydra.searchpath names further places of configurations; expected none in a file from "
            "elsewhere: give it on the command line, as in hydra.searchpath=[file://DIR]."
        )
    defaults = content.get("defaults")
    if isinstance(defaults, list) and len(defaults) > MOST_DEFAULTS:
        raise UserError(f"{path}: the defaults list has {len(defaults)} entries; expected at most {MOST_DEFAULTS}.")


def check_reference(text: str, where: str) -> None:
    """Refuse a text of a foreign file that calls a resolver (`${oc.env:HOME}`), however it is put together.

    Raises:
        UserError: naming the place.
    """
    if not REFERS.search(text):
        return
    if len(text) > LONGEST_REFERENCE or text.count("${") > MOST_DEFAULTS:
        raise UserError(
            f"{where}: the text refers to other values in {len(text)} characters with {text.count('${')} references; "
            f"expected at most {LONGEST_REFERENCE} and {MOST_DEFAULTS}: write the value itself."
        )
    try:
        tree = parse(text)
    except (GrammarParseError, RecursionError):
        raise UserError(f"{where}: {text[:80]!r} cannot be read as a reference; write the value itself.") from None
    if _calls(tree):
        raise UserError(
            f"{where}: {text[:80]!r} calls a resolver, which can read the environment; expected values or references "
            "to other keys, as in ${model.name}, in a file from elsewhere: write the value itself."
        )


def _content(node: yaml.Node) -> Any:
    """A parsed document as mappings, lists and texts; nothing is constructed."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _content(item) for key, item in node.value}
    return [_content(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else node.value


def _calls(tree: Any) -> bool:
    return isinstance(tree, REFERENCE) or any(_calls(child) for child in getattr(tree, "children", None) or ())


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """All texts with their place, keys included."""
    if isinstance(value, str):
        yield path or "text", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield f"key {str(key)[:80]}", str(key)
            yield from _texts(item, join(path, str(key)[:80]))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, join(path, index))


def _check_nesting(text: str, loader: Any, path: Path) -> None:
    """Refuse nesting that is too deep to be composed; reads the stream of events, which needs no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1  # type: ignore[union-attr]  # events of a text have their place
            raise UserError(f"{path}, line {line}: more than {DEEPEST} levels of nesting; expected fewer: flatten it.")


def _check_expansion(node: yaml.Node, path: Path) -> None:
    """Refuse aliases that lead in a circle or multiply."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise UserError(f"{path}: an alias leads back to what holds it; expected a tree: write the values out.")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            parts: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in parts for part in pair]
            sizes[id(node)] = 1 + sum(map(size, parts))
            open_nodes.remove(id(node))
        return sizes[id(node)]

    if size(node) > MOST_VALUES:
        raise UserError(
            f"{path}: its aliases stand for {size(node)} values; expected at most {MOST_VALUES}: write out what is "
            "needed, without aliases of aliases."
        )
