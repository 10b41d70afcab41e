"""Prompts, scores and models that are refused where a language model is asked for knowledge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.bad_input_files import LOCAL, Entry, Make, lines

MONTHS = ["The month that comes after May is", "The month that comes after June is"]
ASKED = ("experiment=neuron_level/table2", "trainer.accelerator=cpu")
FILE = (*ASKED, "data.path=prompts.jsonl")
FEW = ("data.types=[month]", "data.limit.test=4", "data.only_known=false")
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "facts"
SILENT = """from transformers import LlamaForCausalLM


class Silent(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.register_forward_hook(lambda module, args, output: (output[0], None))
"""
"""A language model whose attention keeps its weights to itself."""


def asked(prompt: object, answer: object, kind: str = "month") -> str:
    return json.dumps({"prompt": prompt, "answer": answer, "type": kind})


def prompts(*rows: str) -> Make:
    return lines(*rows, name="prompts.jsonl")


def language_model(model_type: str, **settings: Any) -> Make:
    """A random language model of a family in `checkpoint`, with the tokenizer of the facts."""

    def make(folder: Path, trained: Path) -> None:
        # imported late: conftest.py sets the environment that the libraries read when they are imported
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from twinlens.models.backbone import load_tokenizer

        tokenizer = load_tokenizer(str(SHIPPED))
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **settings)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / "checkpoint")
        tokenizer.model_max_length = int(1e30)
        tokenizer.save_pretrained(folder / "checkpoint")

    return make


def silent_model(folder: Path, trained: Path) -> None:
    """The shipped model with code of its own in `silent`."""
    copy = shutil.copytree(SHIPPED, folder / "silent")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "silent_attention.Silent"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "silent_attention.py").write_text(SILENT)


SHORT = language_model("gpt2", n_embd=16, n_layer=1, n_head=2, n_positions=4)

PROMPTS: list[Entry] = [
    (
        "a fact that has no other to take its answer",
        ("model=facts", "data=fact_sentences", "data.changed=1", "trainer.accelerator=cpu"),
        ("data.changed=1", "between 2 and 11"),
        None,
    ),
    (
        "an edit that leaves a neuron as it is",
        ("experiment=neuron_level/prompt", "trainer.accelerator=cpu", "evaluation.prompt.edits=[0,1]"),
        ("evaluation.prompt.edits=[0, 1]", "leaves a neuron as it is"),
    ),
    (
        "an edit that is no number",
        ("experiment=neuron_level/prompt", "trainer.accelerator=cpu", "evaluation.prompt.edits=[off]"),
        ("evaluation.prompt.edits[0]=", "expected a float"),
    ),
    (
        "an answer that is no token sequence",
        FILE,
        ("row 1", "answer ' '", "no token"),
        prompts(asked(MONTHS[0], "June"), asked(MONTHS[1], " ")),
    ),
    (
        "a token of an answer that does not exist",
        FILE,
        ("row 1", "answer_id=-5"),
        prompts(asked(MONTHS[0], "June"), json.dumps({"prompt": MONTHS[1], "type": "month", "answer_id": -5})),
    ),
    (
        "an empty list of accepted answers",
        FILE,
        ("prompts.jsonl row 1", "answers=[]", "at least one text"),
        prompts(asked(MONTHS[0], "June"), json.dumps({"prompt": MONTHS[1], "type": "month", "answers": []})),
    ),
    (
        "accepted answers that are no texts",
        FILE,
        ("prompts.jsonl row 1", "answers=[7]", "at least one text"),
        prompts(asked(MONTHS[0], "June"), json.dumps({"prompt": MONTHS[1], "type": "month", "answers": [7]})),
    ),
    (
        "a list of accepted answers beside a token",
        FILE,
        ("prompts.jsonl row 1", "answers beside answer_id=5", "one form"),
        prompts(
            asked(MONTHS[0], "June"),
            json.dumps({"prompt": MONTHS[1], "type": "month", "answers": ["July"], "answer_id": 5}),
        ),
    ),
    ("an answer that is no text", FILE, ("row 1", "answer"), prompts(asked(MONTHS[0], "June"), asked(MONTHS[1], 7))),
    ("a prompt without text", FILE, ("row 0", "the prompt"), prompts(asked(" ", "June"), asked(MONTHS[1], "July"))),
    (
        "a type with a single prompt",
        FILE,
        ("'capital'", "single prompt", "data.types"),
        prompts(asked(MONTHS[0], "June"), asked(MONTHS[1], "July"), asked("Paris is in", "France", "capital")),
    ),
    (
        "a prompt longer than data.max_length",
        (*FILE, "data.max_length=5"),
        ("row 0", "data.max_length is 5"),
        prompts(asked(MONTHS[0], "June"), asked(MONTHS[1], "July")),
    ),
    (
        "a prompt longer than the model",
        (*FILE, "data.max_length=1000"),
        ("row 1", "the model's length is 256"),
        prompts(asked(MONTHS[0], "June"), asked("one more month " * 200 + MONTHS[1], "July")),
    ),
    (
        "prompts of an unknown format",
        FILE,
        ("prompts.jsonl", "question, month", "docs/data.md"),
        prompts(json.dumps({"question": MONTHS[0], "month": "June"})),
    ),
    ("a type that the prompts do not have", (*ASKED, "data.types=[sport]"), ("'sport'", "capital"), None),
    ("a blank prompt", (*ASKED, "data.prompt=' '"), ("data.prompt", "blank"), None),
    ("an answer without its prompt", (*ASKED, "data.prompt_answer=June"), ("data.prompt_answer", "data.prompt"), None),
    (
        "a gradient of attention neurons",
        (*ASKED, "method=grad_x_act", "method.grad_x_act.site=attn"),
        ("site=attn", "site=ffn"),
        None,
    ),
    (
        "lists shorter than the neurons that are zeroed",
        (*ASKED, "evaluation.interventions.k=[500]"),
        ("500 best neurons", "top_k=100"),
        None,
    ),
]

PROMPTS_WHILE_RUNNING: list[Entry] = [
    (
        "a classifier asked for its next token",
        (*ASKED, *LOCAL),
        ("checkpoint", "classifier", "next token"),
        lambda folder, trained: shutil.copytree(trained, folder / "checkpoint"),
    ),
    (
        "prompts of which the model knows none",
        FILE,
        ("none of the 2 prompts", "top 10"),
        prompts(asked(MONTHS[0], "green"), asked(MONTHS[1], "red")),
    ),
    (
        "a prompt longer than a model that does not say its length to the tokenizer",
        (*ASKED, *LOCAL, *FEW),
        ("4 positions", "data.max_length=4"),
        SHORT,
    ),
    (
        "attention scores of a model that writes out no attention weights",
        (
            *ASKED, *FEW, "model=local", "model.path=silent", "model.trust_remote_code=true",
            "method=logprob_increase_attn",
        ),
        ("no attention weights", "site=ffn"),
        silent_model,
    ),
]  # fmt: skip
