"""Tables to look things up in: options, keys with the defaults of conf/, exit codes, machines are those of the code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from twinlens.callbacks.attribute.dispatch import READS
from twinlens.callbacks.evaluate.stage import BY_NEED
from twinlens.callbacks.run.run_outcome import EXIT_CODES

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"
PAGE = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
NAME = re.compile(r"`([\w/…]+)`")
NOT_A_KEY = ("_target_", "score")
"""The class, and what gives a method of the second paper its name."""


def table(heading: str) -> Iterator[list[str]]:
    """Cells of a section's first table, row by row; an empty first cell is that of the row before, and `the same`
    what the row before names."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    first = ""
    for line in section[section.index("\n|") + 1 :].split("\n\n")[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        first = cells[0].replace("the same", first) or first
        yield [first, *cells[1:]]


def parts(cell: str, sign: str) -> list[str]:
    """A cell divided at a sign that stands in no bracket."""
    found, depth = [""], 0
    for letter in cell:
        depth += (letter in "([") - (letter in ")]")
        found = [*found, ""] if letter == sign and not depth else [*found[:-1], found[-1] + letter]
    return [part.strip() for part in found]


def plain(value: object) -> str:
    """A value as it is compared: 1e4 and 10000.0 are one number, null and None one word."""
    text = str(value).strip("` ")
    try:
        return str(float(text))
    except ValueError:
        return str(yaml.safe_load(text))


def default(stated: str, name: str) -> str:
    """The default of one method in `20 (`ig_gauss`: 8)`, before any remark behind a colon."""
    exceptions = re.search(r"\((.*)\)", stated)
    for names, value in re.findall(r"((?:`\w+`,? ?)+): ([^,]+)", exceptions[1] if exceptions else ""):
        if name in NAME.findall(names):
            return plain(value)
    return plain(stated.split(" (")[0].split(": ")[0])


def stated(row: list[str], names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Method, key and default, for all that a row names; semicolons go with the row's names, commas with its keys."""
    by_name = parts(row[2], ";")
    for name in names:
        place = names.index(name) if len(by_name) > 1 else 0
        keys = parts(row[1], ";")
        values = parts(by_name[place], ",")
        own = NAME.findall(keys[place if len(keys) > 1 else 0])
        for number, key in enumerate(own):
            yield name, key, default(values[number if len(values) > 1 else 0], name)


@pytest.mark.parametrize(
    ("group", "heading"), [("method", "Keys of the methods"), ("evaluation", "Keys of the evaluations")]
)
def test_every_key_stands_with_its_default(group: str, heading: str) -> None:
    conf: dict[str, dict[str, Any]] = {
        file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in (CONF / group).glob("*.yaml")
    }
    said: dict[tuple[str, str], str] = {}
    for row in table(heading):
        named = ["*"] if row[0] == "every method" else [name.replace("…", "*") for name in NAME.findall(row[0])]
        names = [name for pattern in named for name in sorted(conf) if fnmatch(name, pattern)]
        assert all(any(fnmatch(name, pattern) for name in conf) for pattern in named), row
        said |= {(name, key): value for name, key, value in stated(row, names)}
    true = {(name, key): plain(value) for name, keys in conf.items() for key, value in keys.items()}
    assert sorted(place for place in true if place not in said and place[1] not in NOT_A_KEY) == [], "missing"
    wrong = {place: (said[place], value) for place, value in true.items() if said.get(place, value) != value}
    assert wrong == {}, "stated, true"
    keys = {key for _, key in true}
    assert [place for place in said if place[1] not in keys] == [], "keys that no file has"


@pytest.mark.parametrize("row", list(table("Groups")), ids=lambda row: row[0].strip("`"))
def test_every_option_stands_in_the_table_of_groups(row: list[str]) -> None:
    group = row[0].strip("`")
    options = {str(file.relative_to(CONF / group).with_suffix("")) for file in (CONF / group).rglob("*.yaml")}
    assert options
    assert set(NAME.findall(row[1])) == options


def test_every_key_of_a_run_stands_in_the_table() -> None:
    keys = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    names = [
        f"{key}.{inner}" if inner else key
        for key, value in keys.items()
        if key != "defaults"
        for inner in (value if isinstance(value, dict) else [""])
    ]
    section = PAGE.split("| key at the top level |")[1].split("\n\n")[0]
    assert [name for name in names if f"`{name}`" not in section] == []


def test_every_exit_code_stands_in_the_table() -> None:
    rows = PAGE.split("| code | meaning |")[1].split("\n\n")[0]
    assert sorted(map(int, re.findall(r"^\| (\d+) \|", rows, re.M))) == sorted(EXIT_CODES.values())


@pytest.mark.parametrize(("head", "words"), [("reads", READS), ("requires", BY_NEED)], ids=["reads", "requires"])
def test_what_an_extension_may_be_given_stands_in_the_table(head: str, words: Collection[str]) -> None:
    page = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    rows = page.split(f"| `{head}` |")[1].split("\n\n")[0]
    named = NAME.findall(" ".join(line.split("|")[1] for line in rows.splitlines()[2:]))
    assert sorted({*named, *(["built"] if head == "reads" else [])}) == sorted(words)


def test_every_machine_of_a_plan_is_named() -> None:
    machines = (REPOSITORY / "callbacks" / "plan" / "machines.csv").read_text(encoding="utf-8").splitlines()[1:]
    page = (REPOSITORY / "docs" / "memory.md").read_text(encoding="utf-8")
    assert [name for line in machines if (name := line.split(",")[0]) not in page] == []
