"""Seeded folders of classifiers as strangers may hand them on: sound ones, and ones with faults of every kind.

What is changed behind `save_pretrained` is drawn from `model_folder_changes`.
"""

from __future__ import annotations

import io
import random
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers.utils import logging

from tests.families import ALL_MODELS, LLAMA_SHAPE, save_classifier_of
from tests.faults.model_folder_changes import BOS, CHANGES, EOS, PAD, ROTATIONS, VOCABULARY, edit_json

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "tiny"
POSITIONS = 64
ROTARY = ("llama", "mistral", "qwen2", "gemma", "gpt_neox")
ELSEWHERE: dict[str, dict[str, Any]] = {
    **{name: {**LLAMA_SHAPE, "num_key_value_heads": 2} for name in ("gemma2", "phi3", "stablelm", "olmo2", "qwen3")},
    **dict.fromkeys(("phi", "bert"), LLAMA_SHAPE),
    "mixtral": {**LLAMA_SHAPE, "num_key_value_heads": 2, "num_local_experts": 2},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
}
"""Types that are not among those served by name."""
TEXTS = (
    "the river is long", "yes", "the bridge over the river was built by the old man", "no end<eos>", "<eos>",
    "<bos> two",
    "ends<eos><eos>", " ".join(["river"] * 70), "Ünïcode 日本 👍", "  spaces  ", "the <pad> in the middle", "yes<pad>",
    "a\nline", "The River", "<mask> extra",
)  # fmt: skip
"""Texts that a model may read: short, longer than its positions, with special tokens written out."""
LABELS = (*(("no", "yes"),) * 4, *(("a", "b", "c"),) * 2, ("LABEL_0", "LABEL_1"), ("0", "1"), ("one",))


@dataclass(frozen=True)
class Made:
    """A folder that lies there.

    Attributes:
        words: what was drawn for it, for messages.
        sound: nothing was changed behind `save_pretrained`.
        texts: of the data.
    """

    words: tuple[str, ...]
    sound: bool
    texts: tuple[str, ...]


def make_folder(folder: Path, seed: int, mark: Path) -> Made:
    """Write the model folder of a seed.

    Args:
        folder: to be made; what its code or pickles leave when they run is `mark`.
        seed: of everything drawn.
    """
    rng = random.Random(f"model folder {seed}")
    known = rng.random() < 0.9
    family = rng.choice(ALL_MODELS if known else list(ELSEWHERE))
    settings: dict[str, Any] = dict(ELSEWHERE.get(family, {}))
    if rng.random() < 0.3:
        settings["tie_word_embeddings"] = rng.random() < 0.5
    if family in ROTARY and rng.random() < 0.3:
        settings["rope_parameters"] = {"rope_theta": 10_000.0, **rng.choice(ROTATIONS)}
    labels = rng.choice(LABELS)
    special = _draw_tokenizer(rng)
    words = [family, *(f"{name}={value}" for name, value in settings.items() if name not in LLAMA_SHAPE), str(labels)]
    with quiet():
        try:
            save_classifier_of(family, folder, labels, **{"vocab_size": VOCABULARY, **settings})
        except Exception as error:  # what transformers itself does not build stands in config.json alone
            known = False
            words.append(f"not built so: {type(error).__name__}")
            save_classifier_of(family, folder, labels, **{"vocab_size": VOCABULARY, **ELSEWHERE.get(family, {})})
            edit_json(folder / "config.json", settings)
    _write_tokenizer(folder, **special)
    words.append(str(special))
    changes = rng.sample(CHANGES, rng.choice((0, 0, 1, 1, 1, 1, 2, 2, 3)))
    for change in changes:
        words.append(change.__name__)
        with suppress(Exception), quiet():  # what an earlier change has removed or broken is left as it is
            change(random.Random(rng.random()), folder)
    for file in folder.rglob("*.py"):
        file.write_text(file.read_text().replace("MARK", repr(str(mark))))
    texts = (*rng.sample(TEXTS, 4), TEXTS[0])
    return Made(tuple(words), not changes and known and len(labels) > 1, texts)


# -- tokenizers --------------------------------------------------------------------------------------------------------


def _draw_tokenizer(rng: random.Random) -> dict[str, Any]:
    return {
        "adds": rng.choice(("$A", "$A", "<bos> $A", "$A <eos>", "<bos> $A <eos>", "<bos> <bos> $A")),
        "pad": rng.choice((PAD, PAD, EOS, None)),
        "side": rng.choice(("right", "right", "left")),
    }


def _write_tokenizer(folder: Path, adds: str, pad: int | None, side: str) -> None:
    """The shipped tokenizer with another post-processor and padding, and the model's id of padding."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    special = [("<bos>", BOS), ("<eos>", EOS)]
    tokenizer.post_processor = TemplateProcessing(single=adds, pair=f"{adds} $B", special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {PAD: "<pad>", EOS: "<eos>", None: None}[pad]
    shutil.copyfile(TOKENIZER / "tokenizer_config.json", folder / "tokenizer_config.json")
    edit_json(folder / "tokenizer_config.json", {"pad_token": named, "padding_side": side})
    with suppress(FileNotFoundError):
        edit_json(folder / "config.json", {"pad_token_id": pad, "eos_token_id": EOS, "bos_token_id": BOS})


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what transformers and PEFT write; their loggers write to the stream that was there first."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.set_verbosity(before)
