"""A run's files that report.html cannot be made of are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk

from tests.callbacks.fake_run import FakeRun
from twinlens.attribution.errors import UserError
from twinlens.callbacks.report.page import write_report

pytestmark = pytest.mark.usefixtures("quiet_datasets")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run without a report, to be copied and damaged."""
    return FakeRun(n_train=40, n_test=12).write(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.json", "results.csv", "examples/train", "scores/ig/method.yaml"]
)
def test_a_missing_file_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / name).rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"{name} is missing"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "a: [1"),
        ("config.yaml", "- just\n- a list\n"),
        ("metrics.json", '{"accuracy": '),
        ("metrics.json", '{"accuracy": "high"}'),
        ("model/config.json", '{"id2label": {"zero": "a"}}'),
        ("scores/ig/method.yaml", "\x00"),
        ("scores/ig/test/dataset_info.json", "{"),
        ("scores/gradsim/test/data-00000-of-00001.arrow", "no arrow"),
        ("examples/test/state.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(whole: Path, tmp_path: Path, name: str, content: str) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / name).write_text(content, encoding="utf-8")
    folder = str(Path(name).parent) if "dataset_info" in name or "arrow" in name or "state" in name else name
    with pytest.raises(UserError, match=re.escape(folder)):
        write_report(run)


def test_scores_of_absent_training_instances_are_named(tmp_path: Path) -> None:
    run = FakeRun(instance=("gradsim",), summary=False).write(tmp_path)
    shorter = load_from_disk(str(run / "examples" / "train")).select(range(5))
    Dataset.from_list(shorter.to_list()).save_to_disk(str(run / "examples" / "other"))
    (run / "examples" / "train").rename(run / "examples" / "old")
    (run / "examples" / "other").rename(run / "examples" / "train")
    with pytest.raises(UserError, match=r"examples/train has no example \d+ that scores name"):
        write_report(run)


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    run = FakeRun(neuron=("ig",), instance=()).write(tmp_path)
    Dataset.from_dict({"index": [0]}).save_to_disk(str(run / "other"))
    (run / "scores" / "ig" / "test").rename(run / "old")
    (run / "other").rename(run / "scores" / "ig" / "test")
    with pytest.raises(UserError, match="has no column layer, unit, score but index"):
        write_report(run)
