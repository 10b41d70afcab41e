"""Reading what trackers have written: the records of an offline run of Weights & Biases, by its own protocol."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.starting import SECONDS

BLOCK, HEADER, FIRST = 32768, 7, 7
"""Bytes of a block of the file, of the header of each piece in it, and of the file's own header."""
WHOLE, LAST = 1, 4
"""Kinds of pieces that end a record."""


@dataclass
class Written:
    """What a .wandb file holds.

    Attributes:
        run: the record of the run itself.
        config, summary: last value by key.
        history: every logged step, values by key.
        artifacts: name → type, metadata and paths of its files.
        exit_code: None where the run was not finished.
    """

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, tuple[str, dict[str, Any], list[str]]] = field(default_factory=dict)
    exit_code: int | None = None


def read_wandb(folder: Path) -> Written:
    """The one offline run below `folder/wandb`, once it is ended; a process of the library's own writes it."""
    end = time.monotonic() + SECONDS
    while not (found_paths := [*(folder / "wandb").glob("offline-run-*/*.wandb")]) and time.monotonic() < end:
        time.sleep(0.1)
    (path,) = found_paths
    while (found := _read(path)).exit_code is None and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _read(path: Path) -> Written:
    from wandb.proto import wandb_internal_pb2

    found = Written()
    for raw in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
        elif kind == "config":
            found.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "summary":
            found.summary |= {_key(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "history":
            found.history.append({_key(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "artifact":
            one = record.artifact
            paths = [entry.path for entry in one.manifest.contents]
            found.artifacts[one.name] = (one.type, json.loads(one.metadata or "{}"), paths)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's format of logs: pieces that no block's end cuts, put together."""
    at, whole = FIRST, b""
    while at < len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        if len(content) - at < HEADER:
            return  # still being written
        _, size, kind = struct.unpack_from("<IHB", content, at)
        if len(content) - at - HEADER < size:
            return
        whole += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (WHOLE, LAST):
            yield whole
            whole = b""


def table(folder: Path, name: str) -> dict[str, Any]:
    """A table that the offline run has logged: `columns` and `data`."""
    (path,) = (folder / "wandb").glob(f"offline-run-*/files/media/table/{name}_*.table.json")
    return json.loads(path.read_text(encoding="utf-8"))


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)
