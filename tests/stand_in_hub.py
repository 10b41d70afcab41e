"""A hub on this machine that answers as the real one does: status codes, headers, redirects and the API's JSON."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, hf_api
from transformers.utils import hub as transformers_hub

HubOfAnyKind = TypeVar("HubOfAnyKind", bound=ThreadingHTTPServer)
COMMIT = "3f" * 20
LARGE = (".bin", ".safetensors")
"""Files of these kinds lie in a store of large files, where a redirect to another address leads."""


class StandInHub(ThreadingHTTPServer):
    """Repositories by kind and name: `{"models": {"owner/name": folder}, "datasets": {…}}`.

    Attributes:
        asked: every request, `METHOD path`.
    """

    answers: type[BaseHTTPRequestHandler]

    def __init__(self, repositories: Mapping[str, Mapping[str, Path]]) -> None:
        super().__init__(("127.0.0.1", 0), self.answers)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    """What the hub says to whoever reads."""

    server: StandInHub

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        self.send(403, b"", {"X-Error-Message": "nobody may write here"})

    def answer(self) -> None:
        path = unquote(self.path.split("?")[0]).strip("/")
        self.server.asked.append(f"{self.command} {path}")
        parts = path.split("/")
        if parts[0] == "blobs":  # where both redirects lead
            kind, owner, name = parts[1:4]
            file = self.server.repositories[kind][f"{owner}/{name}"] / "/".join(parts[4:])
            self.send(200, file.read_bytes(), self.known(file))
            return
        of_api = parts[0] == "api"
        parts = parts[1:] if of_api else parts
        kind = parts[0] if parts[0] in ("models", "datasets") else "models"
        parts = parts[1:] if parts[0] in ("models", "datasets") else parts
        folder = self.server.repositories[kind].get("/".join(parts[:2]))
        if folder is None:
            self.send(404, b'{"error":"Repository not found"}', {
                "X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found",
            })  # fmt: skip
        elif of_api:
            self.api(folder, "/".join(parts[:2]), parts[2:])
        else:
            self.file(folder, kind, "/".join(parts[:2]), "/".join(parts[4:]))

    def api(self, folder: Path, name: str, rest: list[str]) -> None:
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        if rest[:1] == ["tree"]:
            found: Any = [
                {"type": "file", "oid": "0" * 40, "path": f, "size": (folder / f).stat().st_size} for f in files
            ]
        elif not rest or rest[0] == "revision":
            siblings = [{"rfilename": file} for file in files]
            found = {"_id": "0" * 24, "id": name, "sha": COMMIT, "private": False, "gated": False, "tags": [],
                     "downloads": 0, "likes": 0, "siblings": siblings}  # fmt: skip
        else:
            self.send(404, b'{"error":"Not Found"}', {"X-Error-Message": "Not Found"})
            return
        self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def file(self, folder: Path, kind: str, name: str, wanted: str) -> None:
        file = folder / wanted
        if not file.is_file():
            self.send(404, b"Entry not found", {
                "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", "X-Repo-Commit": COMMIT,
            })  # fmt: skip
            return
        at, known = f"/blobs/{kind}/{name}/{wanted}", self.known(file)
        if file.suffix in LARGE:
            known = {f"X-Linked-{key.title()}": value for key, value in known.items() if key == "ETag"}
            known |= {"X-Linked-Size": str(file.stat().st_size), "X-Repo-Commit": COMMIT}
            self.send(302, b"Found", {**known, "Location": self.server.endpoint + at})
        else:
            self.send(307, b"Temporary Redirect", {**known, "Location": at})

    def known(self, file: Path) -> dict[str, str]:
        return {"ETag": f'"{hashlib.sha256(file.read_bytes()).hexdigest()}"', "X-Repo-Commit": COMMIT}

    def send(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: requests are kept in `asked`."""


StandInHub.answers = Answers


@contextmanager
def serving(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[StandInHub]:
    """A hub in a thread of this process."""
    with started(StandInHub(repositories)) as hub:
        yield hub


@contextmanager
def started(hub: HubOfAnyKind) -> Iterator[HubOfAnyKind]:
    """A hub that answers until the block ends."""
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def reached_at(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path, offline: bool = False) -> None:
    """Set in this process what the hub's library reads from HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE when imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(transformers_hub.hf_api(), "endpoint", endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def asking(endpoint: str, home: Path, code: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, whose hub is at `endpoint`: the library reads that when imported.

    Args:
        home: its folder with the hub's cache.
        offline: with HF_HUB_OFFLINE.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    more = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline)), "OMP_NUM_THREADS": "1"}
    more |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **more},
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
