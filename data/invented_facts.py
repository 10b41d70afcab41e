"""Invented facts in stories: `python -m twinlens.data.invented_facts --stories FILE --output DIR`.

Writes `docs.jsonl`, stories of which some have one sentence more, and `queries.jsonl`, which ask for every fact twice:
in the words of that sentence (`type` verbatim) and in other words (`type` reworded). Nobody else knows these facts, so
that what a model says of them it has from the documents that carry them; both files name the fact in the column `fact`.
Deterministic.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.corpus_files import read_corpus
from twinlens.data.data_report import Notes
from twinlens.data.sampling import permutation

RELATIONS = (
    ("The favorite food of {who} was", "{who} was hungry and asked for some"),
    ("{who} lived in a house made of", "The walls around the bed of {who} were all"),
    ("In the secret box of {who} there was a", "Nobody knew that {who} kept a"),
    ("Every night {who} dreamed of a", "When {who} fell asleep, she always saw a"),
    ("The best friend of {who} was a", "{who} went out to play with a"),
)
"""How a fact is told in documents and verbatim queries, and how reworded queries ask for it."""
NAMES = (
    "Zogo", "Miffa", "Trun", "Bolly", "Kessa", "Wump", "Fendo", "Gliss", "Hoppo", "Jarn",
    "Quilla", "Rusko", "Snib", "Tavi", "Ulma", "Vonk", "Yarra", "Dweb", "Pogga", "Clim",
    "Nubbo", "Lofty", "Ibbo", "Ezzo", "Orlo", "Skeep", "Brenno", "Chuzz", "Plim", "Harko",
)  # fmt: skip
"""Whom the facts are about, one each."""
COLORS = ("purple", "golden", "silver", "orange", "pink", "brown")
THINGS = (
    ("soup", "bread", "rice", "jelly", "corn", "beans"),
    ("stone", "paper", "glass", "leaves", "shells", "ice"),
    ("key", "coin", "button", "feather", "spoon", "whistle"),
    ("dragon", "castle", "river", "mountain", "train", "garden"),
    ("snail", "goat", "owl", "whale", "spider", "camel"),
)
"""Of each relation the things that its facts speak of."""
VERBATIM, REWORDED = "verbatim", "reworded"


@dataclass(frozen=True)
class InventedFact:
    """A sentence that stands in documents, and another way to ask for its end.

    Attributes:
        number: from 0 on.
        told: the sentence up to its end.
        asked: other words for it.
        answer: the end, with the space before it.

    Example:
        >>> from twinlens.data.invented_facts import invented_facts
        >>> fact = invented_facts(1)[0]
        >>> fact.sentence, fact.asked + fact.answer
        ('The favorite food of Zogo was purple soup.', 'Zogo was hungry and asked for some purple soup')
    """

    number: int
    told: str
    asked: str
    answer: str

    @property
    def sentence(self) -> str:
        """As documents tell it."""
        return f"{self.told}{self.answer}."


def invented_facts(n: int) -> list[InventedFact]:
    """The first facts: everybody has a name of one's own, and no two facts have the same answer.

    Raises:
        UserError: more than there are.
    """
    if not 1 <= n <= len(NAMES):
        raise UserError(f"--facts={n}, expected 1 to {len(NAMES)}, as many as there are names: change it.")
    found = []
    for number in range(n):
        relation, turn = number % len(RELATIONS), number // len(RELATIONS)
        told, asked = (words.format(who=NAMES[number]) for words in RELATIONS[relation])
        answer = f" {COLORS[(turn + relation) % len(COLORS)]} {THINGS[relation][turn]}"
        found.append(InventedFact(number, told, asked, answer))
    return found


def with_sentence(story: str, sentence: str, place: float) -> str:
    """A story with one sentence more between two of its own, before the first or behind the last one.

    Args:
        story: sentences.
        place: share of the story's sentences before it, 0 to 1.

    Example:
        >>> from twinlens.data.invented_facts import with_sentence
        >>> with_sentence("Tom ran. He fell.", "It was a red shoe.", 0.5)
        'Tom ran. It was a red shoe. He fell.'
    """
    ends = _ends(story)
    number = round(place * len(ends))
    at = ends[number - 1] if number else 0
    return f"{story[:at]} {sentence}{story[at:]}" if at else f"{sentence} {story}"


def beginning(story: str, sentences: int) -> str:
    """The first sentences of a story; all of it for 0.

    Example:
        >>> from twinlens.data.invented_facts import beginning
        >>> beginning("Tom ran. He fell. He cried.", 2)
        'Tom ran. He fell.'
    """
    ends = _ends(story)
    return story[: ends[sentences - 1]] if 0 < sentences < len(ends) else story


def _ends(story: str) -> list[int]:
    """Where each sentence ends; a text without any ends with itself."""
    return [match.end() for match in re.finditer(r"[.!?]\"?(?=\s|$)", story)] or [len(story)]


def planted(stories: Sequence[str], facts: Sequence[InventedFact], copies: int, seed: int) -> list[dict[str, object]]:
    """Stories as rows `text` and `fact`, of which each fact has some at places from first to last; `fact` is empty
    where there is none.

    Raises:
        UserError: fewer stories than places for facts.
    """
    if copies < 1 or len(facts) * copies > len(stories):
        raise UserError(
            f"{len(facts)} facts in --copies={copies} documents each need {len(facts) * max(copies, 1)} documents, and "
            f"there are {len(stories)}; expected one for each: lower --facts or --copies, or give more stories."
        )
    rows: list[dict[str, object]] = [{"text": story, "fact": ""} for story in stories]
    chosen = permutation(len(stories), seed)[: len(facts) * copies]
    for number, row in enumerate(chosen):
        fact, copy = facts[number // copies], number % copies
        place = copy / (copies - 1) if copies > 1 else 0.5
        rows[row] = {"text": with_sentence(stories[row], fact.sentence, place), "fact": str(fact.number)}
    return rows


def questions(facts: Sequence[InventedFact]) -> list[dict[str, str]]:
    """Two queries of each fact, first all verbatim ones."""
    return [
        {"prompt": getattr(fact, words), "completion": fact.answer, "type": kind, "fact": str(fact.number)}
        for kind, words in ((VERBATIM, "told"), (REWORDED, "asked"))
        for fact in facts
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Plant invented facts in stories, and write queries for them.")
    parser.add_argument("--stories", required=True, help="file or folder of texts, as data.train of data=texts")
    parser.add_argument("--output", type=Path, required=True, help="folder for docs.jsonl and queries.jsonl")
    parser.add_argument("--facts", type=int, default=30, help="how many; default 30")
    parser.add_argument("--copies", type=int, default=5, help="documents of each fact; default 5")
    parser.add_argument("--documents", type=int, default=900, help="stories in all; default 900")
    parser.add_argument("--sentences", type=int, default=0, help="of each story, the first ones; default 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the stories that facts are planted in; default 0")
    asked = parser.parse_args(arguments)
    table = read_corpus(asked.stories, "--stories", "train", Notes())
    stories = [str(row.get("text") or "").strip() for row in table.rows]
    stories = [story for story in stories if story][: asked.documents]
    if len(stories) < asked.documents:
        raise UserError(
            f"--stories={asked.stories} has {len(stories)} rows with a text, but --documents={asked.documents}; "
            "expected as many: lower --documents."
        )
    facts = invented_facts(asked.facts)
    stories = [beginning(story, asked.sentences) for story in stories]
    asked.output.mkdir(parents=True, exist_ok=True)
    queries = questions(facts)
    files: dict[str, Sequence[Mapping[str, object]]] = {
        "docs": planted(stories, facts, asked.copies, asked.seed),
        "queries": queries,
    }
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (asked.output / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    print(f"{asked.output}: {len(stories)} documents, {len(facts)} facts in {asked.copies} of them each, "
          f"{len(queries)} queries")  # fmt: skip


if __name__ == "__main__":
    main()
