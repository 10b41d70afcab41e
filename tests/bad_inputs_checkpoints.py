"""Checkpoints that are refused."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input_files import (
    ADAPTER_WEIGHTS,
    AS_IT_IS,
    FILE,
    GOOD,
    LOCAL,
    MNLI,
    Entry,
    adapter,
    checkpoint,
    cut,
    edited,
    lines,
    pickled,
    reweighted,
    split_folder,
    weights_elsewhere,
    without,
    without_a_piece,
)
from tests.running import SMALL_DEMO

UNNAMED = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}

CHECKPOINTS: list[Entry] = [
    ("a checkpoint that does not exist", ("model=local", "model.path=nowhere"), ("model.path=nowhere",), None),
    ("a folder without config.json", LOCAL, ("checkpoint", "config.json"), checkpoint(without("config.json"))),
    ("a folder without weights", LOCAL, ("checkpoint", "no weights"), checkpoint(without("model.safetensors"))),
    ("weights in a pickle", LOCAL, ("model.pt", "pickle", "model.safetensors"), checkpoint(pickled("model.pt"))),
    (
        "a pickle with code beside its weights",
        LOCAL,
        ("pytorch_model.bin", "more than tensors", "model.safetensors"),
        checkpoint(pickled("pytorch_model.bin", more=Path("elsewhere"))),
    ),
    (
        "a pickle with other things than weights",
        LOCAL,
        ("pytorch_model.bin", "epoch", "state_dict()"),
        checkpoint(pickled("pytorch_model.bin", epoch=3)),
    ),
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
    ("a path longer than any", ("model=local", f"model.path={'x' * 300}"), ("File name too long", "255 bytes"), None),
    (
        "a config.json that holds no object",
        LOCAL,
        ("config.json holds []", "a JSON object"),
        checkpoint(lambda folder: (folder / "config.json").write_text("[]")),
    ),
    (
        "a tokenizer whose unknown token is none of its own",
        LOCAL,
        ("Unk token", "model.tokenizer_path"),
        checkpoint(without_a_piece),
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
    (
        "an adapter whose base is not there",
        LOCAL,
        ("checkpoint", "./elsewhere", "base_model_name_or_path"),
        adapter(base_model_name_or_path="./elsewhere"),
    ),
    (
        "an adapter that names no base",
        LOCAL,
        ("checkpoint", "base_model_name_or_path"),
        adapter(base_model_name_or_path=None),
    ),
    ("an adapter on an adapter", LOCAL, ("checkpoint", "merge"), adapter(base_model_name_or_path=".")),
    (
        "an adapter without weights in safetensors",
        LOCAL,
        ("checkpoint", ADAPTER_WEIGHTS, "pickle"),
        adapter(without(ADAPTER_WEIGHTS)),
    ),
    ("truncated weights of an adapter", LOCAL, (ADAPTER_WEIGHTS, "truncated"), adapter(cut(ADAPTER_WEIGHTS))),
    (
        "a truncated adapter_config.json",
        LOCAL,
        ("checkpoint", "adapter_config.json"),
        adapter(cut("adapter_config.json")),
    ),
    ("an adapter of virtual tokens", LOCAL, ("PREFIX_TUNING", "LoRA"), adapter(peft_type="PREFIX_TUNING")),
    ("an adapter to be kept that is no LoRA", LOCAL, ("LOHA", "model.adapter=merge"), adapter(peft_type="LOHA")),
    (
        "an adapter that asks to import a module",
        LOCAL,
        ("megatron_config", "own_module"),
        adapter(megatron_config={"size": 1}, megatron_core="own_module"),
    ),
    *(
        (what, AS_IT_IS, told, checkpoint(edited(**changes)))
        for what, told, changes in (
            (
                "a multi-label classifier, with fit=false",
                ("problem_type=multi_label_classification", "sigmoid", "fit=true"),
                {"problem_type": "multi_label_classification"},
            ),
            ("a regression, with fit=false", ("problem_type=regression", "fit=true"), {"problem_type": "regression"}),
            (
                "a problem of no known type, with fit=false",
                ("problem_type=ranking", "single_label_classification"),
                {"problem_type": "ranking"},
            ),
            (
                "classes that are numbered from one, with fit=false",
                ("id2label", "1, 2", "0 to 1", "config.json"),
                {"id2label": {"1": "no", "2": "yes"}, "label2id": {"no": 1, "yes": 2}},
            ),
            (
                "names of classes instead of their numbers",
                ("id2label", "number of each class", "config.json"),
                {"id2label": {"no": 0, "yes": 1}},
            ),
            (
                "two classes of one name, with fit=false",
                ("id2label", "'yes' twice", "config.json"),
                {"id2label": {"0": "yes", "1": "yes"}, "label2id": {"yes": 1}},
            ),
            (
                "names and numbers of classes that contradict each other, with fit=false",
                ("id2label calls class 0 'no'", "the number 1", "config.json"),
                {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 1, "yes": 0}},
            ),
            (
                "another number of classes than names",
                ("num_labels=5", "classes; expected as many", "config.json"),
                {"num_labels": 5},
            ),
            (
                "a text with tokens that the model does not know",
                ("does not know", "the model knows 100 tokens", "model.tokenizer_path", "row "),
                {"vocab_size": 100},
            ),
            (
                "a text that is rotated by the longest one of its batch",
                ("rope_type=dynamic", "beyond 8 tokens", "data.max_length=8"),
                {
                    "max_position_embeddings": 8,
                    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
                },
            ),
        )
    ),
    (
        "labels of a classifier that names none of its classes, with fit=false",
        ("fit=false", *LOCAL, *FILE),
        ("LABEL_0, LABEL_1", "data.label_names=[no,yes]"),
        lambda folder, trained: [checkpoint(edited(**UNNAMED))(folder, trained), lines(*GOOD)(folder, trained)],
    ),
]

CHECKPOINTS_WHILE_RUNNING: list[Entry] = [
    (what, AS_IT_IS, told, checkpoint(reweighted(change)))
    for what, told, change in (
        (
            "a classifier without its head",
            ("lacks 1 weights", "score.weight", "fit=true"),
            lambda weights: {name: value for name, value in weights.items() if name != "score.weight"},
        ),
        (
            "a head of another number of classes",
            ("score.weight as [5,", "describes ["),
            lambda weights: {**weights, "score.weight": weights["score.weight"][[0, 1, 1, 1, 1]]},
        ),
        (
            "weights that the model has no place for",
            ("holds 1 weights", "score.bias"),
            lambda weights: {**weights, "score.bias": weights["score.weight"][:, 0]},
        ),
    )
]
