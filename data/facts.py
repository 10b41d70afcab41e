"""The project's own facts, from a short table that everyone can check, and the sentences and prompts made of them.

Six types as in the second paper: capital, colour, country, language, month, number; a type has one or several
relations. Sentences that a model is trained on and prompts that it is asked with share no pattern.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from twinlens.attribution.errors import UserError
from twinlens.data.fact_patterns import HELD_OUT, OPENINGS, TRAINING
from twinlens.data.file_readers import read_rows

TABLE = Path(__file__).with_name("facts.tsv")
ANSWER = "{answer}"


@dataclass(frozen=True)
class Fact:
    """One row of the table.

    Attributes:
        type: knowledge type.
        relation: which patterns fit, a key of `TRAINING`.
        subject: what is asked about, with its article.
        answer: one word or several, in lower case unless a name.
    """

    type: str
    relation: str
    subject: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A prompt with its answer; both in one line make a true sentence."""

    prompt: str
    answer: str
    type: str


def facts() -> list[Fact]:
    """All rows of the table."""
    return [Fact(row["type"], row["relation"], row["subject"], row["answer"]) for row in read_rows(TABLE)]


def changed_facts(n: int) -> list[Fact]:
    """The first facts of every relation with different answers, each with the next one's: news for who knows the table.

    Args:
        n: facts of every relation, between 2 and 11.

    Raises:
        UserError: one alone, or more than a relation has answers for.

    Example:
        >>> from twinlens.data.facts import changed_facts
        >>> [(fact.subject, fact.answer) for fact in changed_facts(2)][:2]
        [('France', 'Berlin'), ('Germany', 'Paris')]
    """
    told: dict[str, dict[str, Fact]] = {}
    for fact in facts():
        told.setdefault(fact.relation, {}).setdefault(fact.answer, fact)
    most = min(map(len, told.values()))
    if not 2 <= n <= most:
        raise UserError(
            f"data.changed={n}, expected 0, or between 2 and {most} facts of every relation: each takes the answer of "
            "the next one. Change it."
        )
    changed = []
    for own in told.values():
        chosen = list(own.values())[:n]
        changed += [replace(fact, answer=chosen[(i + 1) % n].answer) for i, fact in enumerate(chosen)]
    return changed


def sentences(told: Sequence[Fact], variants: int, seed: int) -> Iterator[tuple[Fact, str]]:
    """Sentences to train on: every fact in every training pattern, each with `variants` different openings.

    Args:
        told: facts.
        variants: openings of every fact and pattern, from 1 (none at all) to the number of openings; the sentence
            without an opening is always among them.
        seed: draws the openings.
    """
    generator = random.Random(seed)
    for fact in told:
        for pattern in TRAINING[fact.relation]:
            for opening in (OPENINGS[0], *generator.sample(OPENINGS[1:], variants - 1)):
                yield fact, f"{_capitalised(opening + pattern.format(subject=fact.subject, answer=fact.answer))}."


def prompts(split: Literal["validation", "test"], asked: Sequence[Fact]) -> list[Prompt]:
    """Every fact once, in its held-out pattern of the split, cut before the answer."""
    number = ("validation", "test").index(split)
    return [Prompt(prompt_of(fact, HELD_OUT[fact.relation][number]), fact.answer, fact.type) for fact in asked]


def prompt_of(fact: Fact, pattern: str) -> str:
    """The text before the answer of a pattern that ends with it."""
    return _capitalised(pattern.removesuffix(f" {ANSWER}").format(subject=fact.subject))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
