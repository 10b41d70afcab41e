"""Version of the project: of the checkout that runs, or of what is installed."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def version() -> str:
    """As pyproject.toml says in a checkout, whatever was installed before; else that of the installed package."""
    project = CHECKOUT / "pyproject.toml"
    if project.is_file() and (CHECKOUT / "conf" / "train.yaml").is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    try:
        return metadata.version("twinlens")
    except metadata.PackageNotFoundError:
        return "(not installed)"
