"""Pages of keys: every key of conf/ with its type, its default and its reason, by group and choice.

Types come from the signature of the class that a choice names, defaults and reasons from the YAML files themselves. A
key that a file leaves to the signature, and another choice of the same class writes, is named with that choice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twinlens.conf.checking.annotations import is_record, record_fields, type_name, union_options
from twinlens.conf.checking.signatures import parameters_of
from twinlens.conf.checking.top_level import GROUPS as FILLED

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = (*FILLED, "hydra", "debug", "experiment")
"""Folders of conf/ that a command line chooses from."""
HEADER = "| key | type | default | why, and what else |\n|---|---|---|---|"


@dataclass(frozen=True)
class Key:
    """One key: its dotted name within the choice, the written default, its type as far as known, and its reason."""

    name: str
    default: str
    kind: str
    reason: str


def pages() -> dict[str, str]:
    """File name → text: an index with the keys of every run, and a page for each group."""
    found = {f"{group}.md": page_of(group) for group in GROUPS}
    contents = "\n".join(["```{toctree}", *GROUPS, "```"])
    found["index.md"] = "\n".join(
        [
            "# Every key",
            "",
            "What a command line or a configuration can say, made of the files of `conf/` and of the classes that they",
            "name. Keys of every run stand here, those of a choice under its group. For example, `method=ig` chooses a",
            "method and `method.ig.n_steps=50` sets a key of it. How keys are written and composed stands in",
            "[configuration](../configuration.md).",
            "",
            contents,
            "",
            "## Of every run",
            "",
            table(keys_of(CONF / "train.yaml")),
        ]
    )
    return found


def page_of(group: str) -> str:
    """All choices of a group, each with its introduction and its keys."""
    files = sorted((CONF / group).rglob("*.yaml"))
    contents = {file: content_of(file) for file in files}
    parts = [f"# Keys of `{group}`\n", f"Choose with `{group}=NAME`; set a key with the dotted name of the table.\n"]
    for file in files:
        choice = file.relative_to(CONF / group).with_suffix("").as_posix()
        text = file.read_text(encoding="utf-8")
        parts.append(f"## `{group}={choice}`\n")
        parts += [part for part in (introduction(text), target_line(text)) if part]
        prefix = "" if is_global(text) else packaged(text) or group
        found = list(keys_of(file, prefix))
        parts.append(table(found) if found else "It has no keys of its own.\n")
        parts += left_out(file, contents, group)
    return "\n".join(parts)


def content_of(file: Path) -> dict[str, Any]:
    """What a file says."""
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def left_out(file: Path, contents: dict[Path, dict[str, Any]], group: str) -> Iterator[str]:
    """A sentence on keys that other choices of the same class write, and this one leaves to the signature."""
    own = contents[file]
    named: dict[str, str] = {}
    for other, content in contents.items():
        if own.get("_target_") and content.get("_target_") == own["_target_"]:
            named |= {key: other.stem for key in content if key not in own and key not in named}
    if named:
        keys = ", ".join(f"`{key}` (see `{group}={choice}`)" for key, choice in named.items())
        yield f"Keys of its class that it leaves at their defaults: {keys}.\n"


def introduction(text: str) -> str:
    """The comment at the head of a file, without Hydra's word on its place."""
    head = re.match(r"(?:#.*\n)*", text)
    lines = [line.lstrip("# ") for line in (head[0] if head else "").splitlines() if "@package" not in line]
    return cell(" ".join(lines)) + "\n" if lines else ""


def packaged(text: str) -> str:
    """`method.ig` where a file says so of itself."""
    found = re.search(r"^# @package ([\w.]+)$", text, re.MULTILINE)
    return found[1] if found else ""


def is_global(text: str) -> bool:
    """Whether the file's keys are those of the whole run, as in experiments."""
    return packaged(text) == "_global_"


def target_line(text: str) -> str:
    """The class that a choice names, linked where the reference has it."""
    target = (yaml.safe_load(text) or {}).get("_target_")
    if not target:
        return ""
    role = "{py:class}" if target.startswith("twinlens.attribution") else ""
    return f"Class: {role}`{target}`\n"


def keys_of(file: Path, prefix: str = "") -> Iterator[Key]:
    """Every key that a file writes, then parameters of its class that it leaves to the signature."""
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text)
    if isinstance(node, yaml.MappingNode):
        yield from walked(node, text.splitlines(), f"{prefix}." if prefix else "", None)


def walked(node: yaml.MappingNode, lines: list[str], prefix: str, fields: dict[str, Any] | None) -> Iterator[Key]:
    """Keys of a mapping and of those in it; `fields` are types by name where what holds them is known."""
    target = next((value.value for key, value in node.value if key.value == "_target_"), None)
    parameters = parameters_of(located(target)) if target else {}
    types = {name: parameter.annotation for name, parameter in parameters.items()} if target else fields or {}
    for key, value in node.value:
        if key.value in ("defaults", "_target_"):
            continue
        known = types.get(key.value, inspect.Parameter.empty)
        if isinstance(value, yaml.MappingNode) and value.value:
            if reason := comment(lines, key.start_mark.line, key.end_mark.column):
                yield Key(prefix + key.value, "", "", reason)
            yield from walked(value, lines, f"{prefix}{key.value}.", inner(known))
        else:
            reason = comment(lines, value.end_mark.line, value.end_mark.column) or above(lines, key.start_mark.line)
            yield Key(
                prefix + key.value,
                written(value, lines),
                "" if known is inspect.Parameter.empty else in_words(known),
                reason,
            )


def inner(annotation: Any) -> dict[str, Any]:
    """Types of the fields of a record, by name; empty for what is none."""
    options = [option for option in (union_options(annotation) or (annotation,)) if is_record(option)]
    return {name: hint for name, (hint, _) in record_fields(options[0]).items()} if options else {}


def in_words(annotation: Any) -> str:
    """A type as a command line has it: choices by name, `null` for None."""
    name = type_name(annotation).replace("Sequence[", "list[").replace("Mapping[", "dict[")
    name = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "").replace(", ", " | "), name)
    return re.sub(r"\bNone\b", "null", name)


def located(target: str) -> Any:
    """The class of a dotted name."""
    module, _, name = target.rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)


def written(value: yaml.Node, lines: list[str]) -> str:
    """A value as its file writes it."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip()
    parts = [lines[start.line][start.column :], *lines[start.line + 1 : end.line], lines[end.line][: end.column]]
    return " ".join(re.sub(r"\s#\s.*$", "", part).strip() for part in parts).strip()


def comment(lines: list[str], line: int, column: int) -> str:
    """What is said behind a value on its line."""
    rest = lines[line][column:] if line < len(lines) else ""
    found = re.match(r"[\s:}]*#\s*(.*)$", rest)
    return found[1] if found else ""


def above(lines: list[str], line: int) -> str:
    """Lines of comment directly above a key, but for those at the head of the file."""
    start = line
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return " ".join(text.strip().lstrip("# ") for text in lines[start:line]) if start else ""


def table(keys: Iterator[Key] | list[Key]) -> str:
    """The keys as a table."""
    rows = [f"| `{key.name}` | {code(key.kind)} | {code(key.default)} | {cell(key.reason)} |" for key in keys]
    return "\n".join([HEADER, *rows, ""])


def code(text: str) -> str:
    """Text in backticks that a table cell can hold."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def cell(text: str) -> str:
    """Plain text that a table cell can hold: what would be markup by chance is escaped."""
    return re.sub(r"([|*_<>\[\]{}`])", r"\\\1", text)
