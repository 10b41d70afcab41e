"""Citations: a bibliography that a BibTeX parser reads, keys that lead into it, and exactly what a run used."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bibtexparser
import pytest
import yaml

from tests.source_files import REPOSITORY, sources, text, tree
from twinlens.callbacks.share.citations import OWN, bibliography, cited, in_words, references
from twinlens.callbacks.share.statements import parsed, stated
from twinlens.conf.checking.plain_values import plain, without_hydra
from twinlens.train import CONFIG_DIR, compose


def read(bibtex: str) -> dict[str, dict[str, str]]:
    """Entries by key, fields by name, as a BibTeX parser reads them; nothing may be left over."""
    library = bibtexparser.parse_string(bibtex)
    assert library.failed_blocks == []
    assert len(library.blocks) == len(library.entries)
    return {entry.key: {field.key: str(field.value) for field in entry.fields} for entry in library.entries}


def stating() -> Iterator[tuple[str, type]]:
    """Every class of the project that states papers of its own, by file."""
    import importlib

    for file in sources("attribution", "data", "models"):
        for node in tree(text(file)).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "papers" for line in node.body
            ):
                module = ".".join(("twinlens", *file.relative_to(REPOSITORY).with_suffix("").parts))
                yield f"{file.stem}.{node.name}", getattr(importlib.import_module(module), node.name)


STATING = dict(stating())


def test_the_bibliography_is_bibtex_that_names_who_what_and_when() -> None:
    whole = read(bibliography(list(references())))
    assert list(whole) == list(references())
    for key, entry in whole.items():
        assert {"title", "author", "year"} <= set(entry), key
        assert key == OWN or entry["year"] in key, f"{key} is of {entry['year']}"
        assert "{" not in in_words(key)
        assert "\\" not in in_words(key)


def test_every_key_leads_somewhere_and_every_entry_is_asked_for() -> None:
    assert len(STATING) > 30
    keys = {parsed(line).what for owner in STATING.values() for line in owner.papers}
    assert keys == set(references()) - {OWN}


@pytest.mark.parametrize("name", STATING)
def test_conditions_are_on_settings_that_there_are(name: str) -> None:
    owner: Any = STATING[name]
    families = [owner, *owner.__subclasses__()] if name.split(".")[1].startswith("_") else [owner]
    for statement in map(parsed, owner.papers):
        for setting, values in statement.where.items():
            assert values
            for family in families:
                known = {name for kind in family.__mro__ for name in inspect.signature(kind.__init__).parameters}
                assert setting in known, f"{name}: {setting}"


@pytest.mark.parametrize(
    ("overrides", "used"),
    [
        (
            ["method=[bm25,atp,influence_lissa]", "evaluation=lds"],
            {"robertson1995okapi", "lu2024bm25s", "nanda2023atp", "kramar2024atp"}
            | {"koh2017influence", "yu2024unified", "agarwal2017lissa", "park2023trak"},
        ),
        (["method=influence_ekfac", "evaluation=accuracy", "data=mnli", "data.test=hans"],
            {"koh2017influence", "yu2024unified", "martens2015kfac", "eschenhagen2023kfac", "george2018ekfac"}
            | {"grosse2023influence", "williams2018mnli", "mccoy2019hans"}),
        (["method=gradsim", "method.gradsim.projection=random", "evaluation=[]", "data=averitec", "model=opt125m"],
            {"yu2024unified", "charpiat2019similarity", "park2023trak", "choe2024logra"}
            | {"schlichtkrull2023averitec", "zhang2022opt"}),
        (["method=grad_x_act", "evaluation=accuracy"], set()),
        (["method=log_prob", "evaluation=accuracy", "model=local", "model.path=bigscience/bloom-560m"],
            {"yu2024neuron", "workshop2022bloom"}),
    ],
)  # fmt: skip
def test_a_run_cites_exactly_what_it_uses(overrides: list[str], used: set[str]) -> None:
    config = plain(without_hydra(compose(CONFIG_DIR, "train", overrides)))
    keys = cited(config)
    assert set(keys) == used | {OWN}
    assert list(read(bibliography(keys))) == keys


def test_a_configuration_of_before_cites_by_its_former_names_and_a_strangers_class_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = REPOSITORY / "tests" / "callbacks" / "results" / "run_of_0_1_0" / "demo" / "config.yaml"
    assert "sundararajan2017ig" in cited(yaml.safe_load(former.read_text(encoding="utf-8")))
    (tmp_path / "stranger.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert stated({"_target_": "stranger.Method"}, "papers") == []
