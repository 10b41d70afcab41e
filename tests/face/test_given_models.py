"""Models in memory are read as their folders are, of any type and in either precision; what a twin shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import twinlens
from tests.encoders import ENCODERS, framing_tokenizer, tiny_encoder
from tests.families import FAMILY_CONFIGS, LLAMA_SHAPE
from twinlens.attribution.errors import UserError
from twinlens.models.given_models import given_hash, is_given, serving, twin_of

ROWS = [{"text": f"It {verb} there.", "label": at % 2} for at, verb in enumerate(("rains", "snows", "shines", "hails"))]
SETTINGS = ("method.ig.n_steps=2",)


def decoder(name: str) -> Any:
    torch.manual_seed(0)
    known = FAMILY_CONFIGS[name]
    settings = {**(known if "hidden_size" in known or "n_embd" in known else {**LLAMA_SHAPE, **known})}
    config = AutoConfig.for_model(name, **settings, vocab_size=264, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return AutoModelForCausalLM.from_config(config)


def same_both_ways(model: Any, folder: Path, **asked: Any) -> None:
    """The model, and its folder, are explained by the same numbers."""
    tokenizer = framing_tokenizer()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asked = {"train": ROWS, "methods": ["ig", "gradsim"], "settings": SETTINGS, **asked}
    given, read = twinlens.explain(model, tokenizer, **asked), twinlens.explain(folder, None, **asked)
    for name in ("ig", "gradsim"):
        one, two = given.run.scores[name].to_pandas(), read.run.scores[name].to_pandas()
        assert len(one) == len(two) > 0
        np.testing.assert_allclose(one["score"], two["score"], rtol=1e-6, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_an_encoder_in_memory_is_read_as_its_folder(kind: str, tmp_path: Path) -> None:
    model = tiny_encoder(kind)
    before = {name: (id(part), type(part)) for name, part in model.named_modules()}
    same_both_ways(model, tmp_path, texts="It pours there.")
    assert {name: (id(part), type(part)) for name, part in model.named_modules()} == before


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", list(FAMILY_CONFIGS))
def test_a_decoder_in_memory_is_read_as_its_folder(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    same_both_ways(decoder(kind).to(dtype), tmp_path, texts={"prompt": "It pours", "completion": " there."})


@pytest.mark.long
def test_what_is_not_read_whole_is_said() -> None:
    model, tokenizer = tiny_encoder("bert"), framing_tokenizer()
    found = twinlens.explain(model, tokenizer, ["It rains. " * 60, "It pours."], train=ROWS, methods=["gradsim"])
    assert found.notes[0].startswith("1 text longer than the model reads at once")
    with pytest.raises(UserError, match=r"train\[1\] has an empty label"):
        twinlens.explain(model, tokenizer, "It", train=[ROWS[0], {"text": "It", "label": -1}], methods=["gradsim"])
    asked = {"prompt": "It", "completion": " rains", "foil": " snows"}
    found = twinlens.explain(decoder("gpt2"), tokenizer, asked, methods=["coefficient"])
    assert "1 of the texts has a foil, which nothing is explained against" in found.notes[0]


class Tied(nn.Module):
    """Two layers with one weight, a buffer, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.ones(2))
        self.one.register_forward_hook(lambda module, given, output: output + 1)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(given)) * self.scale


def test_a_twin_shares_weights_and_nothing_else() -> None:
    model = Tied().train()
    twin = twin_of(model)
    assert twin.one.weight is twin.two.weight
    assert twin.one.weight is not model.one.weight
    assert twin.one.weight.data_ptr() == model.one.weight.data_ptr()
    assert twin.scale.data_ptr() != model.scale.data_ptr()
    assert not twin.training
    assert model.training
    given = torch.randn(3, 2)
    plain = nn.functional.linear(given, model.one.weight, model.one.bias)
    assert torch.equal(twin(given), model.two(plain))  # without the hook
    assert len(model.one._forward_hooks) == 1
    twin.requires_grad_(False).double()
    assert model.one.weight.requires_grad
    assert model.one.weight.dtype == torch.float32


def test_weights_of_another_type_are_converted_in_the_twin_alone() -> None:
    model = nn.Linear(3, 2).bfloat16()
    twin = twin_of(model)
    assert torch.equal(twin.weight, model.weight.float())
    assert model.weight.dtype == torch.bfloat16
    assert twin_of(model, dtype=None).weight.data_ptr() == model.weight.data_ptr()


def test_what_cannot_be_copied_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.lock = __import__("threading").Lock()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"cannot be copied around its weights .*; expected parts that copy\.deepcopy"):
        twin_of(model)


def test_what_a_model_computes_is_part_of_its_hash(tmp_path: Path) -> None:
    """A store must not give the results of another model that has the same weights."""

    def hashed(model: Any) -> str:
        with serving(tmp_path, model):
            return given_hash(str(tmp_path))

    model = decoder("gpt2")
    own: Any = type("GPT2LMHeadModel", (type(model),), {"forward": doubled})(model.config)
    own.load_state_dict(model.state_dict())
    found = [hashed(model), hashed(decoder("gpt2").train()), hashed(own)]
    for block in model.transformer.h:
        block.mlp.act = nn.ReLU()
    found.append(hashed(model))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def doubled(self: Any, *given: Any, **named: Any) -> Any:
    found = super(type(self), self).forward(*given, **named)
    found.logits = found.logits * 2
    return found


def test_a_folder_is_served_only_inside(tmp_path: Path) -> None:
    with serving(tmp_path, nn.Linear(1, 1)):
        assert is_given(str(tmp_path))
    assert not is_given(str(tmp_path))
