"""Ranks of the sentences that state the fact asked for, by a run's instance methods, of `data=fact_sentences`.

    python train.py model=facts data=fact_sentences data.variants=1 fit=false method=[…] evaluation=[]
    python -m benchmarks.same_fact RUN

For every test prompt 1/rank of the first sentence of its fact in the stored list, 0 beyond it; the mean over prompts.
A sentence states a fact where it names subject and answer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import datasets

from twinlens.data.facts import facts, prompts


def same_fact(run: Path) -> dict[str, tuple[float, int]]:
    """Method → mean of 1/rank, and prompts that have a sentence of their fact in the train split."""
    train = datasets.load_from_disk(str(run / "examples" / "train"))["prompt"][:]
    asked = datasets.load_from_disk(str(run / "examples" / "test"))["prompt"][:]
    fact_of = {prompt.prompt: fact for prompt, fact in zip(prompts("test"), facts(), strict=True)}
    stating = [
        {row for row, text in enumerate(train) if all(_names(text, word) for word in (fact.subject, fact.answer))}
        for fact in (fact_of[prompt] for prompt in asked)
    ]
    found = {}
    for folder in sorted((run / "scores").iterdir()):
        place = folder / "test"
        place = place if place.is_dir() else folder / "seed0" / "test"
        lists = datasets.load_from_disk(str(place))
        if "top_index" not in lists.column_names:
            continue
        ranks = [
            next((1 / rank for rank, row in enumerate(best, 1) if row in rows), 0.0)
            for best, rows in zip(lists["top_index"][:], stating, strict=True)
            if rows
        ]
        found[folder.name] = sum(ranks) / len(ranks), len(ranks)
    return found


def _names(text: str, word: str) -> bool:
    return word.lower() in text.lower()


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    for name, (mean, count) in same_fact(parser.parse_args().run).items():
        print(f"{name}: {mean:.3f} over {count} prompts")


if __name__ == "__main__":
    main()
