"""Anatomy stage: what the run's model is made of, found once for a configuration and kept in the store."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.formats import ANATOMY_FORMAT, FORMAT, require_known_format
from twinlens.callbacks.store.store import Finish
from twinlens.models import structure_record
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.encoders import is_encoder
from twinlens.models.rows import RowRunner, is_checked
from twinlens.models.structure import has_values, remember, structure_of
from twinlens.models.structure_record import plain_of, structure_from
from twinlens.models.twin import described

FILE = "anatomy.json"


def anatomy_stage(session: Session, methods: Mapping[str, Method]) -> None:
    """Find the parts of the run's model, or take what the store knows of a model with the same configuration.

    What the store says is believed only if the identities hold for these weights (`build_anatomy`); otherwise the model
    is looked at itself. Runs without a neuron method, encoders, whose parts are found otherwise, and models without
    values on this process pass: what reads their parts finds them itself, or says why it cannot.

    Args:
        session: its model is loaded; its store gets `anatomy/<fingerprint>/anatomy.json`.
        methods: all methods of the run by name.
    """
    backbone = session.readable.backbone
    reads_parts = any(method.lens == "neuron" for method in methods.values())
    if not reads_parts or is_encoder(backbone.config) or not has_values(backbone):
        return
    inputs = {"model": described(backbone), "code": code_of(structure_record)}
    entry = session.store.get("anatomy", inputs, lambda folder: _look(backbone, folder), session.labels(), "anatomy")
    content = json.loads((entry.path / FILE).read_text())
    require_known_format(entry.path / FILE, content, ANATOMY_FORMAT)
    if not content["found"]:
        return
    if entry.reused:
        remember(backbone, structure_from(content["found"]))
        if not _holds(backbone):
            remember(backbone, None)
            print(f"anatomy: what {entry.path} says does not hold for these weights: computed", flush=True)
            return
    print(f"parts: {content['told']}", flush=True)


def check_edited_tokens(session: Session) -> None:
    """Check once with this model's weights how edited answer tokens run, before an engine for them is made, and say it.

    Encoders run them as full forwards in any case.
    """
    backbone = session.readable.backbone
    if is_encoder(backbone.config) or is_checked(backbone):
        return
    start = time.monotonic()
    replays = RowRunner(build_anatomy(backbone)).axes is not None
    how = "equal full forwards by replay" if replays else "run as full forwards"
    print(f"edited tokens: {how}, checked in {time.monotonic() - start:.1f} s", flush=True)


def _look(backbone: Any, folder: Path) -> Finish:
    found = structure_of(backbone)
    content = {
        FORMAT: ANATOMY_FORMAT,
        "told": None if found is None else found.told(),
        "found": None if found is None else plain_of(found),
    }
    return lambda: (folder / FILE).write_text(json.dumps(content))


def _holds(backbone: Any) -> bool:
    try:
        build_anatomy(backbone)
    except UserError:
        return False
    return True
