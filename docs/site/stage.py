"""Sources of the site: every page of the project where Sphinx finds it, links mended, and pages made of code."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from docs.site import api, keys

REPOSITORY = Path(__file__).resolve().parents[2]
RENAMED = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages beside docs/ → their place in the site."""
NAVIGATION: Mapping[str, Sequence[str]] = {
    "Begin": ("overview", "tutorial", "quickstart", "report", "python", "notebooks/*"),
    "Choose and understand": ("which_method", "faq", "glossary", "methods", "ground_truth", "benchmark", "limitations"),
    "How to": (
        *("howto", "reproducing", "data", "models", "texts", "configuration"),
        *("tracking", "sharing", "scaling", "memory", "extending"),
    ),
    "Look up": (
        *("keys/index", "api/index", "errors", "warnings", "safety", "results"),
        *("former_names", "changed_numbers", "changelog"),
    ),
    "For developers": ("contributing", "records/*"),
}
"""Heading of the side bar → pages or patterns; a page that nothing here names follows under `OTHERS`."""
OTHERS = "How to"
TITLES = {"overview": "All at a glance (README)"}
"""Page → its name in the side bar, where that is not its title."""
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """File of the project → its place in the site, for every page and notebook that is written by hand."""
    own = sorted((REPOSITORY / "docs").rglob("*.md"))
    found = {name_of(file): name_of(file).removeprefix("docs/") for file in own}
    notebooks = {name_of(file): name_of(file) for file in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}
    return {**found, **RENAMED, **notebooks}


def stage(folder: Path) -> None:
    """Write all sources into `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    known = pages()
    made = {f"keys/{name}": text for name, text in keys.pages().items()}
    made |= {f"api/{name}": text for name, text in api.pages().items()}
    for source, place in known.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        if source.endswith(".md"):
            text, files = with_links(text, source, known)
            for file, beside in files.items():
                write(folder / beside, (REPOSITORY / file).read_bytes())
        made[place] = text
    made["index.md"] += "\n" + "\n".join(navigation(sorted(made)))
    for place, text in made.items():
        write(folder / place, text.encode("utf-8"))


def with_links(text: str, source: str, known: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """A page's text with links as they are from its place in the site, and the files that it shows or links."""
    files: dict[str, str] = {}

    def mended(link: re.Match[str]) -> str:
        path, mark, anchor = link[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        target = os.path.normpath(PurePosixPath(source).parent / path)
        if target not in known:
            picture = target.endswith(".png")
            files[target] = target.removeprefix("docs/") if picture else f"files/{target.replace('.md', '.md.txt')}"
        place = known.get(target) or files[target]
        return f"{link[1]}{os.path.relpath(place, PurePosixPath(known[source]).parent)}{mark}{anchor}{link[3]}"

    at, parts = 0, []
    for code in CODE.finditer(text):
        parts += [LINK.sub(mended, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, LINK.sub(mended, text[at:])]), files


def navigation(places: Sequence[str]) -> Iterator[str]:
    """The side bar: a table of contents for each heading, every page in one of them."""
    names = [place.rsplit(".", 1)[0] for place in places if place != "index.md"]
    chosen = {
        heading: [name for entry in entries for name in names if fnmatchcase(name, entry)]
        for heading, entries in NAVIGATION.items()
    }
    held = {name for entries in chosen.values() for name in entries}
    below = [name for name in names if name.startswith(("keys/", "api/"))]  # their own indices name them
    chosen[OTHERS] += [name for name in names if name not in {*held, *below}]
    for heading, entries in chosen.items():
        shown = (f"{TITLES[name]} <{name}>" if name in TITLES else name for name in entries)
        yield from ("```{toctree}", ":hidden:", f":caption: {heading}", "", *shown, "```", "")


def write(file: Path, content: bytes) -> None:
    """Write a file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def name_of(file: Path) -> str:
    """Path from the project's folder."""
    return file.relative_to(REPOSITORY).as_posix()
