"""citations.bib: exactly the papers of the methods, evaluations, data and model that a run used."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from twinlens.callbacks.share.statements import stated
from twinlens.conf.checking.top_level import SEVERAL

REFERENCES = Path(__file__).parent / "references.bib"
"""All that is cited anywhere, one entry each."""
OWN = "twinlens"
"""Key of the project itself, which every run cites."""

_ENTRY = re.compile(r"^@\w+\{(?P<key>[^,\s]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  (?P<name>\w+) = \{(?P<value>.*)\},?$", re.MULTILINE)


@cache
def references() -> Mapping[str, str]:
    """Key → entry as text, in the order of the file."""
    text = REFERENCES.read_text(encoding="utf-8")
    return {entry["key"]: entry[0] for entry in _ENTRY.finditer(text)}


def cited(config: Mapping[str, Any]) -> list[str]:
    """Keys that a run's configuration asks for, in the order of `references.bib`; keys without an entry are left out.

    Args:
        config: plain values of config.yaml.
    """
    nodes = [config.get("model"), config.get("data")]
    for group in SEVERAL:
        nodes += list((config.get(group) or {}).values()) if isinstance(config.get(group), Mapping) else []
    found = {OWN, *(key for node in nodes for key in stated(node, "papers"))}
    return [key for key in references() if key in found]


def bibliography(keys: list[str]) -> str:
    """The entries as one BibTeX file."""
    return "\n\n".join(references()[key] for key in keys) + "\n"


def in_words(key: str) -> str:
    """An entry in a line: authors, title, year and where it stands; plain text without BibTeX's marks."""
    fields = {field["name"]: _plain(field["value"]) for field in _FIELD.finditer(references()[key])}
    authors = [_surname(name) for name in fields["author"].split(" and ")]
    by = "; ".join("others" if name == "others" else name for name in authors)
    preprint = f", arXiv:{fields['eprint']}" if "eprint" in fields else ""
    return f"{by}: {fields['title']}, {fields['year']}{preprint}"


def _surname(name: str) -> str:
    return name.partition(",")[0]


def _plain(value: str) -> str:
    """A field's text with accents as letters and without braces."""
    for mark, accent in (("'", "\u0301"), ("`", "\u0300"), ('"', "\u0308")):
        value = re.sub(rf"\{{\\{re.escape(mark)}(\w)\}}", rf"\g<1>{accent}", value)
    return unicodedata.normalize("NFC", re.sub(r"\\url|[{}]", "", value))
