r"""LaTeX of a table, to stand in a paper: a tabular with the rules of the package booktabs and no float around it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.formatting import format_number

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "…": r"\ldots{}",
    "–": "--",
}
LOW, HIGH = "low", "high"
"""Columns of the ends of an interval, alone or before the name of their value column."""


def latex(title: str, header: Sequence[str], lines: Sequence[Sequence[Cell]]) -> str:
    r"""A whole file: what it needs and shows as comments, then the tabular.

    The ends of an interval stand in brackets behind their value, in one column.

    Args:
        title: of the table, a comment.
        header: names of the columns.
        lines: cells, None for an empty one.

    Example:
        >>> from twinlens.callbacks.results.latex import latex
        >>> print(latex("A test", ["method", "mrr", "low", "high"], [["a_b", 0.5, 0.25, 0.75]]))
        % A test
        % \usepackage{booktabs}
        \begin{tabular}{lr}
        \toprule
        method & mrr \\
        \midrule
        a\_b & 0.5 [0.25, 0.75] \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
    """
    shown = merged(header, lines)
    numeric = [all(_is_number(row[i]) for row in lines) for i in _kept(header)]
    body = [_line(cells) for cells in shown]
    return "\n".join(
        [
            f"% {_one_line(title)}",
            r"% \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
            *(r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", ""),
        ]
    )


def escaped(text: str) -> str:
    """Text as LaTeX prints it; a bracket or an asterisk at its beginning is no option of the line break before it."""
    found = "".join(_SIGNS.get(sign, sign) for sign in _one_line(text))
    return f"{{{found[0]}}}{found[1:]}" if found[:1] in ("[", "*") else found


def merged(header: Sequence[str], lines: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Header and lines as text, with `value [low, high]` in one cell where the columns of an interval follow."""
    places = _kept(header)
    found = [[header[i] for i in places]]
    for line in lines:
        cells = []
        for i in places:
            text = format_number(line[i])
            if _has_interval(header, i) and line[i + 1] is not None and line[i + 2] is not None:
                text += f" [{format_number(line[i + 1])}, {format_number(line[i + 2])}]"
            cells.append(text)
        found.append(cells)
    return found


def _has_interval(header: Sequence[str], place: int) -> bool:
    """Whether the ends of an interval follow a column."""
    names = [name.split(" ")[0] for name in header[place + 1 : place + 3]]
    return names == [LOW, HIGH] and header[place].split(" ")[0] not in (LOW, HIGH)


def _kept(header: Sequence[str]) -> list[int]:
    """Places of the columns that have one in the printed table."""
    taken = {i + ahead for i in range(len(header)) if _has_interval(header, i) for ahead in (1, 2)}
    return [i for i in range(len(header)) if i not in taken]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _is_number(cell: Cell) -> bool:
    return cell is None or isinstance(cell, int | float) or bool(re.fullmatch(r"[<>]?-?[0-9.]+", cell))


def _one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
