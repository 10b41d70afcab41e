"""Style of figures, and the way they are saved: as PNG, or for a paper as PDF or SVG.

Figures are made with matplotlib's object interface on the Agg canvas: no pyplot, no display, no change to anyone's
global settings.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK = "#1B2430"
GRID = "#E3E7EC"
DPI = 150
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: the same figure on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8A94A0",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a `$` in a label is a dollar
}
MAX_LABEL = 32


KINDS: Any = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
"""Suffix of a file → what matplotlib would write into it of date and version, left out."""


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to a partial path and rename it; the bytes do not depend on date or version.

    Args:
        path: its suffix, one of `KINDS`, says in which form.
    """
    kind = path.suffix.removeprefix(".")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with rc_context({**STYLE, "svg.hashsalt": "twinlens", "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page shows such names in full; here they are boxes
        if kind == "png":
            FigureCanvasAgg(figure).print_png(str(partial), metadata=KINDS[kind])
        else:
            figure.savefig(partial, format=kind, metadata=KINDS[kind])
    os.replace(partial, path)
    return path


def short(name: str, longest: int = MAX_LABEL) -> str:
    """A label that fits: printable characters, cut with an ellipsis."""
    shown = "".join(character if character.isprintable() else " " for character in name)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
