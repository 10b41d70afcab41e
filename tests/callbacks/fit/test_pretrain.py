"""Training a language model through the command line, then asking it and looking at one prompt."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
from transformers import AutoModelForCausalLM

from tests.running import CommandLine

SHORT = ("data.variants=1", "data.limit.train=128", "data.limit.validation=20", "data.limit.test=20")
SMALL = ("trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=none", "model.architecture.num_hidden_layers=1")


def test_a_model_is_trained_saved_and_asked(command: CommandLine) -> None:
    trained = command("experiment=neuron_level/pretrain", base=(*SHORT, *SMALL))
    assert trained.code == 0, trained.err
    with (trained.folder / "results.csv").open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert {row["metric"] for row in rows} == {"known", "mrr", "perplexity"}
    assert {row["split"] for row in rows} == {"validation", "test"}
    model = trained.folder / "model"
    assert AutoModelForCausalLM.from_pretrained(model).config.num_hidden_layers == 1

    asking = ("model=local", f"model.path={model}", "data=knowledge", "method=[]", "evaluation=[known_facts]")
    asked = command(*asking, 'data.prompt="The capital of France is"', base=SMALL[:3])
    assert asked.code == 0, asked.err
    examples = datasets.load_from_disk(str(Path(asked.folder) / "examples" / "test"))
    assert examples["readout"][:] == ["token"]
    assert (examples["label"][:], examples["target_rank"][:]) == ([-1], [1])
    assert "prob" not in examples.column_names
