"""Every method of `conf/method/` by `twinlens.explain` and by the command line: the same lists and the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, GPT2ForSequenceClassification, GPT2LMHeadModel

import twinlens
from tests.encoders import framing_tokenizer
from tests.families import FAMILY_CONFIGS
from tests.running import CommandLine
from twinlens.method_names import files

TEXTS = ("It rains there today.", "Snow is white.", "Grass is green, and the sky is blue.", "Two and two make four.")
LABELS = ("no", "maybe", "yes")
NEED_A_FIT = {"tracin", "source"}
"""They read weights along a training, and fit=false has none."""
OF_ONE_TOKEN = {"ablation", "head_positions", "heads", "ig_reference", "influence", "influence_cg", "influence_hessian",
                "influence_lissa", "layers", "logprob_increase_attn", "query_layers", "query_layers_attn",
                "query_neurons", "data_of_neurons", "neurons_of_data", "influence_neurons"}  # fmt: skip
"""They are of one output or of the head, and a completion has many tokens."""
SETTINGS = ["method.ig.n_steps=3", "method.ig_gauss.n_steps=3"]


def config(**more: Any) -> Any:
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model("gpt2", **FAMILY_CONFIGS["gpt2"], vocab_size=264, **ids, **more)


def written(folder: Path, name: str, rows: list[dict[str, str]]) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def same_numbers(command: CommandLine, model: Any, queries: Any, train: Any, methods: list[str], *typed: str) -> None:
    """Whether both ways find the same."""
    tokenizer = framing_tokenizer()
    model.save_pretrained(command.folder / "model")
    tokenizer.save_pretrained(command.folder / "model")
    asked = [f"method=[{','.join(methods)}]", *SETTINGS, "evaluation=[]", "logger=none", "trainer.accelerator=cpu"]
    path = f"model.path={command.folder / 'model'}"
    run = twinlens.open(command("fit=false", "model=local", path, *typed, *asked, base=()).folder)
    answer = twinlens.explain(model, tokenizer, queries, train=train, methods=methods, settings=SETTINGS)
    assert set(run.scores) == set(answer.run.scores) == set(methods) - {"neurons_of_data"}  # which leaves no list
    assert [note.split()[0] for note in answer.notes if "no list" in note] == sorted(set(methods) - set(run.scores))
    for name in run.scores:
        theirs, own = (side.scores[name].to_pandas(bottom=True) for side in (run, answer.run))
        assert len(own) > 0
        columns = [column for column in own.columns if column != "score"]
        assert own[columns].astype(str).equals(theirs[columns].astype(str)), name
        largest = float(theirs["score"].abs().max())
        np.testing.assert_allclose(own["score"], theirs["score"], rtol=1e-6, atol=1e-6 * largest, err_msg=name)


@pytest.mark.long
def test_a_language_model_by_every_method(command: CommandLine) -> None:
    methods = [file.stem for file in files() if file.stem not in NEED_A_FIT | OF_ONE_TOKEN]
    queries = [{"prompt": "It rains", "completion": " there."}, {"prompt": "Snow is", "completion": " white."}]
    train = [{"text": text} for text in TEXTS]
    places = [f"data.queries={written(command.folder, 'queries.jsonl', queries)}",
              f"data.train={written(command.folder, 'train.jsonl', train)}"]  # fmt: skip
    same_numbers(command, GPT2LMHeadModel(config()), queries, train, methods, "data=texts", *places)


@pytest.mark.long
def test_a_classifier_by_every_method(command: CommandLine) -> None:
    methods = [file.stem for file in files() if file.stem not in NEED_A_FIT]
    queries = [{"text": "It pours there.", "label": "yes"}, {"text": "Snow is grey.", "label": "no"}]
    train = [{"text": text, "label": LABELS[number % 3]} for number, text in enumerate(TEXTS)]
    model = GPT2ForSequenceClassification(config(num_labels=3))
    model.config.id2label = dict(enumerate(LABELS))
    model.config.label2id = {name: number for number, name in enumerate(LABELS)}
    places = {
        "train": written(command.folder, "train.jsonl", train),
        "test": written(command.folder, "q.jsonl", queries),
    }
    path = f"data.path={{train: '{places['train']}', test: '{places['test']}'}}"
    typed = ("data=table", path, "data.text=[text]", "data.label=label", "neuron_texts=50")
    same_numbers(command, model, queries, train, methods, *typed)
