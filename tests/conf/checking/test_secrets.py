"""Every form of a secret is left out wherever a configuration, an override, a message or a log line is shown."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from twinlens.callbacks.results.results_csv import write_results
from twinlens.callbacks.run.quiet_libraries import scrub_log_records, scrubbed_output
from twinlens.callbacks.store.files import write_json, write_text, write_yaml
from twinlens.conf.checking.secrets import hide, scrub
from twinlens.conf.checking.written_config import redact, redact_overrides, to_yaml

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0bC3dE6"
BY_FORM = {
    "hub": "hf_" + LETTERS[:24],
    "openai": "sk-proj-" + LETTERS[:30],
    "anthropic": "sk-ant-api03-" + LETTERS[:30],
    "github": "ghp_" + LETTERS[:36],
    "github, fine": "github_pat_" + LETTERS[:30],
    "gitlab": "glpat-" + LETTERS[:20],
    "aws": "AKIA" + "ABCDEFGH12345678",
    "slack": "xoxb-123456789012-" + LETTERS[:12],
    "google": "AIza" + LETTERS[:35],
    "google oauth": "ya29." + LETTERS[:30],
    "stripe": "sk_live_" + LETTERS[:24],
    "npm": "npm_" + LETTERS[:36],
    "pypi": "pypi-" + LETTERS + "Ag",
    "sendgrid": "SG." + LETTERS[:22] + "." + LETTERS[:30],
    "telegram": "1234567890:" + LETTERS[:35],
    "wandb": "0123456789abcdef0123456789abcdef01234567",
    "wandb, new": "wandb_v1_" + LETTERS[:30],
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS,
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + LETTERS + "\n-----END RSA PRIVATE KEY-----",
}
"""Known wherever they stand, under any key."""
PLAIN = "correct-horse-battery"
IN_TEXT = {
    "key=value": f"data.api_key={PLAIN}",
    "quoted value": f"logger.password='{PLAIN}'",
    "inside a mapping": f"logger.x={{password:{PLAIN},y:1}}",
    "inside a quoted text": f"data.note='api_key={PLAIN} and more'",
    "json in a text": f"data.note='{json.dumps({'secret': PLAIN})}'",
    "json in json": json.dumps({"note": json.dumps({"auth_token": PLAIN})}),
    "yaml": f"  client_secret: {PLAIN}\nseed: 1",
    "yaml, quoted": f'password: "{PLAIN}"',
    "url": f"data.path=https://me:{PLAIN}@host/x",
    "url query": f"data.path=https://host/x?a=1&token={PLAIN}&b=2",
    "signed url": f"data.path=https://host/x?X-Amz-Signature={PLAIN}",
    "database": f"uri=postgresql+psycopg://me:{PLAIN}@host:5432/db",
    "bearer": f"Authorization: Bearer {PLAIN}",
    "option": f"--password {PLAIN}",
    "environment": f"WANDB_API_KEY={PLAIN} python train.py",
    "list": f"logger.x=[{{access_key:{PLAIN}}}]",
    "camel case": f"logger.apiKey={PLAIN}",
}
"""Known by what stands before them."""


def test_at_least_29_forms() -> None:
    assert len(BY_FORM) + len(IN_TEXT) >= 29


@pytest.mark.parametrize("secret", BY_FORM.values(), ids=list(BY_FORM))
def test_a_form_is_known_anywhere(secret: str, tmp_path: Path) -> None:
    values = {"note": secret, "deep": [{"a": [f"use {secret} here"], secret: 1}], "tags": [secret, "kept"]}
    inner = secret.split("\n")[1] if "\n" in secret else secret
    for shown in (
        to_yaml(redact(values)),
        "\n".join(redact_overrides([f"tags=[{secret}]", f"+x='{secret}'", f"a={{b:{secret}}}"])),
        scrub(f"ValueError: {secret!s} is wrong"),
        hide(f"<td>{secret}</td>"),
    ):
        assert inner not in shown
    assert redact(values)["tags"] == ["kept"]
    write_text(tmp_path / "a", secret)
    write_json(tmp_path / "b", {"x": secret.replace("\n", " ")})
    write_yaml(tmp_path / "c", [secret.replace("\n", " ")])
    write_results(tmp_path / "d", [{"model": secret.replace("\n", " "), "value": 1.0}])
    assert [path.name for path in tmp_path.iterdir() if inner in path.read_text()] == []


@pytest.mark.parametrize("text", IN_TEXT.values(), ids=list(IN_TEXT))
def test_what_follows_a_secret_key_is_hidden(text: str) -> None:
    assert PLAIN not in scrub(text)
    assert PLAIN not in "".join(redact_overrides([text]))
    assert PLAIN not in str(redact({"note": text}))


def test_values_of_secret_variables_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MY_TOKEN", "DB_PASSWORD", "OPENAI_KEY", "SERVICE_SECRET"):
        monkeypatch.setenv(name, f"plain words {name.lower()}")
        text = f"x plain words {name.lower()} y"
        assert hide(text) == "x … y"
        assert "words" not in str(redact({"a": [{"b": text}]}))
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    assert hide("abc /tmp/agent") == "abc /tmp/agent"


@pytest.mark.parametrize("key", ["password", "api_key", "credentials", "apiKeys", "account_key", "authorization"])
def test_secret_keys_go_with_all_below_them(key: str) -> None:
    assert redact({"a": [{key: {"value": PLAIN}, "b": 1}], key: [PLAIN]}) == {"a": [{"b": 1}]}


@pytest.mark.parametrize(
    "text",
    [
        "template: 'Secret: {claim}'", "explain the next token: set model.path=DIR", "pad_token: <pad>",
        "unknown key 'data.api_key': DemoDataModule takes no 'api_key'", "revision=" + BY_FORM["wandb"],
        "params_key=value", "eos_token='</s>'", "a fingerprint " + "0123456789abcdef01234567",
    ],
)  # fmt: skip
def test_ordinary_texts_stay(text: str) -> None:
    assert scrub(text) == text


def test_what_hydra_prints_and_what_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with scrubbed_output(True):
        print(f"logger:\n  api_key: {PLAIN}\ntags:\n- {BY_FORM['hub']}")
    shown = capsys.readouterr().out
    assert "api_key" in shown
    assert PLAIN not in shown
    assert BY_FORM["hub"] not in shown
    make = logging.getLogRecordFactory()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    try:
        scrub_log_records()
        logger = logging.getLogger("any.library")
        logger.addHandler(handler)
        logger.warning("loading with %s and password=%s", BY_FORM["hub"], PLAIN)
    finally:
        logging.setLogRecordFactory(make)
        logging.getLogger("any.library").removeHandler(handler)
    assert stream.getvalue() == "loading with … and password=…\n"
    assert sys.stdout is not stream
