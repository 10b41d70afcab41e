"""Odd input that a run reports and goes on with, and real checkpoints; what is refused stands in bad_inputs.py."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bad_input_files import FILE, GOOD, row
from tests.running import CommandLine


def test_real_checkpoint_of_another_architecture(command: CommandLine, shared_data: Path) -> None:
    source = shared_data / "stories260k" / "hf"
    finished = command("model=pythia410m", f"model.path={source}", "method=gradsim", base=())
    assert finished.code == 2
    assert "llama" in finished.err
    assert "gpt_neox" in finished.err
    without_head = command("fit=false", "model=local", f"model.path={source}", base=())
    assert without_head.code == 2
    assert "no classification head" in without_head.err


def test_oddities_are_reported_and_the_run_goes_on(command: CommandLine) -> None:
    odd = [
        row("", "only half", "yes"),
        row("p 1", "h 1", "yes"),
        row("long " * 200, "h " * 100, "no"),
    ]
    (command.folder / "data.jsonl").write_text("\n".join([*GOOD, *odd]) + "\n", encoding="utf-8")
    finished = command(*FILE, "data.max_length=64", "trainer.max_epochs=1", base=())
    assert finished.code == 0, finished.err
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["data/empty_field"] == 1
    assert [name for name in metrics if name.startswith("data_index/empty_field/")]
    assert metrics["data/cut_text"] == 1
    assert metrics["data/duplicate_text"] >= 1
    for name in ("empty_field", "cut_text", "duplicate_text"):
        assert f"data: {name}" in finished.out
