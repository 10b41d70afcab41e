"""Notebooks of the project: executed, and kept without what changes from run to run: `python -m tests.notebooks`."""

from __future__ import annotations

import base64
import gzip
import html
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
"""Outputs that live as long as their kernel: moving bars."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_PAGE = re.compile(r'id="page">([^<]*)<')
_FRAME = re.compile(r'srcdoc="([^"]*)"')


def read(path: Path) -> Any:
    """A notebook."""
    return nbformat.read(path, as_version=4)


def executed(path: Path, folder: Path) -> Any:
    """A notebook run from its first to its last cell, as it is kept.

    Args:
        folder: working directory of its kernel.
    """
    from nbclient import NotebookClient

    notebook = read(path)
    NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """Without times, versions and bars; a print that came in pieces is one."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined([one for one in cell.outputs if WIDGET not in one.get("data", {})])
    return notebook


def joined(found: list[Any]) -> list[Any]:
    """Outputs, of which neighbours of one stream are one."""
    kept: list[Any] = []
    for one in found:
        if kept and one.output_type == kept[-1].output_type == "stream" and one.name == kept[-1].name:
            kept[-1].text += one.text
        else:
            kept.append(one)
    return kept


def outputs(notebook: Any) -> Iterator[tuple[int, str, str]]:
    """Number of the cell, kind and text of everything that a notebook shows; a view's page is unpacked."""
    for number, cell in enumerate(notebook.cells):
        for one in cell.get("outputs", []):
            if one.output_type in ("stream", "error"):
                yield number, one.get("name", "error"), one.get("text", "\n".join(one.get("traceback", [])))
            for kind, text in sorted(one.get("data", {}).items()):  # as files have them
                for frame in _FRAME.findall(text) if kind == "text/html" else ():
                    yield number, "page", page_of(frame)
                yield number, kind, _FRAME.sub("", text)


def page_of(frame: str) -> str:
    """The page that a frame of a view carries."""
    (packed,) = _PAGE.findall(html.unescape(frame))
    return gzip.decompress(base64.b64decode(packed)).decode()


def main(names: list[str]) -> None:
    """Execute the notebooks with these names, or all, and write them."""
    for path in NOTEBOOKS:
        if not names or path.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                nbformat.write(executed(path, Path(folder)), path)
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
