"""Surroundings of `twinlens.explain`: modes, threads, an interruption, and what is put back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

import twinlens
from tests.face.models_in_use import in_use, same, state_of
from tests.small_texts import documents
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.caller_state import as_it_was, usual_tensors, with_gradients
from twinlens.models import given_models

DOCUMENTS = documents()
PROMPT = "The capital of France is"
FEW_STEPS = "method.ig.n_steps=3"


def test_modes_are_set_aside_and_put_back() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        torch.set_default_dtype(torch.float64)
        try:
            with with_gradients(), usual_tensors():
                made = torch.ones(2, 2) @ weight
                assert (made.dtype, made.device.type, made.requires_grad) == (torch.float32, "cpu", True)
            assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
        assert torch.get_default_device().type == "meta"
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()


def test_what_fails_is_put_back_too() -> None:
    drawn = torch.get_rng_state()

    def stopped() -> None:
        with as_it_was():
            torch.rand(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert torch.equal(torch.get_rng_state(), drawn)


class OfOnesOwn(LlamaForCausalLM):
    """A class that somebody made, whose name says nothing."""


@pytest.mark.long
def test_modes_and_threads_around_the_call_change_no_number(facts: tuple[Any, Any]) -> None:
    asked = {"train": DOCUMENTS, "methods": (name for name in ("ig", "gradsim")), "settings": FEW_STEPS}
    plain = twinlens.explain(*facts, PROMPT, **{**asked, "methods": ["ig", "gradsim"]})
    scores = {name: plain.run.scores[name].to_pandas()["score"].to_numpy() for name in ("ig", "gradsim")}
    found: list[Any] = []
    with torch.inference_mode():
        own = OfOnesOwn(facts[0].config)  # tensors that no gradient can be taken of
        own.load_state_dict(facts[0].state_dict())
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
            torch.set_default_dtype(torch.float64)
            try:
                found.append(twinlens.explain(own, facts[1], PROMPT, **asked))
                assert torch.get_default_dtype() == torch.float64
            finally:
                torch.set_default_dtype(torch.float32)
            assert torch.get_default_device().type == "meta"
            assert torch.is_autocast_enabled("cpu")
    asked["methods"] = ["ig", "gradsim"]
    threads = [Thread(target=lambda: found.append(twinlens.explain(*facts, PROMPT, **asked))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for answer in found:
        for name, expected in scores.items():
            np.testing.assert_allclose(answer.run.scores[name].to_pandas()["score"], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_an_interruption_leaves_the_model_as_it_is(facts: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = in_use(facts[0])
    before, drawn = state_of(model), torch.get_rng_state()
    kept: list[Any] = []
    made = tempfile.TemporaryDirectory

    def keep(**asked: Any) -> Any:
        kept.append(made(**asked))
        return kept[-1]

    monkeypatch.setattr("twinlens.explaining.TemporaryDirectory", keep)

    def stop(*_: Any, **__: Any) -> None:
        torch.rand(3)
        raise KeyboardInterrupt

    monkeypatch.setattr(IntegratedGradients, "token_scores", stop)
    monkeypatch.setattr(IntegratedGradients, "attribute", stop)
    with pytest.raises(KeyboardInterrupt):
        twinlens.explain(model, facts[1], PROMPT, methods=["ig"])
    assert same(state_of(model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [Path(folder.name).exists() for folder in kept] == [False]
    assert given_models._GIVEN == {}


@pytest.mark.long
def test_importing_the_face_draws_nothing(repository: Path) -> None:
    code = "import random, twinlens; drawn = random.getstate(); twinlens.explain; print(random.getstate() == drawn)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
