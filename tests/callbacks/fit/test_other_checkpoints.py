"""Checkpoints of somebody else's training: TracIn over them, their rates, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.running import CommandLine, installed

DOCUMENTS = [{"text": "Snow is white."}, {"prompt": "The month after May is", "completion": " June."}]
QUERY = {"prompt": "The month after May is", "completion": " June."}
OPEN = ("model=local", "data=texts", "data.train=docs.jsonl", "data.queries=questions.jsonl",
        "trainer.accelerator=cpu", "logger=none", "evaluation=[]")  # fmt: skip
BASE = (*OPEN, "fit=false", "method=tracin")
HIDDEN = 16
LAYER = "model.layers.1.mlp.down_proj"


def saved(folder: Path, tokenizer: Any, seed: int, hidden: int = HIDDEN) -> Path:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, pad_token_id=None)
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def state(folder: Path, step: int, rates: dict[int, float]) -> None:
    log = [{"step": at, "loss": 1.0, "learning_rate": rate} for at, rate in rates.items()]
    whole = {"global_step": step, "log_history": [*log, {"step": step, "eval_loss": 2.0}]}
    (folder / "trainer_state.json").write_text(json.dumps(whole))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, repository: Path) -> None:
    """A model with its tokenizer, and two checkpoints of transformers' Trainer."""
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUERY))
    tokenizer = AutoTokenizer.from_pretrained(repository / "models" / "facts")
    tokenizer.save_pretrained(saved(tmp_path / "final", tokenizer, 0))
    rates = {50: 3e-4, 100: 2e-4, 150: 5e-5}
    for number, step in enumerate((100, 160), start=1):
        folder = saved(tmp_path / "out" / f"checkpoint-{step}", tokenizer, number)
        state(folder, step, rates)
    tokenizer.save_pretrained(tmp_path / "out" / "checkpoint-160")


def checkpoints(*names: str) -> str:
    return f"checkpoints=[{','.join(names)}]"


BOTH = checkpoints("out/checkpoint-100", "out/checkpoint-160")


def test_scores_are_those_of_a_loop_over_the_checkpoints(command: CommandLine, tmp_path: Path) -> None:
    whole = (f"method.tracin.params={LAYER}", "method.tracin.projection=random", "method.tracin.projection_dim=64")
    run = command("model.path=final", BOTH, *whole, base=BASE)
    assert run.code == 0, run.err
    assert "checkpoints: 2, each with its learning rate: checkpoint-100 at 0.0002, checkpoint-160 at 5e-05" in run.out
    said = yaml.safe_load((run.folder / "scores" / "tracin" / "method.yaml").read_text())
    assert said["learning_rates"] == [2e-4, 5e-5]
    examples = {split: datasets.load_from_disk(str(run.folder / "examples" / split)) for split in ("train", "test")}
    (query,), expected = examples["test"], np.zeros(2)
    for name, rate in (("checkpoint-100", 2e-4), ("checkpoint-160", 5e-5)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name).eval().requires_grad_(False)
        weight = model.get_submodule(LAYER).weight.requires_grad_(True)

        def gradient(ids: list[int], counts: list[bool], model: Any = model, weight: Any = weight) -> torch.Tensor:
            tokens = torch.tensor([ids])
            losses = cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")
            return torch.autograd.grad((losses * torch.tensor(counts[1:])).sum(), weight)[0]

        ids, answer = query["input_ids"], query["answer_ids"]
        asked = gradient(ids + answer, [False] * len(ids) + [True] * len(answer))
        for row, document in enumerate(examples["train"]):
            expected[row] += rate * float((asked * gradient(document["input_ids"], document["counts"])).sum())
    (found,) = datasets.load_from_disk(str(run.folder / "scores" / "tracin" / "test"))
    scores = dict(zip(found["top_index"], found["top_score"], strict=True))
    np.testing.assert_allclose([scores[0], scores[1]], expected, rtol=1e-4, atol=1e-9)
    planned = command("model.path=final", BOTH, "plan=true", *whole, base=BASE)
    assert "predict train, epoch 2" in planned.out, planned.err
    given = command("model.path=final", BOTH, "checkpoint_rates=[1.0,0.5]", *whole, base=BASE)
    told = yaml.safe_load((given.folder / "scores" / "tracin" / "method.yaml").read_text())
    assert told["learning_rates"] == [1.0, 0.5]


def test_what_is_refused(command: CommandLine, tmp_path: Path, repository: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(repository / "models" / "facts")
    saved(tmp_path / "wider", tokenizer, 0, hidden=32)
    state(tmp_path / "wider", 1, {1: 0.1})
    saved(tmp_path / "silent", tokenizer, 0)
    other = shutil.copytree(tmp_path / "out" / "checkpoint-160", tmp_path / "words")
    written = json.loads((other / "tokenizer.json").read_text())
    first, second, *_ = [word for word in written["model"]["vocab"] if len(word) > 3]
    words = written["model"]["vocab"]
    words[first], words[second] = words[second], words[first]
    (other / "tokenizer.json").write_text(json.dumps(written))
    shutil.copytree(tmp_path / "out" / "checkpoint-100", tmp_path / "early")
    state(tmp_path / "early", 20, {50: 0.1})
    shutil.copytree(tmp_path / "out" / "checkpoint-100", tmp_path / "ended")
    state(tmp_path / "ended", 20, {20: 0.0})
    shutil.copytree(tmp_path / "out" / "checkpoint-100", tmp_path / "broken")
    (tmp_path / "broken" / "trainer_state.json").write_text("{")
    for arguments, expected in (
        ((checkpoints("nowhere"),), "checkpoints=nowhere is no folder"),
        ((checkpoints("out"),), "holds no model (config.json is missing)"),
        ((checkpoints("out"),), "name those inside (checkpoint-100, checkpoint-160)"),
        ((checkpoints("silent"),), "checkpoints=silent has no trainer_state.json"),
        ((checkpoints("early"),), "has logged no learning_rate up to step 20"),
        ((checkpoints("ended"),), "was reached with the learning rate 0"),
        ((checkpoints("broken"),), "cannot be read as the state of a Trainer"),
        ((checkpoints("wider"),), "checkpoints=wider has hidden_size=32"),
        ((checkpoints("words"),), "checkpoints=words has a tokenizer of another vocabulary"),
        ((BOTH, "checkpoint_rates=[1.0]"), "checkpoint_rates has 1 learning rates for 2 checkpoints"),
        (("checkpoint_rates=[1.0]",), "expected a fit, or checkpoints of the training"),
        ((BOTH, "fit=true", "method=tracin"), "but fit=true keeps epochs of its own"),
        ((BOTH, "fit=false", "method=bm25"), "but no method of the run reads them"),
    ):
        asked = any(argument.startswith("fit=") for argument in arguments)
        run = command("model.path=final", *arguments, base=OPEN if asked else BASE)
        assert (run.code, expected in run.err) == (2, True), (arguments, run.err)


@pytest.mark.long
@pytest.mark.skipif(not installed("accelerate"), reason="transformers' Trainer needs accelerate")
def test_checkpoints_of_the_trainer_itself(command: CommandLine, tmp_path: Path, repository: Path) -> None:
    """A schedule that falls: the rate of a checkpoint is that of the step that led to it."""
    from transformers import Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(repository / "models" / "facts")
    model = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "start", tokenizer, 0))
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, len(tokenizer), (12, 8))]
    arguments = TrainingArguments(
        str(tmp_path / "theirs"), per_device_train_batch_size=2, max_steps=6, save_steps=3, logging_steps=1,
        learning_rate=6e-3, lr_scheduler_type="linear", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer: Any = Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    last = "theirs/checkpoint-6"
    run = command(f"model.path={last}", checkpoints("theirs/checkpoint-3", last), "method.tracin.projection_dim=4",
                  base=BASE)  # fmt: skip
    assert run.code == 0, run.err
    said = yaml.safe_load((run.folder / "scores" / "tracin" / "method.yaml").read_text())
    assert said["learning_rates"] == pytest.approx([4e-3, 1e-3])
