"""Documents and queries that are refused, with file and row, before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bad_input_files import Entry, Make

QUERY = {"prompt": "The month after May is", "completion": " June."}
MODEL = ("model=facts", "data=texts", "fit=false", "method=ig", "trainer.accelerator=cpu")
ASKED = (*MODEL, "data.train=docs.jsonl", "data.queries=questions.jsonl")


def texts(document: object = None, query: object = None) -> Make:
    """One good row in either file and, where one is given, a bad one behind it."""

    def make(folder: Path, trained: Path) -> None:
        for name, rows in (("docs", [{"text": "Grass is green."}, document]), ("questions", [QUERY, query])):
            written = [json.dumps(row) for row in rows if row is not None]
            (folder / f"{name}.jsonl").write_text("\n".join(written))

    return make


def turns(role: str) -> dict[str, object]:
    return {"messages": [{"role": role, "content": "June."}]}


TEXTS: list[Entry] = [
    ("texts without a question", MODEL, ("neither data.queries nor data.prompt",), None),
    ("a document of no known form", ASKED, ("docs.jsonl row 1", "has none of text"), texts({"title": "x"})),
    (
        "a document without a token that counts",
        ASKED,
        ("docs.jsonl row 1", "no token that counts"),
        texts({"text": ""}),
    ),
    ("a chat without an assistant's turn", ASKED, ("docs.jsonl row 1", "assistant"), texts(turns("user"))),
    ("a chat, but no template", ASKED, ("docs.jsonl row 1", "no chat template"), texts(turns("assistant"))),
    (
        "a query without a completion",
        ASKED,
        ("questions.jsonl row 1", "empty completion"),
        texts(query={"prompt": "Grass is", "completion": ""}),
    ),
    (
        "a query whose completion would be cut",
        (*ASKED, "data.max_length=16"),
        ("questions.jsonl row 1", "would be cut"),
        texts(query={"prompt": "Grass is", "completion": " green" * 16}),
    ),
    (
        "a foil that is the completion",
        ASKED,
        ("questions.jsonl row 1", "completion and foil"),
        texts(query={**QUERY, "foil": " June."}),
    ),
    (
        "train texts at other tokens for another bridge",
        (
            *ASKED,
            "method=[ig,na_instances,gradsim_cosine,gradsim_neurons]",
            "method.gradsim_neurons.source=gradsim_cosine",
            "method.na_instances.positions=last",
        ),
        ("method.gradsim_neurons.positions=all", "method.na_instances.positions=last", "one reading"),
        texts(),
    ),
    (
        "train texts at no known tokens",
        (*ASKED, "method=[ig,na_instances]", "method.na_instances.positions=first"),
        ("method.na_instances.positions='first'", "'all' or 'last'"),
        texts(),
    ),
    ("texts of neurons below none", (*ASKED, "neuron_texts=-1"), ("neuron_texts=-1", "0 or more"), texts()),
    (
        "texts of neurons without a corpus",
        (*MODEL, "data.queries=questions.jsonl", "neuron_texts=5"),
        ("neuron_texts=5", "train split"),
        texts(),
    ),
    (
        "texts of neurons in no list",
        (*ASKED, "method=random_neurons", "neuron_texts=5"),
        ("method=[random_neurons]", "lists none"),
        texts(),
    ),
    ("a foil that is not there", (*ASKED, "explain_against=foil"), ("questions.jsonl row 0", "foil"), texts()),
    (
        "a score of one token for a completion",
        (*ASKED, "method=logprob_increase_attn"),
        ("logprob_increase_attn", "add up"),
        texts(),
    ),
    (
        "a column of evidence that is not there",
        (*ASKED, "data.evidence=fact"),
        ("data.evidence=fact", "docs.jsonl"),
        texts(),
    ),
    (
        "evidence of nothing that is asked",
        (*ASKED, "data.evidence=fact"),
        ("data.evidence=fact", "no value in common"),
        texts({"text": "Snow is white.", "fact": 1}, {**QUERY, "fact": 2}),
    ),
    (
        "a mark that is a list",
        (*ASKED, "data.group=topic"),
        ("questions.jsonl row 1", "topic"),
        texts(query={**QUERY, "topic": [1, 2]}),
    ),
    (
        "a group of a prompt without a file",
        (*MODEL, "data.prompt=Grass", "data.completion=green", "data.group=topic"),
        ("data.group=topic", "data.queries=FILE"),
        None,
    ),
    (
        "queries together of a method that keeps none of them",
        (*ASKED, "data.group=topic", "method=gradsim", "method.gradsim.params=all"),
        ("method=gradsim", "data.group"),
        texts(query={**QUERY, "topic": "months"}),
    ),
    (
        "more own documents than places",
        (*ASKED, "method=bm25", "evaluation=evidence", "evaluation.evidence.first=2"),
        ("evaluation.evidence.first=2", "several=3"),
        texts(),
    ),
    (
        "no group to take a cluster from",
        (*ASKED, "method=bm25", "evaluation=cluster_removal", "evaluation.cluster_removal.most=0"),
        ("evaluation.cluster_removal.most=0",),
        texts(),
    ),
    (
        "a checkpoint that is no folder",
        (*ASKED, "method=tracin", "checkpoints=[nowhere]"),
        ("checkpoints=nowhere", "no folder"),
        texts(),
    ),
    (
        "a checkpoint without its learning rate",
        (*ASKED, "method=tracin", "checkpoints=[models/facts]"),
        ("checkpoints=models/facts", "trainer_state.json"),
        texts(),
    ),
    (
        "fewer learning rates than checkpoints",
        (*ASKED, "method=tracin", "checkpoints=[models/facts,models/facts]", "checkpoint_rates=[0.1]"),
        ("checkpoint_rates", "2 checkpoints"),
        texts(),
    ),
    (
        "checkpoints that nothing reads",
        (*ASKED, "checkpoints=[models/facts]"),
        ("no method of the run reads them",),
        texts(),
    ),
    (
        "early stopping without a validation split",
        (*ASKED, "fit=true", "callbacks=early_stopping"),
        ("callbacks.early_stopping", "data.validation_fraction"),
        texts(),
    ),
    ("new LoRA matrices without a fit", (*ASKED, "model.adapter=lora"), ("model.adapter=lora", "fit=false"), texts()),
]
