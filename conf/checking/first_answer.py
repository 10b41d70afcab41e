"""First answer to a command line, before any heavy library is loaded: help, the version, names that are misspelt.

Files are read as YAML, and nothing is composed: what is not plain (packages, sweeps of functions, configurations from
elsewhere, experiments) is left to the whole check. It speaks where a name stands nowhere, in the words of that check.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.own_version import own_version
from twinlens.conf.checking.secrets import scrub
from twinlens.conf.checking.sentences import known_parent, no_such_choice, unknown_key

EXAMPLES = (
    ("", "train the tiny model on generated data, explain it with both lenses, evaluate, report"),
    ("plan=true", "what that would take; nothing is computed"),
    ("model=local model.path=DIR fit=false data=table data.path=FILE.csv method=[ig,gradsim]", "a classifier of yours"),
    ("model=gpt2 data=knowledge method=[logprob_increase,ig]", "neurons behind the next token"),
    ("-m seed=0,1,2 method=[influence,random_instances] evaluation=[lds]", "a sweep, compared in one table"),
)
"""Command lines, and what they do."""
PRINTING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
"""Options with which a command only prints."""
_SETTING = re.compile(r"([\w./-]+)=(.*)", re.DOTALL)
_NAME = r"\s*[\w/.-]+\s*"
_CHOICE = rf"(?:{_NAME}|\s*\[{_NAME}(?:,{_NAME})*\]\s*)"
_CHOICES = re.compile(rf"{_CHOICE}(?:,{_CHOICE})*")
_TARGET = re.compile(r"method\.[^.]+\.(explain|explain_against|target)$")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Unclear(Exception):
    """The whole check has to look."""


def first_answer(arguments: Sequence[str], config_dir: Path) -> tuple[int, str] | None:
    """Exit code and text where a command line can be answered at once; None: it goes on.

    Args:
        arguments: `sys.argv[1:]`.
        config_dir: the project's configuration folder.
    """
    if any(argument in ("--help", "-h") for argument in arguments):
        return 0, help_text(config_dir)
    if "--version" in arguments:
        return 0, f"twinlens {own_version()}"
    try:
        refused = misspelt(arguments, ConfigTree((config_dir,)))
    except (_Unclear, OSError, yaml.YAMLError, ValueError):
        return None
    return None if refused is None else (2, f"refused: {refused}")


def only_prints(arguments: Sequence[str]) -> bool:
    """Whether the command line asks for no run, but for something printed."""
    return any(argument.split("=")[0] in PRINTING for argument in arguments)


def help_text(config_dir: Path) -> str:
    """What the command is, five examples, and a line on each group of settings."""
    rows = [(f"python train.py {line}".rstrip(), what) for line, what in EXAMPLES]
    tree = ConfigTree((config_dir,))
    groups = [
        line
        for group, chosen, said in _groups(config_dir)
        for line in (f"  {group}: {chosen}", *_indented(said), *_indented(", ".join(tree.options(group))))
    ]
    return "\n".join(
        [
            f"twinlens {own_version()}: where a language model's prediction comes from, by training instances "
            "and neurons",
            "",
            "  python train.py KEY=VALUE …      one run      -m KEY=A,B …      a sweep      plan=true      its cost",
            "",
            "Examples:",
            *(f"  {line}\n      {what}" for line, what in rows),
            "",
            "Groups (GROUP=NAME chooses, GROUP=[A,B] several): the default, a word on it, all names",
            *groups,
            "",
            "All settings with their values: --cfg job. Hydra's own options: --hydra-help. More: README.md, docs/",
        ]
    )


def _indented(text: str) -> list[str]:
    """Lines of 100 characters at most, set in."""
    return textwrap.wrap(text, 100, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False)


def _groups(config_dir: Path) -> Iterator[tuple[str, str, str]]:
    """Group, its default and the word on it, as the defaults list of train.yaml has them."""
    for line in (config_dir / "train.yaml").read_text(encoding="utf-8").splitlines():
        found = re.fullmatch(r"\s+- (\w+): (.+?)\s+# (.+)", line)
        if found:
            yield found[1], found[2], found[3]


def misspelt(arguments: Sequence[str], tree: ConfigTree) -> UserError | None:
    """The sentence for the first group, option or key that stands nowhere; None: all are known, or it is unclear.

    Args:
        arguments: `sys.argv[1:]`.
        tree: the project's configuration folder.
    """
    typed = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    settings = []
    for argument in typed:
        if argument.startswith(("+", "~")):
            continue
        found = _SETTING.fullmatch(argument)
        if argument.startswith("-") or found is None or scrub(argument) != argument:
            return None
        settings.append((argument, found[1], found[2].strip()))
    primary = _read(tree.folders[0] / "train.yaml")
    chosen = {group: _names(option) for entry in primary.pop("defaults") if isinstance(entry, Mapping)
              for group, option in entry.items()}  # fmt: skip
    for line, key, value in settings:
        if tree.is_group(key) and not key.startswith("hydra"):
            names = [] if value == "null" else _listed(value)
            for name in names:
                if name not in tree.options(key):
                    return no_such_choice(line, key, name, tree.options(key))
            chosen[key] = names
    if chosen.pop("experiment", []) or any(argument.startswith(("+", "~")) for argument in typed):
        return None  # they choose and add keys
    known = dict(_flat(primary))
    for group, names in chosen.items():
        for name in names:
            known.update(_of_option(tree, group, name) if group != "hydra" else ())
    for line, key, _ in settings:
        if not tree.is_group(key) and not key.startswith("hydra") and key not in known:
            return _unknown(line, key, known, tree)
    return None


def _unknown(line: str, key: str, known: Mapping[str, Any], tree: ConfigTree) -> UserError | None:
    """The sentence for a key that is not there; None where another one says more."""
    if "/" in key or _TARGET.match(key):
        return None
    parent = known_parent(key, known)
    if not parent:
        return unknown_key(line, key, [*known, *(group for group in tree.groups() if group != "hydra")])
    if parent in ("method", "evaluation") or not isinstance(known[parent], Mapping):
        return None
    return unknown_key(line, key, list(known))


def _of_option(tree: ConfigTree, group: str, name: str) -> dict[str, Any]:
    """Dotted keys that an option fills, those of the options that it begins with included."""
    file, package = tree.file(group, name), tree.package(group, name)
    if file is None or package is None:
        raise _Unclear
    values, found = _read(file), {}
    for entry in values.pop("defaults", []):
        if entry != "_self_":
            if not isinstance(entry, str):
                raise _Unclear
            found.update(_of_option(tree, group, entry))
    prefix = "" if package == "_global_" else package
    parts = prefix.split(".") if prefix else []
    for depth in range(1, len(parts) + 1):
        found.setdefault(".".join(parts[:depth]), {})
    found.update(_flat(values, prefix))
    return found


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its dotted path, positions of lists included."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inner = f"{path}.{key}" if path else str(key)
        yield inner, item
        yield from _flat(item, inner)


def _read(file: Path) -> dict[str, Any]:
    loader = _LOADER(file.read_text(encoding="utf-8"))
    try:
        values = loader.get_single_data()
    finally:
        loader.dispose()
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise _Unclear
    return values


def _names(option: Any) -> list[str]:
    return [] if option is None else [str(name) for name in (option if isinstance(option, list) else [option])]


def _listed(value: str) -> list[str]:
    """The names of `NAME`, `[A,B]`, or a sweep `A,B` or `[A],[B,C]`."""
    if not _CHOICES.fullmatch(value):
        raise _Unclear
    return re.findall(r"[\w/.-]+", value)
