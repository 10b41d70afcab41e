"""Output of a run on a terminal of some width, on one that moves no cursor, and the last words after Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.running import SMALL_DEMO

WIDE = ("method=[ig,gradsim,logprob_increase_attn]", "evaluation=[accuracy,faithfulness]")


def take_terminal() -> None:
    """In the new process: make its standard input the terminal whose Ctrl-C it gets."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def on_terminal(
    folder: Path, repository: Path, columns: int, *arguments: str, stop_at: str = "", **variables: str
) -> tuple[int, str]:
    """Exit code and output of `python train.py` on a terminal; Ctrl-C is typed when `stop_at` is read."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "PYTHONPATH": str(repository), **variables}
    process = subprocess.Popen(
        [sys.executable, str(repository / "train.py"), *SMALL_DEMO, *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)
    said, typed = b"", False
    try:
        while select.select([ours], [], [], 600)[0]:
            more = os.read(ours, 65536)
            if not more:
                break
            said += more
            if stop_at and not typed and stop_at.encode() in said:
                time.sleep(0.2)
                os.write(ours, b"\x03")
                typed = True
    except OSError:  # the terminal's other end is closed
        pass
    code = process.wait()
    os.close(ours)
    return code, said.decode().replace("\r\n", "\n")


def shown(said: str) -> list[str]:
    """Lines that stay on a terminal: returns to the start of a line and steps to the one above are obeyed."""
    rows: list[list[str]] = [[]]
    row = column = 0
    for sign in re.findall(r"\x1b\[A|[^\x1b]", said):
        if sign == "\x1b[A":
            row -= 1
        elif sign == "\n":
            row, column = row + 1, 0
            rows += [[]] if row == len(rows) else []
        elif sign == "\r":
            column = 0
        else:
            rows[row] += [" "] * (column + 1 - len(rows[row]))
            rows[row][column] = sign
            column += 1
    return ["".join(line).rstrip() for line in rows]


@pytest.mark.long
def test_a_terminal_has_bars_that_leave_nothing_and_tables_of_its_width(tmp_path: Path, repository: Path) -> None:
    code, said = on_terminal(tmp_path, repository, 80, *WIDE)
    assert code == 0, said
    assert "100%" in said
    lines = [line for line in shown(said) if line]
    assert not [line for line in lines if "it/s" in line or "batch/s" in line]
    for stage in ("fit", "predict test", "ig", "gradsim", "logprob_increase_attn", "faithfulness"):
        assert [line for line in lines if re.fullmatch(rf"{stage}: computed in .* s", line)], stage
    table = lines[lines.index("accuracy") :]
    assert max(len(line) for line in table if line.startswith("  ")) <= 80
    assert "names in full" in table
    code, said = on_terminal(tmp_path, repository, 160, *WIDE)
    assert code == 0, said
    assert "names in full" not in said
    assert re.search(r"^ig: read from the store, made \d+ \w{3} \d\d:\d\d$", said, re.MULTILINE)


@pytest.mark.long
def test_a_terminal_that_moves_no_cursor_gets_plain_lines(tmp_path: Path, repository: Path) -> None:
    code, said = on_terminal(tmp_path, repository, 100, "method=ig", "evaluation=accuracy", TERM="dumb", NO_COLOR="1")
    assert code == 0, said
    assert not {"\r", "\x1b"} & set(said)


@pytest.mark.long
@pytest.mark.parametrize("stop_at", ["loading", "fit: computed", "ig on test:  ", "ig: computed", "faithfulness:"])
def test_the_last_words_after_ctrl_c_say_how_to_go_on(tmp_path: Path, repository: Path, stop_at: str) -> None:
    arguments = ("method=ig", "evaluation=faithfulness")
    code, said = on_terminal(tmp_path, repository, 100, *arguments, stop_at=stop_at)
    assert code == 130, said
    words = [line for line in shown(said) if line][-1]
    assert re.match(r"(\^C)?interrupted: .* the same command goes on$", words), said
    code, said = on_terminal(tmp_path, repository, 100, *arguments)
    assert code == 0, said
