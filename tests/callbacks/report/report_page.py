"""report.html, parsed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

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
        self.content: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.content.get(inside, self.text).append(data)

    def attributes(self, tag: str, name: str) -> list[str]:
        return [value for found, attrs in self.tags if found == tag and (value := attrs.get(name)) is not None]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def articles(html: str, index: int) -> list[str]:
    return re.findall(rf'<article class="example" id="test-{index}".*?</article>', html, re.S)
