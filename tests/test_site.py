"""Documentation site: every page, key and class has its place, links lead there, it is built without a warning."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from docs.site import api, keys, stage
from docs.site.docstrings import as_restructured

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"


@pytest.fixture(scope="module")
def key_pages() -> dict[str, str]:
    return keys.pages()


def leaves(content: Any, name: str) -> Iterator[str]:
    """Dotted names of all keys of a file that hold a value."""
    for key, value in content.items():
        if key in ("defaults", "_target_"):
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{name}{key}.")
        else:
            yield f"{name}{key}"


def test_every_page_has_its_place_in_the_side_bar() -> None:
    places = [place for place in stage.pages().values() if place != "index.md"]
    bar = "\n".join(stage.navigation([*places, "of_somebody_else.md", "notebooks/first.ipynb", "keys/method.md"]))
    entries = re.findall(r"^(?:.* <)?([\w/]+)>?$", bar, re.M)
    named = [place.rsplit(".", 1)[0] for place in places]
    assert sorted(entry for entry in entries if entry in named) == sorted(named), "each once"
    assert {"of_somebody_else", "notebooks/first"} <= set(entries), "a page that nobody placed is there as well"
    assert "keys/method" not in entries, "the index of the keys has it"


def test_every_link_leads_to_a_place_or_a_file() -> None:
    known = stage.pages()
    for source in known:
        if source.endswith(".md"):
            text, files = stage.with_links((REPOSITORY / source).read_text(encoding="utf-8"), source, known)
            assert [file for file in files if not (REPOSITORY / file).is_file()] == [], source
            there = {*known.values(), *files.values()}
            for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", stage.CODE.sub("", text)):
                place = os.path.normpath(PurePosixPath(known[source]).parent / link)
                assert re.match(r"https?:", link) or place in there, f"{source}: {link}"


def test_links_are_mended_and_code_is_left() -> None:
    known = {"README.md": "overview.md", "docs/records/memory.md": "records/memory.md"}
    text = "[`a`](../../README.md#x) [b](../report.png) [c](../../benchmarks/results/d.md) [e](https://f)\n"
    made, files = stage.with_links(f"{text}```\n[g](../h.md)\n```\n", "docs/records/memory.md", known)
    assert made == (
        "[`a`](../overview.md#x) [b](../report.png) [c](../files/benchmarks/results/d.md.txt) [e](https://f)\n"
        "```\n[g](../h.md)\n```\n"
    )
    assert files == {
        "docs/report.png": "report.png",
        "benchmarks/results/d.md": "files/benchmarks/results/d.md.txt",
    }


def test_every_key_of_every_file_is_on_a_page(key_pages: dict[str, str]) -> None:
    seen = 0
    for group in keys.GROUPS:
        for file in (CONF / group).rglob("*.yaml"):
            text = file.read_text(encoding="utf-8")
            prefix = "" if keys.is_global(text) else f"{keys.packaged(text) or group}."
            names = list(leaves(yaml.safe_load(text) or {}, prefix))
            assert [name for name in names if f"| `{name}` |" not in key_pages[f"{group}.md"]] == [], file
            seen += len(names)
    assert seen > 500
    top = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    assert [name for name in leaves(top, "") if f"| `{name}` |" not in key_pages["index.md"]] == []
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"checking", "__pycache__"} == {*keys.GROUPS}


def test_a_key_has_its_type_its_default_and_its_reason(key_pages: dict[str, str]) -> None:
    method, data = key_pages["method.md"], key_pages["data.md"]
    assert "| `method.ig.n_steps` | `int` | `20` | the paper's m; gauss needs 8 for a smaller error |" in method
    assert r"| `method.atp.readout` | `exact \| linear` | `exact` | linear: as published, one backward" in method
    assert "| `data.shortcut_rate` |  |  | share of rows whose evidence repeats an unsupported claim |" in data
    assert "| `data.limit.train` | `int \\| null` | `null` |" in data or "| `data.limit.train` |  | `null` |" in data
    reason = next(line for line in method.splitlines() if line.startswith("| `method.influence.damping` |"))
    assert "Relative to the mean eigenvalue" in reason, "a comment above its key is its reason"
    assert "Keys of its class that it leaves at their defaults: `cg_tolerance` (see `method=influence`)" in method
    assert "{py:class}`twinlens.attribution.neuron.ig.IntegratedGradients`" in method


def test_every_public_class_of_the_arithmetic_is_in_the_reference() -> None:
    found = "\n".join(api.pages().values())
    for file in (REPOSITORY / "attribution").rglob("*.py"):
        module = "twinlens." + file.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".")
        for name in re.findall(r"^class ([A-Z]\w*)", file.read_text(encoding="utf-8"), re.M):
            assert f".. autoclass:: {module}.{name}\n" in found
    assert ".. autofunction:: twinlens.explaining.explain\n" in found


def test_docstrings_become_restructured_text() -> None:
    lines = ["Of `top_k` rows |x| and *all:", "- one_", "- two", ">>> a_ * b  # `c`", "|d|", "", "Then e_."]
    as_restructured(None, "class", "name", None, None, lines)
    assert lines == [
        r"Of ``top_k`` rows \|x| and \*all:", "", r"- one\_", "- two", ">>> a_ * b  # `c`", "|d|", "", r"Then e\_.",
    ]  # fmt: skip


def test_a_property_keeps_what_stands_before_its_colon() -> None:
    lines = ["(sign, tokens): of each side", "", "More: words."]
    as_restructured(None, "property", "name", None, None, lines)
    assert lines == ["(sign, tokens):", "of each side", "", "More: words."]


@pytest.mark.long
def test_the_site_is_built_without_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sphinx", reason="needs the generator of the site (pip install -e '.[docs]')")
    from docs.site.__main__ import main

    assert main(tmp_path) == 0, capfd.readouterr().err
    html = tmp_path / "html"
    for place in (*stage.pages().values(), "keys/method.md", "api/attribution.neuron.md", "search.html"):
        assert (html / place).with_suffix(".html").is_file(), place
    assert 'href="tutorial.html"' in (html / "index.html").read_text(encoding="utf-8")
    assert "integrated" in (html / "searchindex.js").read_text(encoding="utf-8").lower()
