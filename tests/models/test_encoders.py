"""Encoders of six types: their own probabilities, and neurons of the classification token, against plain forwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tests.encoders import ENCODERS, framing_tokenizer, save_encoder
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ablation import Ablation
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.protocols import NeuronModel
from twinlens.data.collate import PaddingCollator
from twinlens.models.encoder_anatomy import require_encoder_parts
from twinlens.models.encoders import require_classification_token
from twinlens.models.module import TextClassifier

BUDGET, STEPS = 2**30, 2
TEXTS = ["a cat", "no dog was there", "x", "yes, it was"]
DOWN = {
    **dict.fromkeys(("bert", "roberta", "deberta-v2", "electra"), "encoder.layer.{}.output.dense"),
    "distilbert": "transformer.layer.{}.ffn.lin2",
    "modernbert": "layers.{}.mlp.Wo",
}
OUTPUT = {
    **dict.fromkeys(("bert", "roberta", "deberta-v2", "electra"), "encoder.layer.{}.attention.output.dense"),
    "distilbert": "transformer.layer.{}.attention.out_lin",
    "modernbert": "layers.{}.attn.Wo",
}
LAYERS = 2


@pytest.fixture(scope="module", params=list(ENCODERS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    save_encoder(request.param, folder)
    return request.param, folder


def loaded(folder: Path) -> TextClassifier:
    """As the run's own model of a trained classifier."""
    return TextClassifier("local", ["no", "yes"], framing_tokenizer(), str(folder), as_it_is=True).eval()


def batches(side: str, size: int) -> list[dict[str, Tensor]]:
    tokenizer, collate = framing_tokenizer(), PaddingCollator(0, side)
    rows = [{"index": row, "label": 0, "input_ids": tokenizer(text)["input_ids"]} for row, text in enumerate(TEXTS)]
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


@pytest.mark.parametrize(("side", "size"), [("right", 4), ("left", 4), ("right", 1)])
def test_probabilities_are_those_of_transformers(saved: tuple[str, Path], side: str, size: int) -> None:
    model, tokenizer = loaded(saved[1]), framing_tokenizer()
    stock = AutoModelForSequenceClassification.from_pretrained(saved[1]).eval()
    with torch.no_grad():
        found = torch.cat([model(batch).softmax(-1) for batch in batches(side, size)])
        expected = torch.cat([stock(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in TEXTS])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Plain:
    """One text through the stock model, edited at its first token by hooks on modules with the type's names."""

    def __init__(self, kind: str, folder: Path, text: str) -> None:
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval().requires_grad_(False)
        self.tokens = framing_tokenizer()(text, return_tensors="pt")
        self.names = {"ffn": DOWN[kind], "attn": OUTPUT[kind]}

    def module(self, site: str, layer: int) -> Any:
        return self.model.base_model.get_submodule(self.names[site].format(layer))

    def activation(self, site: str, layer: int) -> Tensor:
        kept: list[Tensor] = []
        handle = self.module(site, layer).register_forward_pre_hook(lambda m, args: kept.append(args[0].reshape(-1)))
        width = self.module(site, layer).in_features
        with torch.no_grad():
            self.model(**self.tokens)
        handle.remove()
        return kept[0][:width].clone()

    def probability(self, edits: dict[tuple[str, int], Callable[[Tensor], Tensor]]) -> Tensor:
        """[classes]; each edit changes the first token's activation."""
        handles = []
        for (site, layer), edit in edits.items():

            def hook(module: Any, args: tuple, edit: Callable[[Tensor], Tensor] = edit) -> tuple:
                rows = args[0].reshape(-1, args[0].shape[-1])
                return (torch.cat([edit(rows[0])[None], rows[1:]]).reshape(args[0].shape),)

            handles.append(self.module(site, layer).register_forward_pre_hook(hook))
        try:
            return self.model(**self.tokens).logits[0].softmax(-1)
        finally:
            for handle in handles:
                handle.remove()

    def integrated(self, site: str, layer: int, target: int) -> Tensor:
        """Integrated gradients of a layer's neurons as written, [units]."""
        nodes, weights = nodes_and_weights("right", STEPS)
        origin = self.activation(site, layer)
        total = torch.zeros_like(origin)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            point = (node * origin).requires_grad_()
            with torch.enable_grad():
                value = self.probability({(site, layer): lambda row, point=point: point})[target]
                total += weight * origin * torch.autograd.grad(value, point)[0]
        return total


@pytest.mark.parametrize(("site", "side", "size"), [("both", "left", 4), ("ffn", "right", 1)])
def test_neurons_of_the_classification_token_equal_plain_loops(
    saved: tuple[str, Path], site: Any, side: str, size: int
) -> None:
    kind, folder = saved
    engine = loaded(folder).engine()
    assert isinstance(engine, NeuronModel)
    method = IntegratedGradients(n_steps=STEPS, site=site, top_k=1000)
    sites = ("ffn", "attn") if site == "both" else (site,)
    texts = (1, 3) if size == 4 else (2,)
    plain = {row: Plain(kind, folder, TEXTS[row]) for row in texts}
    for batch in batches(side, size):
        found = method.attribute(engine, batch, BUDGET)
        for place, row in enumerate(batch["index"].tolist()):
            if row not in plain:
                continue
            own, target = plain[row], int(found.target[place])  # type: ignore[index]
            for number, each in enumerate(sites):
                for layer in range(LAYERS):
                    expected = own.integrated(each, layer, target)
                    mine = found.layer[place] == layer
                    if found.site is not None:
                        mine &= found.site[place] == number
                    scores = torch.zeros_like(expected)
                    scores[found.unit[place][mine].long()] = found.score[place][mine]
                    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-6)


def test_neurons_switched_off_equal_plain_edited_forwards(saved: tuple[str, Path]) -> None:
    """One neuron after the other (ablation), and several of all layers at once, as faithfulness edits them."""
    kind, folder = saved
    engine = loaded(folder).engine()
    (batch,) = batches("left", 4)
    found = Ablation(top_k=5).attribute(engine, batch, BUDGET)
    own = Plain(kind, folder, TEXTS[1])
    with torch.no_grad():
        before = own.probability({})
        target = int(found.target[1])  # type: ignore[index]
        for layer, unit, score in zip(
            *(part[1].tolist() for part in (found.layer, found.unit, found.score)), strict=True
        ):
            row = torch.ones(own.module("ffn", layer).in_features)
            row[unit] = 0
            after = own.probability({("ffn", layer): lambda values, row=row: values * row})
            assert score == pytest.approx(float(before[target].log() - after[target].log()), rel=1e-3, abs=1e-6)
        states = engine.states(batch)
        halves = torch.arange(states.activation.shape[-1]) % 2

        def edit(layer: int, activation: Tensor) -> Tensor:
            return torch.stack([activation[:, 0], activation[:, 1] * halves], 1)

        scores = engine.score_edits(states, edit, 2).softmax(-1)
        expected = own.probability({("ffn", layer): lambda values: values * halves for layer in range(LAYERS)})
    torch.testing.assert_close(scores[1], torch.stack([before, expected]), rtol=1e-4, atol=1e-6)


def test_a_saved_classifier_is_the_same_again(saved: tuple[str, Path], tmp_path: Path) -> None:
    model = loaded(saved[1])
    model.save(tmp_path)
    (batch,) = batches("right", 4)
    with torch.no_grad():
        assert torch.equal(model(batch), loaded(tmp_path)(batch))
        stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        text = framing_tokenizer()(TEXTS[0], return_tensors="pt")
        torch.testing.assert_close(stock(**text).logits, model(batch)[:1], rtol=1e-4, atol=1e-5)


def test_parts_are_found_without_values(saved: tuple[str, Path]) -> None:
    """A plan, and a refusal before the fit, look at a small twin."""
    from twinlens.models.backbone import architecture_of

    lm = architecture_of(str(saved[1]), None, "linear", ["no", "yes"], 259, "sdpa", False)
    assert next(lm.parameters()).is_meta
    assert sum(1 for _ in lm.score.parameters()) >= 2
    require_encoder_parts(lm.base_model)


def test_what_an_encoder_cannot_serve_is_refused(tmp_path: Path) -> None:
    save_encoder("bert", tmp_path)
    with pytest.raises(UserError, match="the bert model is an encoder"):
        loaded(tmp_path).residual_engine()
    with pytest.raises(UserError, match=r"model\.head=mlp .* brings its own"):
        TextClassifier("local", ["no", "yes", "perhaps"], framing_tokenizer(), str(tmp_path), head="mlp")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path).config
    with pytest.raises(UserError, match="puts no classification token there"):
        require_classification_token(config, framing_tokenizer(frames=False), "model.path=DIR")
    save_encoder("modernbert", tmp_path / "mean", classifier_pooling="mean")
    with pytest.raises(UserError, match="does not read its first token"):
        loaded(tmp_path / "mean")
