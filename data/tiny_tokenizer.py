"""Train the tokenizer of the tiny model: `python -m twinlens.data.tiny_tokenizer --output models/tiny`.

Byte-level byte-pair encoding, so that any text can be written down; deterministic, so that training it again gives the
same files byte for byte.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from twinlens.data.common_words import word_corpus
from twinlens.data.demo import TEMPLATES, generate
from twinlens.data.demo_sentences import DEEDS, FIRST_NAMES, LAST_NAMES, PLACES, SOURCES

VOCABULARY_SIZE = 2048
MAXIMUM_LENGTH = 512  # tokens that most data cut a text to; the tiny model has 2048 positions
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
NAME_REPEATS = 30  # names are rare in the corpus, each is meant to be one token


def corpus() -> Iterator[str]:
    """The training text: the demo's sentences and names, common words, a few sentences."""
    rows = generate(1200, 200, 200, 0, 0.0, {"train": 0.1}, seed=0)
    for row in itertools.chain(*rows.values()):
        yield TEMPLATES["reference"].format(claim=row.claim, evidence=row.evidence)
    synonyms = [synonym for synonym, _ in DEEDS.values()]
    for word in [*FIRST_NAMES, *LAST_NAMES, *PLACES, *SOURCES, *synonyms]:
        yield from itertools.repeat(f" {word}", NAME_REPEATS)
    for text in word_corpus():
        yield from itertools.repeat(text, 2)


def train() -> Tokenizer:
    """Train the tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    # digits one by one: numbers never seen before are read like all others
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path, maximum_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `AutoTokenizer.from_pretrained(folder)` reads offline."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": maximum_length,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of the tiny model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tokenizer files")
    write(train(), parser.parse_args(arguments).output, MAXIMUM_LENGTH)


if __name__ == "__main__":
    main()
