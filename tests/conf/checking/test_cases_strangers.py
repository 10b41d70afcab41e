"""The collected cases of hostile run folders and of texts that read as numbers (../shared/cases)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conf.checking.test_foreign_files import REPOSITORY
from tests.running import CommandLine
from twinlens.conf.checking.config_sources import check_what_is_read, compose
from twinlens.conf.checking.written_config import replayable, to_yaml

CASES = REPOSITORY.parent / "shared" / "cases"
CASES = CASES if CASES.is_dir() else REPOSITORY.parents[1] / "shared" / "cases"  # a worktree lies one folder deeper
HOSTILE = sorted((CASES / "hostile").glob("*.yaml"))


@pytest.mark.parametrize("file", HOSTILE or [None], ids=lambda file: file.stem if file else "absent")
def test_a_hostile_run_folder_is_refused(command: CommandLine, file: Path | None) -> None:
    if file is None:
        pytest.skip("needs ../shared/cases/hostile, which is absent")
    (command.folder / "run").mkdir()
    (command.folder / "run" / "config.yaml").write_bytes(file.read_bytes())
    (command.folder / "victim").mkdir()
    for kept in ("victim.txt", "victim/kept.txt"):
        (command.folder / kept).write_text("untouched")
    before = {path: path.read_bytes() for path in command.folder.rglob("*") if path.is_file()}
    finished = command("--config-dir", "run", "--config-name", "config", base=())
    assert finished.code == 2
    assert finished.err.startswith("refused: ")
    assert finished.err.count("\n") == 1
    assert {path: path.read_bytes() for path in command.folder.rglob("*") if path.is_file()} == before


TEXTS = [
    "1E50", "2E60", "1e5", "1e-5", "0o17", "0x1F", "0b1", "1_000", "1_0.5", "12:30:00", "1:30", ".5", "5.", ".inf",
    "-.inf", ".nan", "NaN", "on", "off", "yes", "no", "y", "n", "true", "True", "null", "Null", "~", "", " ", "007",
    "+1", "-1", "1.0", "2001-01-01", "2001-01-01 12:00:00", "=", "<<", "!", "&a", "*a", "- a", "a: b", "#a", "'", '"',
    "${x}", "\\${x}", "@a", "`a`", "%a", "{a}", "[a]", "5A11", "1E", "E5", "1e", "é", "a\nb", "\u2028", "0.1e1_0",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_read_as_something_else_survive(text: str) -> None:
    written = to_yaml(replayable({"names": [text], "map": {text or "empty": text}}))
    read = OmegaConf.to_container(OmegaConf.create(written), resolve=True)
    assert isinstance(read, dict)
    assert read["names"] == [text]
    assert read["map"] == {text or "empty": text}
    assert yaml.safe_load(written)["map"].keys() == {text or "empty"}


def test_label_names_like_numbers_are_repeated(tmp_path: Path) -> None:
    source = CASES / "14-replay-of-label-names-like-numbers" / "icd.jsonl"
    if not source.is_file():
        pytest.skip("needs ../shared/cases/14-replay-of-label-names-like-numbers, which is absent")
    check_what_is_read(REPOSITORY / "conf")
    names = ["1E50", "5A11", "2E60"]
    typed = ["data=table", f"data.path={source}", "data.text=[text]", f"data.label_names={names}"]
    config = compose(REPOSITORY / "conf", "train", typed)
    (tmp_path / "config.yaml").write_text(to_yaml(replayable(config)))
    again = compose(tmp_path, "config", [f"hydra.searchpath=['file://{REPOSITORY / 'conf'}']"])
    assert list(again.data.label_names) == names
