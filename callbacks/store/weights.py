"""Hashes of a checkpoint's weights, remembered so that a large file is read once."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.files import write_json
from twinlens.models.adapter_files import SETTINGS, local_base


def weights_hash(folder: Path, cache: Path) -> str:
    """sha256 over a checkpoint's weights and configuration, remembered by (path, size, modification time).

    An adapter's covers its base's, where that lies in a folder too.
    """
    files = _hashed_files(folder)
    if not any(file.suffix != ".json" for file in files):
        raise UserError(f"{folder} has no weights; expected model.safetensors: check model.path.")
    known = _read_cache(cache)
    unknown = {key: file for file, key in files.items() if key not in known}
    for key, file in unknown.items():
        with file.open("rb") as opened:
            known[key] = hashlib.file_digest(opened, "sha256").hexdigest()
    if unknown:
        with suppress(OSError):  # of a store that can only be read, the hashes are taken anew
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_json(cache, known)
    digest = hashlib.sha256()
    for file, key in files.items():
        digest.update(f"{file.name}:{known[key]}".encode())
    return digest.hexdigest()[:24]


def known_weights_hash(folder: Path, store: Path) -> str | None:
    """What `weights_hash` gives, as far as a run of this store has read the weights before; else None."""
    cache = store / "weights.json"
    files = _hashed_files(folder) if folder.is_dir() else {}
    if not files or not _read_cache(cache).keys() >= set(files.values()):
        return None
    return weights_hash(folder, cache)


def _hashed_files(folder: Path) -> dict[Path, str]:
    """A checkpoint's weight files and configuration in order of name, each with the key its hash is remembered by."""
    own = folder.iterdir()
    files = sorted(f for f in own if f.suffix in (".safetensors", ".bin") or f.name in ("config.json", SETTINGS))
    base = local_base(folder)
    if base is not None:
        files += [*_hashed_files(base)]
    return {f: f"{f.resolve()}|{f.stat().st_size}|{f.stat().st_mtime_ns}" for f in files}


def _read_cache(cache: Path) -> dict[str, str]:
    """Remembered hashes; a cache that cannot be read is as good as none."""
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
