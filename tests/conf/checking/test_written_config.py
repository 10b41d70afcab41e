"""The configuration that a run writes down, and running it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.conf.checking.composing import TREE, write_tree
from twinlens.conf.checking.written_config import is_secret, redact, redact_overrides, replayable

SCRIPT = """
import sys
import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from pathlib import Path
from twinlens.conf.checking.written_config import replayable


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config):
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "config.yaml").write_text(yaml.safe_dump(replayable(config), sort_keys=False, allow_unicode=True))
    print(folder)


main()
"""


SECRETS = """
api_key apiKey API_KEY apikey token hf_token authToken wandb_token password db_password secret secrets
client_secret private_key access_key_id_secret
"""


@pytest.mark.parametrize("key", SECRETS.split())
def test_secret_names(key: str) -> None:
    assert is_secret(key, "abc")
    assert redact({"a": {key: "abc", "kept": 1}}) == {"a": {"kept": 1}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pad_token", "<pad>"),
        ("eos_token", "</s>"),
        ("tokenizer", "x"),
        ("tokens", 5),
        ("max_tokens", 5),
        ("readout", "token"),
        ("key", "x"),
        ("keys", ["x"]),
        ("monkey", "x"),
        ("use_auth_token", False),
    ],
)
def test_ordinary_names_are_kept(key: str, value: Any) -> None:
    assert redact({key: value}) == {key: value}


@pytest.mark.parametrize("value", ["hf_" + "a" * 34, "sk-" + "b" * 40, "ghp_" + "c" * 36, "AKIA" + "D" * 16])
def test_access_tokens_are_dropped_under_any_name(value: str) -> None:
    assert redact({"note": f"use {value} here", "list": [value, "x"], "seed": 1}) == {"list": ["x"], "seed": 1}


def test_credentials_leave_urls() -> None:
    assert redact({"url": "https://me:pw@host.org/a"}) == {"url": "https://host.org/a"}


def test_interpolations_are_resolved_and_paths_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create(
        {
            "root": str(tmp_path / "data"),
            "file": "${root}/a.csv",
            "beside": str(tmp_path.parent / "x"),
            "url": f"file://{tmp_path}/b",
            "nested": [{"p": str(tmp_path)}],
            "relative": "../y",
            "template": "/{claim} / {evidence}",
            "number": 3,
            "none": None,
        }
    )
    assert redact(config) == {
        "root": "data",
        "file": "data/a.csv",
        "beside": "../x",
        "url": "file://b",
        "nested": [{"p": "."}],
        "relative": "../y",
        "template": "/{claim} / {evidence}",
        "number": 3,
        "none": None,
    }


def test_overrides_are_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "a b.csv"
    overrides = [f"data.path={inside}", f"+x=['{inside}',{tmp_path}/c]", "+logger.api_key=abc", "seed=1", "~debug"]
    assert redact_overrides(overrides) == ["data.path=a b.csv", "+x=['a b.csv',c]", "seed=1", "~debug"]
    assert redact_overrides(["data.template='{claim} / {evidence}'"]) == ["data.template='{claim} / {evidence}'"]


def test_replayable_grants_nothing() -> None:
    assert replayable({"allow_targets": ["os"], "seed": 1}) == {
        "defaults": [{"hydra": "default"}, "_self_"],
        "allow_targets": [],
        "seed": 1,
    }


LEAVES = st.none() | st.booleans() | st.integers() | st.text(st.sampled_from(list("a/\\${}: '\"\n\u2028é")), max_size=8)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.recursive(
            LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("xyz"), x), max_leaves=5
        ),
    )
)
def test_what_is_written_reads_back_as_the_same_values(values: dict[str, Any]) -> None:
    written = yaml.safe_dump(replayable(values), allow_unicode=True)
    read = OmegaConf.to_container(OmegaConf.create(yaml.safe_load(written)), resolve=True)
    assert isinstance(read, dict)
    read.pop("defaults")
    assert read == redact(values)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tree(
        tmp_path / "conf", {**TREE, "data/demo.yaml": "name: demo\nnote: 'costs \\${5}'\npath: ${oc.env:HOME}\n"}
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


def launch(project: Path, *arguments: str) -> list[Path]:
    repository = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(repository), "HOME": str(project / "home")}
    command = [sys.executable, "script.py", *arguments]
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [Path(line) for line in result.stdout.splitlines() if line.startswith(str(project))]


def test_a_run_directory_starts_a_new_run_of_the_same(project: Path) -> None:
    (first,) = launch(project, "seed=7", "method=[ig,gradsim]", "method.ig.n_steps=3")
    assert first == project / "outputs/runs/tiny_demo_s7"
    text = (first / "config.yaml").read_text()
    assert str(project) not in text
    assert yaml.safe_load(text)["data"]["path"] == "home"
    assert yaml.safe_load(text)["method"]["ig"]["n_steps"] == 3
    kept = first.rename(project / "kept")
    # Folders of a run that are named like config groups must not get in the way.
    (kept / "model").mkdir()

    (second,) = launch(project, "--config-dir", "kept", "--config-name", "config")
    assert second == first
    assert (second / "config.yaml").read_text() == text

    (third,) = launch(project, "--config-dir", "kept", "--config-name", "config", "seed=8", "method.ig.n_steps=4")
    changed = yaml.safe_load((third / "config.yaml").read_text())
    assert third == project / "outputs/runs/tiny_demo_s8"
    assert changed["method"]["ig"]["n_steps"] == 4
    assert changed["method"]["gradsim"] == yaml.safe_load(text)["method"]["gradsim"]


@pytest.mark.long
def test_a_replay_can_be_swept(project: Path) -> None:
    (first,) = launch(project)
    jobs = launch(project, "-m", "--config-dir", str(first), "--config-name", "config", "seed=1,2")
    assert jobs == [project / "outputs/sweeps/one/0", project / "outputs/sweeps/one/1"]
    assert [yaml.safe_load((job / "config.yaml").read_text())["seed"] for job in jobs] == [1, 2]
