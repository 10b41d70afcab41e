"""The package itself: light to import, one command, nothing that other systems lack, and a version."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import twinlens
from tests.running import SMALL_DEMO
from tests.source_files import PACKAGES, imports_of, is_within, module_of, name_of, sources, text, tree

OF_POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "crypt"}
"""Modules of the standard library that Windows does not have."""
SIGNALS_OF_POSIX = {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGQUIT", "SIGCHLD", "SIGSTOP"}
CALLS_OF_POSIX = {"getuid", "geteuid", "fork", "setsid", "killpg", "uname", "sched_getaffinity", "statvfs"}
HEAVY = ("torch", "lightning", "transformers", "datasets", "hydra", "pandas", "numpy")


def posix_alone(source: str) -> list[str]:
    """What a module imports or reads that only POSIX has, without a word for other systems: outside of `try`, and of a
    condition on the system."""
    if not any(word in source for word in (*OF_POSIX, *SIGNALS_OF_POSIX, *CALLS_OF_POSIX)):
        return []
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and "sys.platform" in ast.unparse(node.test)):
            guarded |= set(ast.walk(node))
    found = []
    for node in ast.walk(tree(source)):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in OF_POSIX]
        elif isinstance(node, ast.ImportFrom) and node.module in OF_POSIX:
            found.append(str(node.module))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = {"signal": SIGNALS_OF_POSIX, "os": CALLS_OF_POSIX}.get(node.value.id, set())
            found += [f"{node.value.id}.{node.attr}"] if node.attr in names else []
    return found


def test_nothing_needs_what_only_posix_has() -> None:
    found = {name_of(file): posix_alone(text(file)) for file in sources("twinlens", *PACKAGES, "train")}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import fcntl", ["fcntl"]),
        ("def f():\n    from resource import getrlimit", ["resource"]),
        ("import signal\nsignal.signal(signal.SIGHUP, g)", ["signal.SIGHUP"]),
        ("os.getuid()", ["os.getuid"]),
        ("try:\n    import resource\nexcept ImportError:\n    pass", []),
        ("if sys.platform == 'linux':\n    import fcntl", []),
    ],
)
def test_what_only_posix_has_is_seen(source: str, found: list[str]) -> None:
    assert posix_alone(source) == found


def test_the_package_is_light_until_it_is_used(repository: Path) -> None:
    code = f"import sys, twinlens; print([name for name in {HEAVY!r} if name in sys.modules], twinlens.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert done.stdout.strip() == f"[] {project['version']}"


def test_nothing_below_imports_the_face() -> None:
    face = {module_of(file) for file in sources("twinlens") if file.stem != "__init__"}
    assert "twinlens.explaining" in face
    found = [(file, name) for file, name in imports_of(*PACKAGES, "train") if any(is_within(name, own) for own in face)]
    assert found == []


def test_the_face_is_what_it_says() -> None:
    assert set(twinlens.__all__) <= set(dir(twinlens))
    assert all(getattr(twinlens, name) is not None for name in twinlens.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = twinlens.nothing


@pytest.mark.long
def test_python_m_is_the_command(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twinlens", "method=gradsim", "evaluation=accuracy", *SMALL_DEMO]
    environment = {"PYTHONPATH": str(repository), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.splitlines()[-1] / "results.csv").is_file()
    refused = subprocess.run([*command[:3], "method=gradsin"], cwd=tmp_path, env=environment, capture_output=True)
    assert refused.returncode == 2
