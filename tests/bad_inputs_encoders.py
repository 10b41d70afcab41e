"""Encoders, and what is asked of them, that are refused before a fit with what works instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bad_input_files import LOCAL, Entry, Make
from tests.encoders import save_encoder
from tests.running import SMALL_DEMO

ON_DEMO = (*LOCAL, "evaluation=accuracy", *SMALL_DEMO[1:])


def encoder(model_type: str = "bert", frames: bool = True, **more: Any) -> Make:
    """A tiny classifier in the folder `checkpoint`."""

    def make(folder: Path, trained: Path) -> None:
        save_encoder(model_type, folder / "checkpoint", frames, **more)

    return make


ENCODERS: list[Entry] = [
    (
        "an encoder without a classification token",
        (*ON_DEMO, "method=gradsim"),
        ("encoder (bert)", "no classification token", "model.tokenizer_path"),
        encoder(frames=False),
    ),
    (
        "an encoder that reads more than its first token",
        (*ON_DEMO, "method=gradsim"),
        ("modernbert", "does not read its first token", "classifier_pooling=cls"),
        encoder("modernbert", classifier_pooling="mean"),
    ),
    (
        "a residual stream of an encoder",
        (*ON_DEMO, "method=logprob_increase"),
        ("bert model is an encoder", "method=ig"),
        encoder(),
    ),
    (
        "new matrices beside an encoder's",
        (*ON_DEMO, "method=gradsim", "model.adapter=lora"),
        ("encoder (bert)", "merge_and_unload", "model.adapter=lora"),
        encoder(),
    ),
    (
        "another head on an encoder",
        (*ON_DEMO, "method=gradsim", "model.head=mlp"),
        ("model.head=mlp", "brings its own", "model.head=linear"),
        encoder(),
    ),
]
