"""Pages as text: templates, inline styles and scripts, the hashes by which a page allows them; one whole file each.

A page is one file. It needs no network, and its content security policy forbids it: all that it runs stands in it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from twinlens.callbacks.report.chart_library import chart_library

TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str,
    scripts: Sequence[str],
    blocks: Mapping[str, str],
    folders: Sequence[Path] = (),
    library: bool = True,
    start: str | None = None,
    **values: Any,
) -> str:
    """A page as text; everything that comes from data is escaped.

    Args:
        template: its name; it extends `base.html.j2`.
        scripts: names of the parts of the page's one script, in their order.
        blocks: id → packed data, which the script unpacks.
        folders: of further templates, scripts and style sheets than the report's; `<folder>/page.css` is added.
        library: whether the charting library is added.
        start: address that is shown first in a notebook's cell, which has none of its own; None: a file.
        values: what the template shows.
    """
    places = [*folders, TEMPLATES]
    parts = "".join(source(name, *places) for name in scripts)
    script = f'(() => {{\n"use strict";\n{parts}}})();'
    own = [source("page.css", folder) for folder in folders if (folder / "page.css").is_file()]
    packed, hashes = dict(blocks), [digest(script)]
    if library:
        packed["library"] = chart_library().packed
        hashes.append(digest(chart_library().script))
    return _environment(*places).get_template(template).render(
        style=Markup("".join([source("style.css"), source("explorer.css"), *own])),
        script=Markup(script),
        blocks={name: Markup(block) for name, block in packed.items()},
        hashes=" ".join(f"'{one}'" for one in hashes),
        start=start,
        **values,
    )  # fmt: skip


def write(path: Path, page: str) -> Path:
    """Write a page to a partial path, renamed when whole; lone surrogates, as in names from JSON, are replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(page.encode("utf-8", "replace"))
    os.replace(partial, path)
    return path


def source(name: str, *folders: Path) -> str:
    """A style sheet or script, from the first folder that has it; by default the report's."""
    places = folders or (TEMPLATES,)
    return next(place / name for place in places if (place / name).is_file()).read_text(encoding="utf-8")


def digest(script: str) -> str:
    """What a content security policy calls a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@cache
def _environment(*folders: Path) -> Environment:
    """The templates of some folders, compiled once; everything that comes from data is escaped."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
