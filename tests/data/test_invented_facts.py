"""Invented facts: names, places and answers of their own, and queries that lead to the documents that tell them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twinlens.attribution.errors import UserError
from twinlens.data.invented_facts import NAMES, beginning, invented_facts, main, planted


def read(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_fact_stands_in_its_documents_at_varying_places_and_nowhere_else(tmp_path: Path) -> None:
    stories = [{"text": f'Tom had {n} cats. They ran! He said, "Stop." They ate? All was well.'} for n in range(40)]
    (tmp_path / "stories.json").write_text(json.dumps(stories))
    asked = ["--stories", str(tmp_path / "stories.json"), "--output", str(tmp_path / "out"), "--facts", "5"]
    main([*asked, "--copies", "3", "--documents", "30"])
    documents, queries = read(tmp_path / "out" / "docs.jsonl"), read(tmp_path / "out" / "queries.jsonl")
    assert (len(documents), len(queries)) == (30, 10)
    for fact in invented_facts(5):
        own = [row["text"] for row in documents if row["fact"] == str(fact.number)]
        assert [NAMES[fact.number] in row["text"] for row in documents].count(True) == len(own) == 3
        assert len({text.index(fact.sentence) for text in own}) == 3
        assert any(text.startswith(fact.sentence) for text in own)
        assert any(text.endswith(fact.sentence) for text in own)
        verbatim, reworded = (
            next(q for q in queries if q["fact"] == str(fact.number) and q["type"] == kind)
            for kind in ("verbatim", "reworded")
        )
        assert fact.sentence == verbatim["prompt"] + verbatim["completion"] + "."
        assert reworded["completion"] == verbatim["completion"]
        assert not any(reworded["prompt"] in row["text"] for row in documents)
    assert [row["fact"] for row in documents].count("") == 15


def test_facts_are_told_apart() -> None:
    facts = invented_facts(len(NAMES))
    assert len({fact.answer for fact in facts}) == len({fact.told for fact in facts}) == len(NAMES) == 30
    assert len(set(NAMES)) == 30


def test_beginnings() -> None:
    assert beginning("Tom ran. He fell.", 5) == beginning("Tom ran. He fell.", 0) == "Tom ran. He fell."


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--facts=31"):
        invented_facts(31)
    with pytest.raises(UserError, match="need 4 documents, and there are 3"):
        planted(["A.", "B.", "C."], invented_facts(2), 2, 0)
    (tmp_path / "few.json").write_text('["One."]')
    with pytest.raises(UserError, match="has 1 rows with a text"):
        main(["--stories", str(tmp_path / "few.json"), "--output", str(tmp_path)])
