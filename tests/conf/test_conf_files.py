"""Every file of the real configuration tree composes, fits the signatures it names, and can be built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hydra.utils import instantiate

from tests.conf.checking.composing import compose, parse
from twinlens.attribution.errors import UserError
from twinlens.conf.checking.annotations import record_fields
from twinlens.conf.checking.checks import check_command_line, check_config
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.plain_values import plain, without_hydra
from twinlens.conf.checking.top_level import GROUPS, SEVERAL, RunConfig

CONF = Path(__file__).parents[2] / "conf"
TREE = ConfigTree((CONF,))
# What a user has to say beside the name of the option, as in the README.
NEEDED = {
    "data=texts": ["data.train=docs.jsonl", "data.queries=questions.jsonl"],
    "data=table": ["data.path=file.csv", "data.text=[premise,hypothesis]", "data.label=label"],
    "model=local": ["model.path=folder"],
    "experiment=texts/facts": ["model.path=folder", "data.train=docs.jsonl", "data.queries=questions.jsonl"],
}


def option_files() -> Iterator[str]:
    """`group/option` of every YAML file below conf/, nested groups included."""
    for path in sorted(CONF.rglob("*.yaml")):
        if path.parent != CONF:
            yield path.relative_to(CONF).with_suffix("").as_posix()


def choice(option: str) -> list[str]:
    """Overrides that select an option file."""
    group, _, name = option.partition("/")
    argument = f"{group}={name}"
    # The primary configuration takes hydra/default itself.
    return [argument, *NEEDED.get(argument, [])] if group != "hydra" else []


@pytest.mark.parametrize("option", option_files())
def test_every_option_passes_the_checks(option: str) -> None:
    check_command_line(choice(option), CONF, compose, parse)


@pytest.mark.parametrize("option", [option for option in option_files() if option.split("/")[0] in SEVERAL])
def test_every_method_and_evaluation_has_its_own_name_and_can_be_built(option: str) -> None:
    group, name = option.split("/")
    assert TREE.package(group, name) == f"{group}.{name}"
    config = compose(CONF, "train", choice(option))
    assert list(config[group]) == [name]
    assert instantiate(config[group][name]) is not None


def test_all_methods_and_evaluations_fit_into_one_run() -> None:
    for group in SEVERAL:
        check_command_line([f"{group}=[{','.join(TREE.options(group))}]"], CONF, compose, parse)


def test_the_primary_configuration_is_train_and_nothing_shadows_a_replay() -> None:
    assert TREE.primaries() == ["train"]


def test_top_level_scalars_are_those_of_the_schema_with_the_same_defaults() -> None:
    config = compose(CONF, "train", [])
    check_config(config, TREE)
    scalars = {key: value for key, value in plain(without_hydra(config)).items() if key not in GROUPS}
    assert set(scalars) == set(record_fields(RunConfig))
    # name and tags may be interpolations of the run's choices; the others are constants.
    constants = ("seed", "fit", "overwrite", "memory_budget", "attribute_split", "allow_targets")
    assert {key: scalars[key] for key in constants} == {key: asdict(RunConfig())[key] for key in constants}


@pytest.mark.parametrize("group", ["model", "data", "method", "evaluation"])
def test_a_misspelt_option_gets_the_nearest_name(group: str) -> None:
    for name in TREE.options(group):
        with pytest.raises(UserError, match=rf"no such {group}; did you mean '{name}'"):
            check_command_line([f"{group}={name}x"], CONF, compose, parse)
