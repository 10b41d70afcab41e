"""Views of a run in a notebook: the explorer in a frame of its own, and plain tables where scripts are off."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twinlens.callbacks.report.cells import Cell
from twinlens.callbacks.report.packing import packed
from twinlens.callbacks.report.page import render_report
from twinlens.callbacks.results.run_files import RunFiles

if TYPE_CHECKING:
    import pandas

MOST_HIGH = 900
"""Pixels of a frame; what is higher scrolls inside it."""
_LISTEN = f"""
(() => {{
  if (window.twinlensViews) return;
  window.twinlensViews = true;
  addEventListener("message", ({{ data, source }}) => {{
    if (!data || typeof data.twinlensHeight !== "number") return;
    for (const frame of document.querySelectorAll("iframe.twinlens-view")) {{
      if (frame.contentWindow !== source) continue;
      frame.style.height = `${{Math.min(Math.ceil(data.twinlensHeight) + 2, {MOST_HIGH})}}px`;
      frame.style.borderWidth = "1px";
      frame.nextElementSibling.style.display = "none";
    }}
  }});
}})();
"""
"""Gives a frame the height that its page asks for, and hides the tables that stand for it until then."""
_UNPACK = """<!doctype html><meta charset="utf-8"><script type="text/plain" id="page">PAGE</script><script>
(async () => {
  const bytes = Uint8Array.from(atob(document.getElementById("page").textContent), (one) => one.charCodeAt(0));
  const page = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(page).text();
  document.open();
  document.write(text);
  document.close();
})();
</script>"""
"""Document of a frame that writes the page which it carries: a notebook keeps every view, and less than half of it."""
_FRAME = "width: 100%; height: 0; border: 0 solid #8886; border-radius: 8px; box-sizing: border-box"

Tables = Iterable[tuple[str, "pandas.DataFrame | None"]]
"""Titles, each with a table below it or None."""


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this process, as in Jupyter, VS Code or Colab."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def cell_html(files: RunFiles, cell: Cell, tables: Tables) -> str:
    """A view as a notebook keeps it: a sandboxed frame, the tables, and a script that shows one of both.

    The frame begins with no height. Its page says how high it is; a notebook that runs no scripts or drops frames (an
    untrusted one, or GitHub) therefore shows the tables. No style of the notebook reaches the page, nor the other way.

    Args:
        files: of the run.
        cell: what is shown.
        tables: the same in short.
    """
    page = _UNPACK.replace("PAGE", packed(render_report(files, cell=cell).encode("utf-8", "replace")))
    frame = (
        f'<iframe class="twinlens-view" title="twinlens: {html.escape(cell.start, quote=True)}" '
        f'sandbox="allow-scripts allow-downloads" style="{_FRAME}" srcdoc="{html.escape(page, quote=True)}"></iframe>'
    )
    plain = "\n".join(_plain(title, table) for title, table in tables)
    return f'<div>{frame}<div class="twinlens-plain">{plain}</div><script>{_LISTEN}</script></div>'


def show(made: str, text: str) -> None:
    """Display a view in the notebook.

    Args:
        made: see `cell_html`.
        text: what a reader without HTML gets.
    """
    from IPython.display import display

    display({"text/html": made, "text/plain": text}, raw=True)


def as_text(tables: Tables) -> str:
    """The tables for a terminal."""
    parts = []
    for title, table in tables:
        parts += [title] if table is None else [title, _lines(table)]
    return "\n".join(parts)


def _lines(table: pandas.DataFrame) -> str:
    """Aligned columns: numbers to the right, texts to the left."""
    cells = [[str(name), *map(_shown, table[name])] for name in table.columns]
    texts = [not all(isinstance(value, int | float) for value in table[name]) for name in table.columns]
    padded = []
    for column, is_text in zip(cells, texts, strict=True):
        width = max(map(len, column))
        padded.append([cell.ljust(width) if is_text else cell.rjust(width) for cell in column])
    return "\n".join(f"  {'  '.join(line).rstrip()}" for line in zip(*padded, strict=True))


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def _plain(title: str, table: pandas.DataFrame | None) -> str:
    tag = "pre" if "\n" in title else "p"
    said = f"<{tag}>{html.escape(title.encode('utf-8', 'replace').decode())}</{tag}>"
    if table is None:
        return said
    return said + table.map(_shown).to_html(index=False, border=0).encode("utf-8", "replace").decode()
