"""Bad input: one sentence, exit code 2, no traceback, nothing written; and docs/errors.md says the same."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.bad_input_files import BadInput
from tests.bad_inputs import BAD_INPUTS
from tests.errors_table import PAGE, WRITE_TO, cells, row_of, rows_of
from tests.running import CommandLine

REFUSED = "refused: "


@pytest.fixture(scope="session")
def trained(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier as a run saves it, with the demo's labels."""
    from twinlens.data.demo_sentences import LABELS
    from twinlens.models.backbone import load_tokenizer
    from twinlens.models.module import TextClassifier

    settings = yaml.safe_load((repository / "conf" / "model" / "tiny.yaml").read_text(encoding="utf-8"))
    del settings["_target_"]
    small = {**settings["architecture"], "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 64}
    folder = tmp_path_factory.mktemp("trained")
    model = TextClassifier(
        **{**settings, "architecture": small}, label_names=LABELS, tokenizer=load_tokenizer("models/tiny"), seed=0
    )
    model.save(folder)
    return folder


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(command: CommandLine, bad: BadInput) -> str:
    """The one sentence that the command is refused with; checks code, streams and that nothing was written."""
    before = files_below(command.folder)
    finished = command(*bad.arguments, base=())
    assert finished.code == 2, finished.out + finished.err
    assert "Traceback" not in finished.err + finished.out
    messages = [line for line in finished.err.splitlines() if line.startswith(REFUSED)]
    assert len(messages) == 1, finished.err
    if not bad.running:
        assert files_below(command.folder) == before
        runs = command.folder / "outputs" / "runs"
        assert not runs.exists() or not any(runs.iterdir())
    return messages[0].removeprefix(REFUSED)


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.what)
def test_bad_input(command: CommandLine, trained: Path, repository: Path, bad: BadInput) -> None:
    if bad.make is not None:
        bad.make(command.folder, trained)
    for name, value in bad.environment:
        command.monkeypatch.setenv(name, value)
    # what processes of torchrun tell each other there is no other test's, which may run beside this one
    command.monkeypatch.setattr(tempfile, "tempdir", str(trained.parent))
    message = refusal(command, bad)
    assert [part for part in bad.told if part not in message] == [], message
    assert message.rstrip().endswith((".", "?"))
    shown = message.replace(str(command.folder.resolve()), ".").replace(str(repository), "TWINLENS")
    shown = re.sub(r"\b[0-9a-f]{24}\b", "FINGERPRINT", shown)
    if os.environ.get(WRITE_TO):
        with open(os.environ[WRITE_TO], "a", encoding="utf-8") as collected:
            collected.write(json.dumps({"what": bad.what, "message": shown}) + "\n")
    else:
        assert row_of(bad, shown) in rows_of(PAGE), "python -m tests.errors_table writes docs/errors.md anew"


def test_the_page_lists_these_and_no_others() -> None:
    listed = [cells(row)[0] for row in rows_of(PAGE)]
    assert listed == [bad.what for bad in BAD_INPUTS]
    assert len(set(listed)) == len(listed) >= 50
