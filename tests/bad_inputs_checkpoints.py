"""Checkpoints that are refused."""

from __future__ import annotations

from tests.bad_input_files import (
    FILE,
    GOOD,
    LOCAL,
    MNLI,
    Entry,
    checkpoint,
    cut,
    edited,
    lines,
    pickled,
    split_folder,
    weights_elsewhere,
    without,
)
from tests.running import SMALL_DEMO

CHECKPOINTS: list[Entry] = [
    ("a checkpoint that does not exist", ("model=local", "model.path=nowhere"), ("model.path=nowhere",), None),
    ("a folder without config.json", LOCAL, ("checkpoint", "config.json"), checkpoint(without("config.json"))),
    ("a folder without weights", LOCAL, ("checkpoint", "no weights"), checkpoint(without("model.safetensors"))),
    ("weights in a pickle", LOCAL, ("pytorch_model.bin", "pickle", "model.safetensors"), checkpoint(pickled)),
    ("truncated weights", LOCAL, ("model.safetensors", "truncated"), checkpoint(cut("model.safetensors"))),
    (
        "an index of weights that leaves its folder",
        LOCAL,
        ("model.safetensors.index.json", "../elsewhere.safetensors"),
        checkpoint(weights_elsewhere),
    ),
    ("a truncated config.json", LOCAL, ("checkpoint", "config.json"), checkpoint(cut("config.json"))),
    ("a truncated tokenizer", LOCAL, ("checkpoint", "tokenizer.json"), checkpoint(cut("tokenizer.json"))),
    (
        "a config.json of an unknown architecture",
        LOCAL,
        ("checkpoint", "mystery"),
        checkpoint(edited(model_type="mystery")),
    ),
    ("a config.json with text for a number", LOCAL, ("checkpoint",), checkpoint(edited(hidden_size="wide"))),
    (
        "another architecture than the model's",
        ("model=gpt2", "model.path=checkpoint"),
        ("gpt_neox", "gpt2"),
        checkpoint(),
    ),
    (
        "an architecture without a decoder",
        ("fit=false", *LOCAL),
        ("checkpoint",),
        checkpoint(edited(model_type="bert", architectures=["BertModel"])),
    ),
    (
        "a language model without a classification head, with fit=false",
        ("fit=false", *LOCAL),
        ("no classification head", "fit=true"),
        checkpoint(edited(architectures=["GPTNeoXForCausalLM"])),
    ),
    (
        "a classifier of other labels, with fit=false",
        ("fit=false", *LOCAL, *FILE, "data.label_names=[yes,no]"),
        ("[yes, no]", "supported"),
        lambda folder, trained: [checkpoint()(folder, trained), lines(*GOOD)(folder, trained)],
    ),
    (
        "a multiple-choice model on labelled texts, with fit=false",
        ("fit=false", *LOCAL, *SMALL_DEMO[1:5]),
        ("one score per sequence", "supported", "fit=true"),
        checkpoint(edited(id2label={"0": "score of the choice"}, label2id={"score of the choice": 0})),
    ),
    (
        "a classifier of labels on questions, with fit=false",
        ("fit=false", *LOCAL, "data=demo_choice", *SMALL_DEMO[1:5]),
        ("supported", "multiple choice", "one score per sequence"),
        checkpoint(),
    ),
    (
        "activations of a train split that is not there",
        (
            "fit=false",
            *LOCAL,
            "data=table",
            "data.path=set",
            "data.label=null",
            "method=ig",
            "evaluation=faithfulness",
            "evaluation.faithfulness.intervention=mean",
            "evaluation.faithfulness.reference=train",
        ),
        ("intervention=mean", "train split, which has 0", "reference=explained"),
        lambda folder, trained: [checkpoint()(folder, trained), split_folder(test=GOOD)(folder, trained)],
    ),
    (
        "HANS with a model that knows no entailment",
        ("fit=false", *LOCAL, *MNLI, "data.test=hans", "data.test_path=hans.txt"),
        ("supported", "entailment, neutral, contradiction", "fit=true"),
        checkpoint(),
    ),
    (
        "a checkpoint that asks to run its own code",
        LOCAL,
        ("trust_remote_code",),
        checkpoint(edited(model_type="mystery", auto_map={"AutoConfig": "code.Config"})),
    ),
    ("a folder without tokenizer.json", LOCAL, ("checkpoint",), checkpoint(without("tokenizer.json"))),
]
