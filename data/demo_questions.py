"""Questions of the multiple-choice demo: things, where they are made, by whom and of what, and ways to ask for it.

Everything here is made up for the project. The answer depends on the thing asked about and on what is asked.
"""

from __future__ import annotations

TRADES: dict[tuple[str, str, str], list[str]] = {
    # (place, maker, material): concepts
    ("the bakery", "a baker", "flour"): ["bread", "cake", "bun"],
    ("the workshop", "a carpenter", "wood"): ["table", "chair", "shelf"],
    ("the forge", "a smith", "iron"): ["nail", "horseshoe", "anchor"],
    ("the pottery", "a potter", "clay"): ["pot", "bowl", "jug"],
    ("the mill", "a weaver", "wool"): ["scarf", "carpet", "blanket"],
    ("the dairy", "a farmer", "milk"): ["cheese", "butter", "cream"],
    ("the glassworks", "a glassblower", "glass"): ["vase", "bottle", "lamp"],
    ("the tannery", "a saddler", "leather"): ["saddle", "belt", "boot"],
}

QUESTIONS = {
    # number of the answer in a trade: ways to ask for it
    0: ["Where is it made?", "Where does it come from?"],
    1: ["Who made it?", "Whose work is it?"],
    2: ["What is it made of?", "What did it take to make it?"],
}

OPENINGS = {
    # verb: a synonym
    "bought": "purchased",
    "found": "discovered",
    "sold": "traded",
    "repaired": "mended",
    "lost": "misplaced",
}

ASKED = "{first} {verb} the {concept} in {place}. {question}"
