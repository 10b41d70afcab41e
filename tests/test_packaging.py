"""Promises of pyproject.toml, constraints.txt and CITATION.cff: they fit together and cover the files there are."""

from __future__ import annotations

import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.source_files import PACKAGES, imports_of, module_of, sources, text
from twinlens.conf.checking.former_names import READ_UNTIL

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Version of every package in constraints.txt by its canonical name."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert len({canonicalize_name(name) for name, _, _ in pinned}) == len(pinned)
    return {canonicalize_name(name): version for name, _, version in pinned}


def requirements(project: dict) -> list[Requirement]:
    """Everything that is required, extras included."""
    extras = project["project"]["optional-dependencies"].values()
    every = [Requirement(text) for group in (project["project"]["dependencies"], *extras) for text in group]
    return [requirement for requirement in every if requirement.name != project["project"]["name"]]  # extra of extras


def test_every_requirement_is_pinned_within_its_bounds(project: dict, pins: dict[str, str]) -> None:
    for requirement in requirements(project):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} excludes the tested version {version}"


def test_pins_are_exact_and_hold_for_every_build(pins: dict[str, str]) -> None:
    """No local suffix such as +cpu, so that any build of the version satisfies; no address of an index."""
    assert {name: version for name, version in pins.items() if not re.fullmatch(r"[0-9]+[0-9a-z.]*", version)} == {}


def test_every_direct_import_is_declared(project: dict) -> None:
    """What the packages import stands in pyproject.toml and does not merely come along."""
    extras = project["project"]["optional-dependencies"]
    # imported only where model.path is an adapter, for data=digits, and for logger=mlflow
    extra = [*extras["peft"], *extras["digits"], *extras["mlflow"]]
    declared = {canonicalize_name(Requirement(text).name) for text in [*project["project"]["dependencies"], *extra]}
    distribution = {"hydra": "hydra-core", "yaml": "pyyaml", "sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
    own = {"twinlens"}
    roots = {name.split(".")[0] for _, name in imports_of(*PACKAGES, "train")} - own - set(sys.stdlib_module_names)
    missing = {root for root in roots if canonicalize_name(distribution.get(root, root)) not in declared}
    assert missing == set()


def test_files_beside_the_code_are_packaged(project: dict) -> None:
    """An installed twinlens has its configuration, tokenizer and templates."""
    settings = project["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        folder = REPOSITORY / package
        files = [
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
        ]
        patterns = [pattern.replace("**/", "*") for pattern in settings.get(f"twinlens.{package}", [])]
        assert [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)] == []


def test_every_package_is_found(project: dict) -> None:
    settings = project["tool"]["setuptools"]
    there = {module_of(file) for file in sources("twinlens", *PACKAGES) if file.name == "__init__.py"}
    assert set(settings["packages"]) == there
    assert {name: folder for name, folder in settings["package-dir"].items() if name != "twinlens"} == {
        f"twinlens.{name}": name for name in PACKAGES
    }


def test_the_citation_names_this_version(project: dict) -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["title"] == project["project"]["name"]
    assert citation["version"] == project["project"]["version"]
    assert citation["license"] == project["project"]["license"]
    cited = {identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]}
    assert cited == {"arXiv:2404.18655", "arXiv:2312.12141"}
    released = re.findall(r"^## (\d+\.\d+\.\d+)(?: – (.+))?$", text(REPOSITORY / "CHANGELOG.md"), re.MULTILINE)
    assert released[0] == (citation["version"], str(citation["date-released"]))


def test_what_is_read_no_longer_in_a_version_is_gone_by_then(project: dict) -> None:
    assert Version(project["project"]["version"]) < Version(READ_UNTIL)
    for page in ("CHANGELOG.md", "docs/former_names.md"):
        assert READ_UNTIL in text(REPOSITORY / page)
