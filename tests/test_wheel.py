"""The wheel: one top-level name, and a run beside somebody else's packages of the same names as ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.source_files import PACKAGES, git

FOREIGN = "raise RuntimeError('somebody else\\'s package was imported')\n"


def quietly(*command: str, cwd: Path, **environment: str) -> str:
    """Run a command that has to succeed; what it says."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def known_files(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git knows."""
    sources = tmp_path_factory.mktemp("sources")
    for name in git("ls-files", "-co", "--exclude-standard"):
        if (repository / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, sources / name)
    return sources


@pytest.fixture(scope="module")
def wheel(known_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built without a network."""
    return built(known_files, tmp_path_factory.mktemp("wheel"))


def built(sources: Path, folder: Path) -> Path:
    options = ("-q", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    quietly(sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(sources), cwd=folder)
    return next(folder.glob("*.whl"))


def test_it_has_one_top_level_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"twinlens"}
    expected = {"twinlens/__init__.py", "twinlens/train.py", "twinlens/conf/train.yaml", "twinlens/data/collate.py"}
    assert expected | {"twinlens/__main__.py", "twinlens/py.typed", "twinlens/explaining.py"} <= set(names)
    (entry,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert "twinlens = twinlens.__main__:main" in zipfile.ZipFile(wheel).read(entry).decode()
    beside = tuple(f"twinlens/{folder}" for folder in ("tests", "benchmarks", "notebooks", "docs"))
    assert not [name for name in names if name.startswith(beside)]


@pytest.mark.long
def test_a_source_distribution_makes_the_same_wheel(known_files: Path, wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    quietly(sys.executable, "-c", build, cwd=known_files)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (sources,) = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    again = built(sources, tmp_path)
    one, two = (sorted(zipfile.ZipFile(path).namelist()) for path in (wheel, again))
    assert one == two


@pytest.mark.long
def test_it_runs_beside_packages_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    installed, here = tmp_path / "installed", tmp_path / "here"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    for name in PACKAGES:
        (here / name).mkdir(parents=True)
        (here / name / "__init__.py").write_text(FOREIGN)
    (here / "train.py").write_text(FOREIGN)
    command = (sys.executable, "-m", "twinlens.train", "debug=fdr", "method=[ig,gradsim]", "evaluation=accuracy")
    out = quietly(*command, cwd=here, PYTHONPATH=str(installed))
    assert "gradsim: computed" in out
    assert (here / out.splitlines()[-1] / "results.csv").is_file()
    where = quietly(
        sys.executable, "-c", "import twinlens.data as d; print(d.__file__)", cwd=here, PYTHONPATH=str(installed)
    )
    assert Path(where.strip()).is_relative_to(installed)
