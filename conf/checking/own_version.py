"""Version of twinlens: that of the checkout it is read from, or of what is installed."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def own_version() -> str:
    """For example `0.2.0`. An editable installation keeps the version of the day that it was made on, so that a
    checkout's own file comes first."""
    said = CHECKOUT / "pyproject.toml"
    if said.is_file() and (CHECKOUT / "conf" / "train.yaml").is_file():  # a wheel has no pyproject.toml
        return str(tomllib.loads(said.read_text(encoding="utf-8"))["project"]["version"])
    return metadata.version("twinlens")
