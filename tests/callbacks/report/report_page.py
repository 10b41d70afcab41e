"""report.html, parsed."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_from_disk

MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
"""Text that would run if a page took it for markup."""


class Page(HTMLParser):
    """Tags with their attributes and enclosing text; raises on an element that is closed but not open."""

    VOID = frozenset({"meta", "img", "input", "br", "wbr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.content: dict[str, list[str]] = {"script": [], "style": [], "data": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script" and self.tags[-1][1].get("type") == "text/plain":
            inside = "data"
        self.content.get(inside, self.text).append(data)

    def attributes(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name)) is not None]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def island(html: str) -> dict[str, Any]:
    """The data of a page: its header, with columns as lists in the place of their addresses."""
    packed = re.search(r'<script type="text/plain" id="island">([^<]*)</script>', html)
    assert packed is not None
    block = gzip.decompress(base64.b64decode(packed[1]))
    start = 4 + int.from_bytes(block[:4], "little")
    return _filled(json.loads(block[4:start]), block[start:])


def listed(method: dict[str, Any], row: int, end: str = "top") -> list[tuple[int, float]]:
    """One end of a method's list of the example at a row of the page, as (place, score)."""
    place, side = method["row"].index(row), method[end]
    span = slice(side["start"][place], side["start"][place + 1])
    return list(zip(side["at"][span], side["score"][span], strict=True))


def rewrite(run: Path, split: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write the rows of a split anew, each as `change` gives it."""
    folder = run / "examples" / split
    rows = [change(row) for row in load_from_disk(str(folder)).to_list()]
    shutil.rmtree(folder)
    Dataset.from_list(rows).save_to_disk(str(folder))


def _filled(value: Any, columns: bytes) -> Any:
    if isinstance(value, list):
        return [_filled(one, columns) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"t", "o", "n"}:
        return np.frombuffer(
            columns, np.dtype("<" + value["t"][0] + str(int(value["t"][1:]) // 8)), value["n"], value["o"]
        ).tolist()
    if value.keys() == {"words", "at"}:
        return [value["words"][place] for place in _filled(value["at"], columns)]
    return {name: _filled(one, columns) for name, one in value.items()}
