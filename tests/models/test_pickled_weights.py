"""Weights in pytorch_model.bin: the same model as transformers makes of it, from a folder and from a hub; no code."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.families import save_classifier_of
from tests.stand_in_hub import StandInHub, asking, reached_at, serving
from tests.test_safety import Payload
from twinlens.attribution.errors import UserError
from twinlens.callbacks.fit.stage import is_stored_whole
from twinlens.models.backbone import load_tokenizer
from twinlens.models.checkpoint_files import require_weights
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier

TINY = "models/tiny"
NAME = "pytorch_model.bin"
OPT = {
    "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
IDS = torch.tensor([[5, 9, 40, 12, 7]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "model", "opt", OPT)


def saved(folder: Path, family: str, sizes: dict[str, int]) -> Path:
    """A language model with tied weights, in half precision under the names of its first release: as OPT-125m lies on
    the hub, without the outer prefix and without the tied matrix."""
    torch.manual_seed(3)
    tokenizer = load_tokenizer(TINY)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)
    lm: Any = AutoModelForCausalLM.from_config(config)
    lm.config.architectures = [type(lm).__name__]
    lm.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prefix = f"{lm.base_model_prefix}."
    weights = {k.removeprefix(prefix): v.half() for k, v in lm.state_dict().items() if k != "lm_head.weight"}
    torch.save(weights, folder / NAME)
    return folder


def read(folder: Path) -> dict[str, Tensor]:
    return dict(torch.load(folder / NAME, weights_only=True))


def in_shards(folder: Path) -> None:
    weights, names = read(folder), {}
    (folder / NAME).unlink()
    for number, part in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: weights[name] for name in part}, folder / file)
        names.update(dict.fromkeys(part, file))
    (folder / f"{NAME}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def as_before_1_6(folder: Path) -> None:
    torch.save(read(folder), folder / NAME, _use_new_zipfile_serialization=False)


def with_tied_matrix(folder: Path) -> None:
    weights = read(folder)
    embedding = next(value for name, value in weights.items() if name.endswith(("embed_tokens.weight", "wte.weight")))
    torch.save({**weights, "lm_head.weight": embedding}, folder / NAME)


def unchanged(folder: Path) -> None:
    """As it was saved."""


@pytest.mark.parametrize("form", [unchanged, in_shards, as_before_1_6, with_tied_matrix])
def test_a_language_model_is_that_of_transformers(folder: Path, form: Callable[[Path], None]) -> None:
    form(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    same_logits(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(("family", "sizes"), [("gpt2", GPT2), ("bloom", BLOOM)])
def test_other_families_with_tied_weights(tmp_path: Path, family: str, sizes: dict[str, int]) -> None:
    same_logits(saved(tmp_path / "model", family, sizes))


def same_logits(folder: Path) -> None:
    model = LanguageModel("test", load_tokenizer(str(folder)), path=str(folder))
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=False, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(model.eval().lm(IDS).logits, theirs(IDS).logits)
    assert model.lm.get_output_embeddings().weight is model.lm.get_input_embeddings().weight
    assert "a pickle of" in str(model.weights_told)
    assert "weights_only=True" in str(model.weights_told)


def test_what_is_stored_is_safetensors(folder: Path, tmp_path: Path) -> None:
    settings = {"path": str(folder)}
    assert is_stored_whole(settings)  # a run that uses it as it is writes it so, and links to that
    model = LanguageModel("test", load_tokenizer(str(folder)), path=str(folder))
    model.save(tmp_path / "stored")
    assert not is_stored_whole({"path": str(tmp_path / "stored")})
    with safe_open(tmp_path / "stored" / "model.safetensors", "pt") as opened:
        assert "model.decoder.embed_tokens.weight" in opened.keys()  # noqa: SIM118
    again = LanguageModel("test", load_tokenizer(str(folder)), path=str(tmp_path / "stored"))
    with torch.no_grad():
        assert torch.equal(model.eval().lm(IDS).logits, again.eval().lm(IDS).logits)


def test_a_classifier_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_classifier_of("llama", folder, vocab_size=2048)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    torch.save(theirs.state_dict(), folder / NAME)
    (folder / "model.safetensors").unlink()
    tokenizer = load_tokenizer(TINY, as_it_is=True)
    model = TextClassifier("test", ["no", "yes"], tokenizer, path=str(folder), as_it_is=True).eval()
    with torch.no_grad():
        assert torch.equal(model.lm(IDS).logits, theirs(IDS).logits)
    assert f"read from {NAME}" in str(model.weights_told)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = read(folder)
    torch.save({name: value for name, value in weights.items() if "layers.1.fc1.bias" not in name}, folder / NAME)
    with pytest.raises(
        UserError, match=r"lacks 1 weights of a opt model \(first: model\.decoder\.layers\.1\.fc1\.bias"
    ):
        LanguageModel("test", load_tokenizer(str(folder)), path=str(folder))


def test_safetensors_are_read_where_there_are_any(folder: Path, tmp_path: Path) -> None:
    LanguageModel("test", load_tokenizer(str(folder)), path=str(folder)).save(tmp_path / "both")
    (tmp_path / "both" / NAME).write_bytes(pickle.dumps(Payload(tmp_path / "mark")))
    assert LanguageModel("test", load_tokenizer(TINY), path=str(tmp_path / "both")).weights_told is None
    assert not (tmp_path / "mark").exists()


def code(folder: Path) -> None:
    torch.save({**read(folder), "more": Payload(folder / "mark")}, folder / NAME)


def code_of_before_1_6(folder: Path) -> None:
    torch.save({"more": Payload(folder / "mark")}, folder / NAME, _use_new_zipfile_serialization=False)


def code_alone(folder: Path) -> None:
    (folder / NAME).write_bytes(pickle.dumps(Payload(folder / "mark")))


def code_in_a_shard(folder: Path) -> None:
    in_shards(folder)
    torch.save({"more": Payload(folder / "mark")}, folder / "pytorch_model-00002-of-00002.bin")


def compressed(folder: Path) -> None:
    with zipfile.ZipFile(folder / NAME) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / NAME, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def repeated(folder: Path) -> None:
    torch.save({**read(folder), "large": torch.zeros(1).expand(2**20, 2**20)}, folder / NAME)


def cut_off(folder: Path) -> None:
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-500])


def empty(folder: Path) -> None:
    (folder / NAME).write_bytes(b"")


def of_training(folder: Path) -> None:
    torch.save({"state_dict": read(folder), "epoch": 3}, folder / NAME)


def a_list(folder: Path) -> None:
    torch.save(list(read(folder).values()), folder / NAME)


def a_shard_less(folder: Path) -> None:
    in_shards(folder)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()


def a_shard_elsewhere(folder: Path) -> None:
    (folder / NAME).unlink()
    (folder / f"{NAME}.index.json").write_text(json.dumps({"weight_map": {"x": "../pytorch_model.bin"}}))


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (code, r"pytorch_model\.bin is a pickle that asks for more than tensors, which can run any code"),
    (code_of_before_1_6, r"pytorch_model\.bin is a pickle that asks for more than tensors"),
    (code_alone, r"pytorch_model\.bin is (a pickle that asks for more than tensors|truncated or altered)"),
    (code_in_a_shard, r"pytorch_model-00002-of-00002\.bin is a pickle that asks for more than tensors"),
    (compressed, r"pytorch_model\.bin is a compressed pickle"),
    (repeated, r"holds large of shape \[1048576, 1048576\], which is more than is stored of it"),
    (cut_off, r"pytorch_model\.bin is truncated or altered"),
    (empty, r"pytorch_model\.bin is truncated or altered"),
    (of_training, r"holds state_dict, a (dict|OrderedDict); expected tensors by their names"),
    (a_list, r"holds a list; expected tensors by their names"),
    (a_shard_less, r"pytorch_model-00002-of-00002\.bin, which the index of weights names, does not exist"),
    (a_shard_elsewhere, r"names \.\./pytorch_model\.bin, expected bin files of the same folder"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_pickle_with_more_than_whole_tensors_is_refused(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    change(folder)
    with pytest.raises(UserError, match=message):
        require_weights(str(folder))
    with pytest.raises(
        UserError, match=r"pytorch_model"
    ):  # some are smaller than config.json tells, which is seen first
        LanguageModel("test", load_tokenizer(str(folder)), path=str(folder))
    assert not (folder / "mark").exists()


def test_more_weights_than_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        total = 2**10

    monkeypatch.setattr("psutil.virtual_memory", lambda: Small)
    with pytest.raises(UserError, match=r"GiB of weights in pytorch_model\.bin, a pickle, and this machine has"):
        require_weights(str(folder))


LOAD = """
import torch
from transformers import AutoModelForCausalLM
from twinlens.attribution.errors import UserError
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel
try:
    model = LanguageModel("test", load_tokenizer("own/opt"), path="own/opt").eval()
    print(model.weights_told)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained({folder!r}, use_safetensors=SAFE, dtype=torch.float32).eval()
        print(torch.equal(model.lm(torch.tensor([[5, 9, 40]])).logits, theirs(torch.tensor([[5, 9, 40]])).logits))
except UserError as error:
    print(error)
"""


@pytest.mark.long
def test_a_model_of_the_hub(folder: Path, tmp_path: Path) -> None:
    load = LOAD.replace("{folder!r}", repr(str(folder))).replace("SAFE", "False")
    with serving({"models": {"own/opt": folder}, "datasets": {}}) as hub:
        finished = asking(hub.endpoint, tmp_path / "home", load)
    assert finished.stdout.splitlines()[1:] == ["True"], finished.stderr + finished.stdout
    assert finished.stdout.startswith("weights: own/opt; none is new; read from pytorch_model.bin, a pickle of")
    refuse_requests_to_convert(hub)


def refuse_requests_to_convert(hub: StandInHub) -> None:
    """Nobody is asked to convert weights, which transformers does by itself."""
    assert not [asked for asked in hub.asked if "POST" in asked or "discussions" in asked]


def test_shards_of_the_hub_and_of_its_cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = LanguageModel("test", load_tokenizer(TINY), path=str(folder)).eval()
    in_shards(folder)
    with serving({"models": {"own/opt": folder}, "datasets": {}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        online = LanguageModel("test", load_tokenizer("own/opt"), path="own/opt").eval()
        assert "pytorch_model-00001-of-00002.bin and 1 more files" in str(online.weights_told)
        refuse_requests_to_convert(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = LanguageModel("test", load_tokenizer("own/opt"), path="own/opt").eval()
    with torch.no_grad():
        for model in (online, offline):
            assert torch.equal(model.lm(IDS).logits, expected.lm(IDS).logits)


def test_safetensors_of_the_hub_and_a_pickle_with_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, safe = load_tokenizer(TINY), tmp_path / "safe"
    LanguageModel("test", tokenizer, path=str(folder)).save(safe)
    repositories = {"own/safe": safe, "own/opt": folder}
    code(folder)
    with serving({"models": repositories, "datasets": {}}) as hub:
        reached_at(monkeypatch, hub.endpoint, tmp_path / "home")
        assert LanguageModel("test", tokenizer, path="own/safe").weights_told is None
        assert not [asked for asked in hub.asked if NAME in asked]
        with pytest.raises(UserError, match=r"model\.path=own/opt: pytorch_model\.bin is a pickle that asks for more"):
            LanguageModel("test", tokenizer, path="own/opt")
        assert not (folder / "mark").exists()
        (safe / "model.safetensors").unlink()
        reached_at(monkeypatch, hub.endpoint, tmp_path / "other")
        with pytest.raises(
            UserError, match=r"own/safe has neither model\.safetensors nor pytorch_model\.bin on the hub"
        ):
            LanguageModel("test", tokenizer, path="own/safe")
        refuse_requests_to_convert(hub)
