"""Every file of conf/data builds its class, says what each option is for, and takes the keys users type."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from twinlens.data.mnli import SPLIT_SIZES
from twinlens.data.text_data_module import TextDataModule

NAMES = [
    "averitec", "cosqa", "demo", "demo_challenge", "demo_choice", "digits", "fact_sentences", "knowledge", "mnli",
    "table", "texts",
]  # fmt: skip
OWN_FILES = {"texts": "queries", "digits": None}
"""Where a dataset's files are named by another key than `path`, or ship with a library."""


def load(repository: Path, name: str, overrides: list[str]) -> DictConfig:
    file = OmegaConf.load(repository / "conf" / "data" / f"{name}.yaml")
    config = OmegaConf.merge({"seed": 7, "model": {"batch_size": 8}, "data": file}, OmegaConf.from_dotlist(overrides))
    assert isinstance(config, DictConfig)
    return config


def test_there_is_a_file_for_every_dataset(repository: Path):
    assert sorted(file.stem for file in (repository / "conf" / "data").glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_keys_reach_the_module(repository: Path, name: str):
    key = OWN_FILES.get(name, "path")
    files = [f"data.{key}=somewhere"] if key else []
    overrides = ["data.limit.test=50", "data.select.test=[3,17]", "data.batch_size=4", *files]
    module = instantiate(load(repository, name, overrides).data)
    assert isinstance(module, TextDataModule)
    assert module.name == {"demo_challenge": "demo/challenge"}.get(name, name)
    assert (module.seed, module.split_seed, module.batch_size) == (7, 0, 4)
    assert key is None or getattr(module, key) == "somewhere"
    unlimited = {} if name == "knowledge" else {"train": None, "validation": None}  # prompts are a test split alone
    assert module.row_choice.limit == {**unlimited, "test": 50}
    assert list(module.row_choice.select["test"] or []) == [3, 17]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_carries_its_reason(repository: Path, name: str):
    bare = {"_target_:", "name:", "train:", "validation:", "test:"}
    for line in (repository / "conf" / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or line.split()[0] in bare or " # " in line, line


def test_the_demo_as_configured_is_the_demo_of_the_defaults(repository: Path, tokenizer: Any):
    from twinlens.data.demo import DemoDataModule

    configured, plain = instantiate(load(repository, "demo", []).data), DemoDataModule(max_length=64)
    configured.prepare(tokenizer)
    plain.prepare(tokenizer)
    assert {s: configured.fingerprint(s) for s in configured.splits} == {s: plain.fingerprint(s) for s in plain.splits}


@pytest.mark.parametrize("name", NAMES)
def test_the_defaults_of_the_class_are_the_values_of_the_file(repository: Path, name: str):
    config = load(repository, name, []).data
    different = {"text", "shortcut_rate"}  # text has no default that fits; the demo's rates are compared by their rows
    common = set(inspect.signature(TextDataModule.__init__).parameters)
    for option, parameter in inspect.signature(get_class(config["_target_"]).__init__).parameters.items():
        if option in config and option not in common | different and parameter.default is not parameter.empty:
            value = OmegaConf.to_container(config)[option]  # type: ignore[call-overload,index]
            if option == "split_sizes":
                assert value == SPLIT_SIZES
            else:
                assert value == parameter.default, option


def test_the_challenge_repeats_what_shapes_the_rows_of_the_demo(repository: Path):
    demo, challenge = (load(repository, name, []).data for name in ("demo", "demo_challenge"))
    own = {"_target_", "name", "n_challenge", "supported_share"}
    assert {k: v for k, v in challenge.items() if k not in own} == {k: v for k, v in demo.items() if k not in own}


def test_select_from_a_configuration(repository: Path, tokenizer: Any):
    module = instantiate(load(repository, "demo", ["data.select.test=[3,17]", "data.limit.train=5"]).data)
    module.prepare(tokenizer)
    assert module.splits["test"]["source_index"][:] == [3, 17]
    assert len(module.splits["train"]) == 5


def test_a_table_path_may_be_a_mapping(repository: Path, tmp_path: Path, tokenizer: Any):
    (tmp_path / "a.csv").write_text("q,label\nx,1\ny,0\n")
    overrides = [f"data.path.train={tmp_path / 'a.csv'}", "data.text=[q]"]
    module = instantiate(load(repository, "table", overrides).data)
    module.prepare(tokenizer)
    assert list(module.splits) == ["train"]
    assert module.label_names == ["0", "1"]
