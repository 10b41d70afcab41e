"""cards/ of a run: model card, data card and citations, made from the run's files alone."""

from __future__ import annotations

import os
from pathlib import Path

from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.share.citations import bibliography, cited
from twinlens.callbacks.share.data_card import data_card
from twinlens.callbacks.share.model_card import model_card

FOLDER = "cards"
MODEL, DATA, CITATIONS = "README.md", "data_card.md", "citations.bib"
"""Their names; the hub shows README.md as the model's page."""


def cards_of(run_dir: Path) -> list[Path]:
    """The cards of a run as they lie in its folder, made where one is missing.

    Raises:
        UserError: see `write_cards`.
    """
    paths = [run_dir / FOLDER / name for name in (MODEL, DATA, CITATIONS)]
    return paths if all(path.is_file() for path in paths) else write_cards(run_dir)


def write_cards(run_dir: Path) -> list[Path]:
    """Write the cards of a run anew, each to a partial path that is renamed when whole.

    They lie beside `model/`, not in it: that folder belongs to the store, and may serve other runs.

    Args:
        run_dir: the run's folder.

    Returns:
        Their paths.

    Raises:
        UserError: a file of the run is missing or damaged (named).
    """
    run = RunFiles(run_dir)
    texts = {MODEL: model_card(run), DATA: data_card(run), CITATIONS: bibliography(cited(run.config))}
    folder = run_dir / FOLDER
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        partial = folder / f"{name}.partial"
        partial.write_bytes(text.encode("utf-8", "replace"))  # names from YAML and JSON may hold lone surrogates
        os.replace(partial, folder / name)
    return [folder / name for name in texts]
