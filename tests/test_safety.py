"""Safety: files from somebody else run no code, and secrets are written nowhere (docs/safety.md)."""

from __future__ import annotations

import csv
import json
import pickle
import re
from pathlib import Path

import pytest

from tests.bad_input_files import adapter
from tests.running import CommandLine
from twinlens.callbacks.sweep.sweep_files import write_sweep
from twinlens.conf.checking.secrets import scrub

TOKEN = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4"
PASSWORD = "correct-horse-battery"
QUICK = ("method=gradsim", "evaluation=accuracy")


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.mark,))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
@pytest.mark.parametrize("fit", ["true", "false"])
def test_a_pickle_runs_no_code(command: CommandLine, repository: Path, name: str, fit: str) -> None:
    mark = command.folder / "mark"
    folder = stranger(command.folder, repository)
    (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    finished = command("model=local", f"model.path={folder}", f"fit={fit}", *QUICK)
    assert finished.code == 2
    assert name in finished.err
    assert "pickle" in finished.err
    assert not mark.exists()


def test_settings_of_an_adapter_import_no_module(command: CommandLine, repository: Path) -> None:
    mark = command.folder / "mark"
    base = stranger(command.folder, repository)
    (command.folder / "payload.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    settings = {"megatron_config": {"tensor_model_parallel_size": 1}, "megatron_core": "payload"}
    adapter(base_model_name_or_path=str(base), **settings)(command.folder, base)
    finished = command("model=local", "model.path=checkpoint", *QUICK)
    assert finished.code == 2
    assert "payload" in finished.err
    assert not mark.exists()


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("part", ["AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer"])
def test_code_beside_a_checkpoint_is_not_run(command: CommandLine, repository: Path, part: str) -> None:
    mark = command.folder / "mark"
    folder = stranger(command.folder, repository)
    (folder / "code.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    file = folder / ("tokenizer_config.json" if part == "AutoTokenizer" else "config.json")
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "model_type": "own", "auto_map": {part: "code.Own"}}))
    finished = command("model=local", f"model.path={folder}", *QUICK)
    assert finished.code == 2, finished.out
    assert not mark.exists()


def test_a_typed_secret_is_written_nowhere(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(command.folder))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    typed = f"+hydra.job.env_set.HF_TOKEN={TOKEN}"
    finished = command("logger=wandb", typed, *QUICK)
    assert finished.code == 0, finished.err
    (offline,) = (finished.folder / "wandb").glob("offline-run-*")  # there is no key
    assert list(offline.glob("*.wandb"))
    swept = command("-m", "seed=0", typed, f"tags=[{TOKEN}]", *QUICK)
    assert swept.code == 0, swept.err
    refused = command(f"+logger.csv.password={PASSWORD}", *QUICK)
    assert refused.code == 2
    written = [path for path in command.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert any(path.name == "sweep.csv" for path in written)
    assert [path for path in written if contains_secret(path.read_bytes())] == []
    for shown in (finished, swept, refused):
        assert not contains_secret((shown.out + shown.err).encode())


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            f"unknown key 'model.token' in model.token={TOKEN}; did you mean …",
            "unknown key 'model.token' in model.token=…; did you mean …",
        ),
        (f"model.path=https://me:{PASSWORD}@host/x cannot be loaded", "model.path=https://host/x cannot be loaded"),
        (f"+logger.api_key='{PASSWORD}'; expected", "+logger.api_key='…'; expected"),
        ("data.limit.test=0, expected at least 1", "data.limit.test=0, expected at least 1"),
        ("method.ig.n_steps=5: pad_token=x", "method.ig.n_steps=5: pad_token=x"),
    ],
)
def test_messages_repeat_no_secret(message: str, shown: str) -> None:
    assert scrub(message) == shown


def test_sweep_cells_are_no_formulas(tmp_path: Path) -> None:
    cells = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "plain"]
    rows = [{"job": n, "status": "refused", "overrides": cell, "message": cell} for n, cell in enumerate(cells)]
    write_sweep(tmp_path / "sweep.csv", rows)
    with (tmp_path / "sweep.csv").open(newline="") as opened:
        read = list(csv.DictReader(opened))
    for column in ("overrides", "message"):
        assert [row[column] for row in read] == [*("'" + cell for cell in cells[:-1]), "plain"]


def test_the_page_names_tests_that_exist(repository: Path) -> None:
    page = (repository / "docs" / "safety.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 10
    for file, test in named:
        source = (repository / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{file}::{test}"


def contains_secret(content: bytes) -> bool:
    return TOKEN.encode() in content or PASSWORD.encode() in content


def stranger(folder: Path, repository: Path) -> Path:
    """A checkpoint's folder with configuration and tokenizer, without weights."""
    checkpoint = folder / "stranger"
    checkpoint.mkdir()
    for file in (repository / "models" / "tiny").iterdir():
        if file.suffix == ".json":
            (checkpoint / file.name).write_bytes(file.read_bytes())
    config = {
        "model_type": "gpt_neox", "architectures": ["GPTNeoXForSequenceClassification"], "hidden_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 4096,
        "id2label": {"0": "supported", "1": "unsupported"},
    }  # fmt: skip
    (checkpoint / "config.json").write_text(json.dumps(config))
    return checkpoint
