"""Train the tokenizer of the facts model: `python -m twinlens.data.fact_tokenizer --output DIR`.

Byte-level byte-pair encoding, so that any prompt can be written down; a space is put before the first word, so that a
word is the same token wherever it stands. Every word of the facts and their patterns is one token. Deterministic.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from twinlens.data.fact_patterns import OPENINGS
from twinlens.data.facts import facts, prompts, sentences
from twinlens.data.tiny_tokenizer import BOS, EOS, PAD, write

VOCABULARY_LIMIT = 4096  # above what the words need: merging ends when each of them is one token
MAXIMUM_LENGTH = 256  # positions of the facts model


def words() -> list[str]:
    """Every word of all sentences and prompts once, sorted."""
    texts = [text for _, text in sentences(facts(), variants=len(OPENINGS), seed=0)]
    texts += [f"{row.prompt} {row.answer}" for row in (*prompts("validation", facts()), *prompts("test", facts()))]
    return sorted({word for text in texts for word in re.findall(r"\w+", text)})


def train() -> Tokenizer:
    """Train the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_LIMIT,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(words(), trainer)
    return tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of the facts model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer files")
    write(train(), parser.parse_args(arguments).output, MAXIMUM_LENGTH)


if __name__ == "__main__":
    main()
