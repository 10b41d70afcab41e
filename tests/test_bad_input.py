"""Bad input: one sentence, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import CommandLine


def refused(command: CommandLine, *arguments: str) -> str:
    """The one sentence that a command is refused with; checks code, stderr and that nothing was written."""
    before = sorted(path for path in command.folder.rglob("*") if path.is_file())
    finished = command(*arguments, base=())
    assert finished.code == 2, finished.out + finished.err
    assert "Traceback" not in finished.err + finished.out
    message = [line for line in finished.err.splitlines() if line.startswith("refused: ")]
    assert len(message) == 1, finished.err
    after = sorted(path for path in command.folder.rglob("*") if path.is_file())
    assert after == before
    runs = command.folder / "outputs" / "runs"
    assert not runs.exists() or not any(runs.iterdir())
    return message[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model=pythia401m"], ["model=pythia401m", "pythia410m"]),
        (["data=averitek"], ["data=averitek", "averitec"]),
        (["method=gradsym"], ["method=gradsym", "gradsim"]),
        (["evaluation=faithfullness"], ["faithfulness"]),
        (["modle=tiny"], ["modle", "model"]),
        (["method.ig.n_step=5"], ["n_step", "n_steps"]),
        (["trainer.max_epoch=1"], ["max_epoch", "max_epochs"]),
        (["seed=abc"], ["seed", "abc", "int"]),
        (["method.ig.n_steps=many"], ["n_steps", "many", "int"]),
        (["model.head=conv"], ["head", "conv", "linear"]),
        (["method=[ig,ig]"], ["ig", "twice"]),
        (["memory_budget=lots"], ["memory_budget", "lots"]),
        (["method.ig.preset=papr"], ["papr", "paper"]),
        (["method.ig.n_steps=0"], ["n_steps=0", "at least 1"]),
        (["evaluation.faithfulness.sufficiency=[0]"], ["r ≥ 1"]),
        (["data=table"], ["data.path"]),
        (["data=table", "data.path=nowhere.csv"], ["nowhere.csv"]),
        (["data=averitec", "data.path=nowhere"], ["nowhere"]),
        (["model=local", "model.path=nowhere"], ["model.path=nowhere", "cannot be loaded"]),
        (["data.limit.test=0"], ["data.limit.test=0", "at least 1"]),
        (["data.select.test=[3,9999]"], ["data.select.test", "9999"]),
        (["attribute_split=tests"], ["attribute_split", "tests"]),
        (["fit=false"], ["fit=false", "model.path"]),
        (["-m", "seed=0,1", "model=pythia401m"], ["pythia401m"]),
    ],
)
def test_command_lines(command: CommandLine, arguments: list[str], expected: list[str]) -> None:
    message = refused(command, *arguments)
    for part in expected:
        assert part in message


def table(folder: Path, *lines: str) -> str:
    path = folder / "data.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return f"data.path={path}"


GOOD = [json.dumps({"premise": f"p {n}", "hypothesis": f"h {n}", "label": "yes" if n % 2 else "no"}) for n in range(20)]
TABLE = ("data=table", "method=gradsim", "evaluation=accuracy")


def test_malformed_json_line_is_named(command: CommandLine) -> None:
    path = table(command.folder, *GOOD[:3], '{"premise": "broken', *GOOD[3:])
    message = refused(command, *TABLE, path)
    assert "4" in message
    assert "data.jsonl" in message


def test_unknown_label_is_named(command: CommandLine) -> None:
    path = table(command.folder, *GOOD, json.dumps({"premise": "p", "hypothesis": "h", "label": "perhaps"}))
    message = refused(command, *TABLE, path, "data.label_names=[yes,no]")
    assert "perhaps" in message
    assert "yes" in message


def test_empty_split_is_named(command: CommandLine) -> None:
    folder = command.folder / "set"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("" if split == "test" else "\n".join(GOOD) + "\n")
    message = refused(command, *TABLE, f"data.path={folder}")
    assert "test" in message
    assert "empty" in message


def test_example_without_a_token_is_named(command: CommandLine) -> None:
    path = table(command.folder, *GOOD[:5], json.dumps({"premise": "", "hypothesis": " ", "label": "yes"}), *GOOD[5:])
    message = refused(command, *TABLE, path)
    assert "5" in message
    assert "token" in message


def test_missing_column_is_named(command: CommandLine) -> None:
    message = refused(command, *TABLE, table(command.folder, *GOOD), "data.text=[premise,conclusion]")
    assert "conclusion" in message
    assert "hypothesis" in message


def test_checkpoint_of_another_architecture(command: CommandLine, shared_data: Path) -> None:
    source = shared_data / "stories260k" / "hf"
    message = refused(command, "model=pythia410m", f"model.path={source}", "method=gradsim")
    assert "llama" in message
    assert "gpt_neox" in message
    without_head = refused(command, "fit=false", "model=local", f"model.path={source}")
    assert "no classification head" in without_head


def test_labels_that_do_not_match_the_checkpoint(command: CommandLine) -> None:
    trained = command("method=gradsim", "evaluation=accuracy").folder
    path = table(command.folder, *GOOD)
    finished = command(
        "fit=false",
        "model=local",
        f"model.path={trained / 'model'}",
        *TABLE,
        path,
        "data.label_names=[yes,no]",
        base=(),
    )
    assert finished.code == 2
    assert "[yes, no]" in finished.err
    assert "supported" in finished.err.lower()


def test_infinite_loss_names_the_examples(command: CommandLine) -> None:
    finished = command("model.learning_rate=1e30", "trainer.limit_train_batches=1.0", "model.gradient_clip_val=null")
    assert finished.code == 2
    assert "NaN or infinite" in finished.err
    assert "index" in finished.err
    assert "learning_rate" in finished.err


def test_oddities_are_reported_and_the_run_goes_on(command: CommandLine) -> None:
    odd = [
        json.dumps({"premise": "", "hypothesis": "only half", "label": "yes"}),
        json.dumps({"premise": "p 1", "hypothesis": "h 1", "label": "yes"}),
        json.dumps({"premise": "long " * 200, "hypothesis": "h " * 100, "label": "no"}),
    ]
    path = table(command.folder, *GOOD, *odd)
    finished = command(*TABLE, path, "data.max_length=64", "trainer.max_epochs=1", base=())
    assert finished.code == 0, finished.err
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["data/empty_field"] == 1
    assert [name for name in metrics if name.startswith("data_index/empty_field/")]
    assert metrics["data/cut_text"] == 1
    assert metrics["data/duplicate_text"] >= 1
    for name in ("empty_field", "cut_text", "duplicate_text"):
        assert f"data: {name}" in finished.out
