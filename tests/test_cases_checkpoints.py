"""Accidents with checkpoints that were reported elsewhere: each is refused by name or gives the model's own numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.running import CommandLine, Finished

TABLE = ("data=table", "data.text=[text]", "data.label=label", "evaluation=accuracy", "trainer.accelerator=cpu")
LOCAL = ("fit=false", "model=local", "model.path=model", *TABLE)
BOTH = (*LOCAL, "data.path=data.csv", "method=[ig,gradsim]")
Check = Callable[[Path, Finished], None]


def examples(run: Finished, folder: Path) -> Any:
    return datasets.load_from_disk(str(folder / run.folder / "examples" / "test"))


def own_probabilities(folder: Path, run: Finished) -> None:
    """The probabilities are those of transformers over the tokenizer's own ids, as far as the model has positions."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    positions = getattr(model.config, "n_positions", None)
    rows = examples(run, folder)
    assert len(rows) > 2
    for row in rows:
        ids = tokenizer(row["text"], return_tensors="pt")["input_ids"][:, :positions]
        with torch.no_grad():
            expected = model(ids, attention_mask=torch.ones_like(ids)).logits.softmax(-1)[0]
        torch.testing.assert_close(torch.tensor(row["prob"]), expected, atol=1e-5, rtol=1e-5)


def one_bos(folder: Path, run: Finished) -> None:
    assert all(ids[0] == 1 and 1 not in ids[1:] for ids in examples(run, folder)["input_ids"][:])


CASES: list[tuple[str, tuple[str, ...], int, tuple[str, ...], Check | None]] = [
    ("01-head-missing", BOTH, 2, ("score.weight", "[2, 32]", "fit=true"), None),
    ("02-embedding-one-row-more", BOTH, 2, ("model.embed_tokens.weight", "[2049, 32]", "[2048, 32]"), None),
    ("03-added-tokens-beyond-vocabulary", BOTH, 2, ("'village'", "2048 tokens", "2050", "row 1 "), None),
    ("04-multi-label-classifier", BOTH, 2, ("problem_type=multi_label_classification", "fit=true"), None),
    (
        "05-tokenizer-that-ends-with-eos",
        (*BOTH, 'data.template="{text}"'),
        0,
        ("form: <bos> + '{text}' + <eos>",),
        own_probabilities,
    ),
    (
        "06-bos-twice",
        (*BOTH, 'data.template="<bos>{text} Answer :"'),
        0,
        ("(data.template), the checkpoint: reads '{text}'",),
        one_bos,
    ),
    ("07-dynamic-ntk-rope", BOTH, 2, ("rope_type=dynamic", "16 tokens", "data.max_length=16"), None),
    ("12-id2label-from-one", BOTH, 2, ("id2label", "1, 2", "config.json"), None),
    ("13-positions-shorter-than-texts", BOTH, 0, ("cut to 16 tokens",), own_probabilities),
    (
        "16-generic-labels-and-integers",
        (*LOCAL, "data.path=int.jsonl", "method=[ig,gradsim]"),
        0,
        ("form: '{text}'",),
        own_probabilities,
    ),
]


@pytest.mark.parametrize(("name", "arguments", "code", "told", "check"), CASES, ids=[case[0] for case in CASES])
def test_reported_accident(
    name: str,
    arguments: tuple[str, ...],
    code: int,
    told: tuple[str, ...],
    check: Check | None,
    command: CommandLine,
    repository: Path,
) -> None:
    source = repository.parent / "shared" / "cases" / name
    if not source.is_dir():
        pytest.skip("needs ../shared/cases (reported accidents beside the checkout), which is absent")
    shutil.copytree(source, command.folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    run = command(*arguments, base=())
    assert run.code == code, run.out + run.err
    for part in told:
        assert part in (run.err if code else run.out)
    if check is not None:
        check(command.folder, run)
