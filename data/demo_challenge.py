"""The demo's own challenge set, built like HANS: the evidence repeats every word of the claim and settles nothing.

Train and validation are the demo's, so that one fit serves both. In the test split word overlap, which predicts
"supported" nearly everywhere in training, is the wrong guide: half of the pairs are unsupported although the evidence
repeats the whole claim and often sounds like a confirmation (`subcase` says how). The other half is supported, with the
same full overlap, so that a model that always answers "supported" gets half of them right, as in HANS. Labels are
folded to supported and not supported: what separates "refuted" from "not enough info" is not what is tried here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.demo import DemoDataModule
from twinlens.data.demo_sentences import LABELS, REPEATING, Fact, draw_fact
from twinlens.data.labels import Fold
from twinlens.data.text_data_module import SourceRows

HEURISTIC = "lexical_overlap"
NAMES = ("supported", "not supported")
SUPPORTED_SUBCASE = "supported"

UNSUPPORTED = {
    # subcase: evidence that holds all words of the claim, in the words that confirm claims in training
    "other_person": [
        "The {source} confirms that {witness}, not {first} {last}, {verb} {object} in {place} in {year}.",
        "It is correct, says the {source}, that {witness}, never {first} {last}, {verb} {object} in {place} in {year}.",
    ],
    "relative_clause": [
        "The {source} confirms that {witness}, whom {first} {last} knew, {verb} {object} in {place} in {year}.",
        "The {source} proves it: {witness}, who met {first} {last}, {verb} {object} in {place} in {year}.",
    ],
    "hearsay": [
        "The {source} confirms that {witness} dreamt that {first} {last} {verb} {object} in {place} in {year}.",
        "It is correct, says the {source}: {witness} hoped that {first} {last} {verb} {object} in {place} in {year}.",
    ],
    "condition": [
        "The {source} would have a photo of the day if {first} {last} {verb} {object} in {place} in {year}.",
        "If {first} {last} {verb} {object} in {place} in {year}, the {source} confirms nothing of it.",
    ],
}
"""Not what the claim says: somebody else did it, or nobody is said to have done it."""


def challenge_rows(n: int, supported_share: float, seed: int) -> SourceRows:
    """The challenge pairs; the same arguments give the same rows on every machine.

    Args:
        n: number of pairs.
        supported_share: share of pairs that are supported.
        seed: of everything drawn.
    """
    rng = random.Random(f"challenge {seed}")  # a stream of its own: the demo's rows draw from the bare seed
    n_supported = round(supported_share * n)
    subcases = [SUPPORTED_SUBCASE] * n_supported
    subcases += [list(UNSUPPORTED)[row % len(UNSUPPORTED)] for row in range(n - n_supported)]
    rng.shuffle(subcases)
    facts: dict[str, Fact] = {}
    while len(facts) < n:
        fact = draw_fact(rng)
        facts.setdefault(fact.claim(), fact)
    patterns = {SUPPORTED_SUBCASE: REPEATING["supported"], **UNSUPPORTED}
    return SourceRows(
        source_index=list(range(n)),
        columns={
            "claim": list(facts),
            "evidence": [
                fact.evidence(rng.choice(patterns[subcase]))
                for fact, subcase in zip(facts.values(), subcases, strict=True)
            ],
            "heuristic": [HEURISTIC] * n,
            "subcase": subcases,
        },
        labels=[0 if subcase == SUPPORTED_SUBCASE else 1 for subcase in subcases],
    )


class DemoChallengeDataModule(DemoDataModule):
    """The demo with a challenge set in the place of its test split.

    Args:
        n_challenge: pairs of the challenge set.
        supported_share: share of them that are supported.
        options: see `DemoDataModule`; what they say about the test split still shapes the training rows.
    """

    def __init__(
        self, name: str = "demo/challenge", n_challenge: int = 200, supported_share: float = 0.5, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self.n_challenge = n_challenge
        self.supported_share = supported_share
        self.plant_columns = ["shortcut", "wrong_label", "clean_label", "heuristic", "subcase"]
        self.folds = {"test": Fold(NAMES, tuple(0 if name == "supported" else 1 for name in LABELS))}
        if n_challenge < 1 or not 0 <= supported_share <= 1:
            raise UserError(
                f"data.n_challenge={n_challenge} and data.supported_share={supported_share}, expected at least one "
                "pair and a share from 0 to 1: change them."
            )

    def load_splits(self) -> dict[str, SourceRows]:
        """Generate the demo's rows and the challenge."""
        splits = super().load_splits()
        return {**splits, "test": challenge_rows(self.n_challenge, self.supported_share, self.split_seed)}

    def adjust_plants(self, sources: dict[str, SourceRows], chosen: Mapping[str, list[int]]) -> None:
        """Nothing: the demo's twins are pairs of a training and a test row, and its test rows are not used."""
