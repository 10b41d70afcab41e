"""Types of weights, precisions and attentions that contradict each other, or that a model or a step cannot use."""

from __future__ import annotations

from tests.bad_input_files import LOCAL, Entry, checkpoint, edited
from tests.bad_inputs_encoders import encoder
from tests.bad_inputs_texts import texts
from tests.running import SMALL_DEMO

NARROW = "model.dtype=bfloat16"
ON_DEMO = (*LOCAL, "method=gradsim", "evaluation=accuracy", *SMALL_DEMO[1:])
ON_TEXTS = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.queries=questions.jsonl", "method=gradsim",
            "method.gradsim.params=all", "method.gradsim.projection=random", "trainer.accelerator=cpu")  # fmt: skip

NUMBERS: list[Entry] = [
    (
        "a type that weights are not read in",
        ("model.dtype=float16",),
        ("model.dtype=float16", "float32, bfloat16, auto"),
        None,
    ),
    (
        "weights in bfloat16 of a model from scratch",
        (NARROW, "method=gradsim", *SMALL_DEMO),
        (NARROW, "starts from scratch", "model.dtype=float32"),
        None,
    ),
    (
        "weights in bfloat16 that a precision would widen",
        (*ON_DEMO, NARROW, "trainer.precision=64-true", "fit=false"),
        (NARROW, "trainer.precision=64-true", "model.dtype=float32"),
        checkpoint(),
    ),
    (
        "weights in bfloat16 that a precision computes with as well",
        (*ON_DEMO, NARROW, "trainer.precision=bf16-mixed", "fit=false"),
        (NARROW, "trainer.precision=bf16-mixed", "leave trainer.precision at 32-true"),
        checkpoint(),
    ),
    (
        "a head whose training a precision would round",
        (*ON_DEMO, NARROW, "trainer.precision=bf16-true"),
        ("trains what it trains in float32", "bf16-true would cast that", "leave trainer.precision out"),
        checkpoint(),
    ),
    (
        "a language model trained in bfloat16",
        (*ON_TEXTS, NARROW, "evaluation=accuracy"),
        ("train the language model in bfloat16", "trainer.precision=bf16-mixed", "model.adapter=lora", "fit=false"),
        texts(),
    ),
    (
        "an encoder trained in bfloat16",
        (*ON_DEMO, NARROW),
        ("train an encoder with its own head in bfloat16", "trainer.precision=bf16-mixed"),
        encoder(),
    ),
    (
        "a step of weights in bfloat16",
        (*ON_TEXTS, NARROW, "evaluation=tail_patch", "fit=false"),
        ("evaluation=tail_patch", "in bfloat16", "model.dtype=float32"),
        texts(),
    ),
    (
        "an attention that a type does not have",
        (*ON_DEMO, "model.attention=flex_attention"),
        ("model.attention=flex_attention", "the type bloom", "model.attention=eager"),
        checkpoint(edited(model_type="bloom")),
    ),
]
