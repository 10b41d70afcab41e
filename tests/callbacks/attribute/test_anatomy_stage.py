"""The anatomy stage: found once for a configuration, read by later runs, believed only where the identities hold."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.callbacks.attribute.layer_case import Rows, session_of
from tests.decoders import tiny_decoder
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.neuron.random_neurons import RandomNeurons
from twinlens.callbacks.attribute.anatomy import anatomy_stage, check_edited_tokens
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.manifest import write_manifest
from twinlens.models import rows, structure
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.rows import RowRunner, check_tokens
from twinlens.models.structure import structure_of

NEURONS: dict[str, Any] = {"random_neurons": RandomNeurons()}
INSTANCES: dict[str, Any] = {"gradsim": GradientSimilarity()}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return session_of(tmp_path, Rows("classification"))


def test_only_neuron_methods_look_at_the_model(session: Session) -> None:
    anatomy_stage(session, INSTANCES)
    assert not (session.store.root / "anatomy").exists()


def test_a_second_model_of_the_same_configuration_reads(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy_stage(session, NEURONS)
    found = structure_of(session.readable.backbone)
    assert found is not None
    assert re.fullmatch(r"anatomy: computed in .*\n" + re.escape(f"parts: {found.told()}\n"), capsys.readouterr().out)
    session.model = copy.deepcopy(session.readable)
    monkeypatch.setattr(structure, "_found_in", lambda backbone: pytest.fail("the model was looked at again"))
    anatomy_stage(session, NEURONS)
    told = capsys.readouterr().out
    assert told.startswith("anatomy: read from the store, made ")
    assert told.endswith(f"\nparts: {found.told()}\n")
    assert str(structure_of(session.readable.backbone)) == str(found)


@pytest.mark.parametrize("wrong", ["attention", "scale"])
def test_what_does_not_hold_for_the_weights_is_not_believed(
    session: Session, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    anatomy_stage(session, NEURONS)
    found = structure_of(session.readable.backbone)
    [entry] = (path for path in (session.store.root / "anatomy").iterdir() if path.is_dir())
    content = json.loads((entry / "anatomy.json").read_text())
    for block in content["found"]["kinds"]:
        block["mlp"] = block["attention"] if wrong == "attention" else {**block["mlp"], "scale": 2.0}
    (entry / "anatomy.json").write_text(json.dumps(content))
    manifest = json.loads((entry / "manifest.json").read_text())
    write_manifest(entry, "anatomy", entry.name, manifest["inputs"], {})
    capsys.readouterr()
    session.model = copy.deepcopy(session.readable)
    anatomy_stage(session, NEURONS)
    assert "does not hold for these weights" in capsys.readouterr().out
    assert str(structure_of(session.readable.backbone)) == str(found)


def test_how_edited_tokens_run_is_checked_once_and_said(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    check_edited_tokens(session)
    assert capsys.readouterr().out.startswith("edited tokens: equal full forwards by replay, checked in ")
    check_edited_tokens(session)
    assert capsys.readouterr().out == ""


def test_a_model_without_replay_says_so(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.model = copy.deepcopy(session.readable)
    monkeypatch.setattr(rows, "_replays", lambda anatomy, axes: False)
    check_edited_tokens(session)
    assert capsys.readouterr().out.startswith("edited tokens: run as full forwards, checked in ")


@pytest.mark.parametrize("n_layers", [2, 6])
def test_the_plan_knows_how_many_tokens_a_check_takes(n_layers: int) -> None:
    lm = tiny_decoder("llama", num_hidden_layers=n_layers)
    anatomy = build_anatomy(lm.base_model)
    passed = 0

    def count(module: Any, args: tuple, output: torch.Tensor) -> None:
        nonlocal passed
        passed += output.shape[:-1].numel()

    handles = [block.self_attn.q_proj.register_forward_hook(count) for block in anatomy.blocks]
    RowRunner(anatomy)
    for handle in handles:
        handle.remove()
    assert passed == check_tokens(n_layers) * n_layers
