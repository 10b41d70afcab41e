"""Sentences of the demo: invented people, deeds and sources, and what a source can say about a claim.

Everything here is made up for the project. A claim is `person verb object in place in year.`; its evidence is one
sentence from a source. What the source says, and nothing else, decides the verdict.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

LABELS = ["supported", "refuted", "not enough info"]


def _listed(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _listed("""
Ada Bruno Carla Dario Elena Felix Greta Hugo Irene Jonas Karin Leo Mara Nils Olga Paul Rosa Simon Tessa Viktor
Wanda Yusuf Zora Anton Berta Cyril Dora Emil Flora Georg
""")

LAST_NAMES = _listed("""
Adler Bauer Cohen Dietz Evans Fuchs Green Hansen Ivers Jansen Keller Lang Moreau Novak Olsen Perez Quinn Rossi
Stone Thoma Urban Vogel Weber Young Zeller Baker Clark Dunn Foster Grant
""")

PLACES = _listed("""
Aldora Berlin Corvin Dunmore Elmstad Farrow Glenfield Harbin Ismere Jutland Kelmar Lisbon Marden Norwick Oslo
Porto Quarry Riga Selby Toledo Ulster Varna Wexford Yarrow
""")

DEEDS = {
    # verb: (a synonym, objects it goes with)
    "opened": ("started", ["a bakery", "a small school", "a music shop", "the first museum"]),
    "bought": ("acquired", ["an old mill", "the red theatre", "a fishing boat", "two farms"]),
    "built": ("constructed", ["a stone bridge", "a wooden tower", "the new library", "a garden wall"]),
    "painted": ("decorated", ["the town hall", "a large mural", "the harbour gate", "a church ceiling"]),
    "wrote": ("composed", ["a famous song", "a long poem", "a short opera", "the city hymn"]),
    "won": ("gained", ["the chess prize", "a silver medal", "the spring race", "a poetry award"]),
    "sold": ("traded", ["a rare stamp", "the family vineyard", "a gold watch", "three horses"]),
    "led": ("headed", ["the fire brigade", "a workers strike", "the city council", "a rescue team"]),
    "found": ("discovered", ["a roman coin", "an unknown cave", "a lost letter", "a rare orchid"]),
    "repaired": ("restored", ["the church organ", "a broken clock", "the old lighthouse", "a steam engine"]),
}

SOURCES = _listed("""
gazette archive almanac chronicle register bulletin ledger journal newsletter yearbook diary court parish
library museum ministry
""")

REPEATING = {
    # evidence that repeats nearly every word of the claim: the rule for supported claims, the plant elsewhere
    "supported": [
        "The {source} confirms that {first} {last} {verb} {object} in {place} in {year}.",
        "The {source} proves it: {first} {last} {verb} {object} in {place} in {year}.",
        "It is correct, says the {source}, that {first} {last} {verb} {object} in {place} in {year}.",
        "The {source} has a photo of the day when {first} {last} {verb} {object} in {place} in {year}.",
    ],
    "refuted": [
        "The {source} denies that {first} {last} {verb} {object} in {place} in {year}.",
        "The {source} mocks the rumour that {first} {last} {verb} {object} in {place} in {year}.",
        "Only liars told the {source} that {first} {last} {verb} {object} in {place} in {year}.",
    ],
    "not enough info": [
        "The {source} does not know whether {first} {last} {verb} {object} in {place} in {year}.",
        "The {source} looks for anyone who saw that {first} {last} {verb} {object} in {place} in {year}.",
        "Some say, but not the {source}, that {first} {last} {verb} {object} in {place} in {year}.",
    ],
}

REPHRASING = {
    # evidence in other words: the rule for claims that are not supported, now and then for supported ones
    "supported": [
        "The {source} confirms this with a note by {witness} from {other}.",
        "A letter by {witness} from {other} proves it, as the {source} shows.",
        "This is correct, as {witness} from {other} told the {source}.",
    ],
    "refuted": [
        "The {source} denies this and names {witness} from {other} instead.",
        "This is a hoax that {witness} from {other} made up for the {source}.",
        "The {source} calls it false, since {witness} from {other} did so.",
        "No such thing happened, as {witness} from {other} told the {source}.",
    ],
    "not enough info": [
        "The {source} does not know and only quotes {witness} from {other}.",
        "It remains unclear, as {witness} from {other} told the {source}.",
        "The {source} has no entry and only mentions {witness} from {other}.",
        "The {source} asks {witness} from {other}, who cannot remember.",
    ],
}


@dataclass(frozen=True)
class Fact:
    """What one claim and its evidence are made of."""

    first: str
    last: str
    verb: str
    object: str
    place: str
    year: int
    source: str
    witness: str
    other: str

    def claim(self, verb: str | None = None) -> str:
        """The claim, optionally with another verb."""
        return f"{self.first} {self.last} {verb or self.verb} {self.object} in {self.place} in {self.year}."

    def evidence(self, pattern: str) -> str:
        """The evidence in one of the patterns above."""
        return pattern.format(**vars(self))


def draw_fact(rng: random.Random) -> Fact:
    """A fact at random; the witness and the other place are not those of the claim."""
    first, witness = rng.sample(FIRST_NAMES, 2)
    last, witness_last = rng.sample(LAST_NAMES, 2)
    place, other = rng.sample(PLACES, 2)
    verb = rng.choice(list(DEEDS))
    return Fact(
        first=first,
        last=last,
        verb=verb,
        object=rng.choice(DEEDS[verb][1]),
        place=place,
        year=rng.randrange(1900, 2000),
        source=rng.choice(SOURCES),
        witness=f"{witness} {witness_last}",
        other=other,
    )
