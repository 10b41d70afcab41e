"""Hashes of a checkpoint's weights, remembered so that a large file is read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.callbacks.store.checksums import read_note
from twinlens.callbacks.store.files import write_json
from twinlens.models.adapter_files import SETTINGS, local_base
from twinlens.models.given_models import given_hash, is_given


def weights_hash(folder: Path, cache: Path) -> str:
    """sha256 over a checkpoint's weights and configuration; each file's is remembered while nobody touched the file.

    An adapter's covers its base's, where that lies in a folder too.
    """
    if is_given(str(folder)):  # a caller's model, whose folder has no weights
        return given_hash(str(folder))
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
            write_json(cache, {"hashes": known, "of_hashes": _hash_of_hashes(known)})
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
    """A checkpoint's weight files and configuration in order of name, each with the key its hash is remembered by.

    The modification time can be set to anything and stays when a file is moved over another; inode and ctime do not.
    """
    own = folder.iterdir()
    files = sorted(f for f in own if f.suffix in (".safetensors", ".bin") or f.name in ("config.json", SETTINGS))
    base = local_base(folder)
    if base is not None:
        files += [*_hashed_files(base)]
    return {file: _key_of(file) for file in files}


def _key_of(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}|{state.st_ctime_ns}"


def _read_cache(cache: Path) -> dict[str, str]:
    """Remembered hashes; a cache that cannot be read or was changed is as good as none."""
    noted = read_note(cache)
    known = noted.get("hashes")
    return known if isinstance(known, dict) and noted.get("of_hashes") == _hash_of_hashes(known) else {}


def _hash_of_hashes(known: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
