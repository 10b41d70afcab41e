"""A hub on this machine that takes uploads as the real one does: account, repositories, large files, commits."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants, hf_api
from huggingface_hub.utils import sha

from tests.stand_in_hub import COMMIT, LARGE, Answers, StandInHub, reached_at, started

TOKEN = "hf_" + "a" * 34
ACCOUNT = {"type": "user", "name": "me", "orgs": [{"name": "lab"}]}


@dataclass
class Repository:
    """What lies in one.

    Attributes:
        private: as it was asked for when it was made.
        files: path → content.
        commits: of each commit, the paths that it changed.
    """

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)


class WritableHub(StandInHub):
    """A hub with one account.

    Attributes:
        role: of the token: `write` or `read`.
        written: repositories by `owner/name`.
        blobs: sha256 → large files that were sent, of commits or not yet.
        breaks_at: the part of a push that fails, once: a `blob` is refused, at a `commit` it hangs up without answer.
    """

    def __init__(self) -> None:
        self.answers = WritingAnswers
        super().__init__({"models": {}, "datasets": {}})
        self.role = "write"
        self.written: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.breaks_at = ""


class WritingAnswers(Answers):
    """What it says to whoever is logged in."""

    server: WritableHub

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            self.server.asked.append(f"GET {path}")
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            account = {**ACCOUNT, "auth": {"accessToken": {"role": self.server.role}}}
            self.say(200 if known else 401, account if known else {"error": "Invalid credentials"})
        elif (name := path.removeprefix("/api/models/").removesuffix("/revision/main")) in self.server.written:
            self.say(200, {"_id": "0", "id": name, "sha": COMMIT, "siblings": []})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(body)["content"])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.say(200, {"transfer": "basic", "objects": [self.place(sent) for sent in json.loads(body)["objects"]]})
        elif path.startswith("/api/models/"):
            owner, name, what = path.removeprefix("/api/models/").split("/")[:3]
            {"preupload": self.preupload, "commit": self.commit}[what](f"{owner}/{name}", body)
        else:
            self.say(404, {"error": "Not Found"})

    def do_PUT(self) -> None:
        self.server.asked.append("PUT blob")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.breaks_at == "blob":
            self.server.breaks_at = ""
            self.say(403, {"error": "no more room"})
            return
        name = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == name, "the file arrived damaged"
        self.server.blobs[name] = content
        self.say(200, {})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or ACCOUNT['name']}/{asked['name']}"
        if name in self.server.written:
            self.say(409, {"error": "You already created this model repo", "url": f"{self.server.endpoint}/{name}"})
            return
        self.server.written[name] = Repository(asked.get("visibility") == "private" or asked.get("private") is True)
        self.say(200, {"url": f"{self.server.endpoint}/{name}"})

    def validate(self, card: str) -> None:
        """The hub refuses a card whose front matter is no mapping, or whose results are not as it reads them."""
        errors = []
        front = yaml.safe_load(card.split("---\n")[1]) if card.startswith("---\n") else {}
        for model in front.get("model-index", []) if isinstance(front, dict) else [{}]:
            if not isinstance(model.get("name"), str):
                errors.append({"message": '"model-index[0].name" is required'})
            for result in model.get("results", []):
                if not {"task", "dataset", "metrics"} <= set(result):
                    errors.append({"message": '"model-index[0].results[0]" is not complete'})
        self.say(400 if errors else 200, {"errors": errors, "warnings": []})

    def place(self, sent: dict[str, Any]) -> dict[str, Any]:
        if sent["oid"] in self.server.blobs:
            return sent
        href = f"{self.server.endpoint}/upload/{sent['oid']}"
        return {**sent, "actions": {"upload": {"href": href, "header": {}}}}

    def preupload(self, name: str, body: bytes) -> None:
        found = []
        for file in json.loads(body)["files"]:
            large = file["path"].endswith(LARGE) or file["size"] > 10 * 2**20
            there = self.server.written[name].files.get(file["path"])
            oid = None if there is None else hashlib.sha256(there).hexdigest() if large else sha.git_hash(there)
            found.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        self.say(200, {"files": found})

    def commit(self, name: str, body: bytes) -> None:
        if self.server.breaks_at == "commit":
            self.server.breaks_at = ""
            self.close_connection = True
            self.connection.close()
            return
        repository, changed = self.server.written[name], []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.server.blobs[value["oid"]]
            else:
                continue
            changed.append(value["path"])
        repository.commits.append(changed)
        self.say(200, {"commitUrl": f"{self.server.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def say(self, code: int, what: Any) -> None:
        message = {"X-Error-Message": str(what["error"])} if "error" in what else {}
        self.send(code, json.dumps(what).encode(), {"Content-Type": "application/json", **message})


@contextmanager
def taking(monkeypatch: pytest.MonkeyPatch, home: Path, token: str | None = TOKEN) -> Iterator[WritableHub]:
    """A hub that this process pushes to, logged in with `token`.

    Large files go by HTTP: what the hub's own store of chunks (Xet) says on the wire is not rebuilt here.
    """
    hub = WritableHub()
    reached_at(monkeypatch, hub.endpoint, home)
    monkeypatch.setattr(hf_api.api, "token", None)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with started(hub):
        yield hub
