"""Parts of one type of encoder that are served: each is compared with plain loops before it counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from tests.encoders import framing_tokenizer, save_encoder
from twinlens.attribution.gradients.blocks import example_blocks
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.neuron.ablation import Ablation
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.data.collate import PaddingCollator
from twinlens.models.linear_layers import linear_layers
from twinlens.models.module import TextClassifier

BUDGET, STEPS, LAYERS = 2**30, 2, 2
TEXTS = ["a cat", "no dog was there", "x", "yes, it was"]
LABELS = torch.tensor([0, 1, 1, 0])
BATCHES = (("right", 4), ("left", 4), ("right", 1))
"""Padding side and texts of a batch."""
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


@dataclass(frozen=True)
class Encoder:
    """A tiny classifier of a type, as transformers has saved it.

    Attributes:
        kind: type.
        folder: of the checkpoint.
    """

    kind: str
    folder: Path

    def model(self) -> TextClassifier:
        """As the run's own model of a trained classifier."""
        found = TextClassifier("local", ["no", "yes"], framing_tokenizer(), str(self.folder), as_it_is=True)
        return found.eval().requires_grad_(False)

    def stock(self) -> Any:
        """Of transformers."""
        found: Any = AutoModelForSequenceClassification.from_pretrained(self.folder)
        return found.eval().requires_grad_(False)


def batches(side: str, size: int) -> list[dict[str, Tensor]]:
    """The texts, padded on a side."""
    tokenizer, collate = framing_tokenizer(), PaddingCollator(0, side)
    rows = [{"index": row, "label": 0, "input_ids": tokenizer(text)["input_ids"]} for row, text in enumerate(TEXTS)]
    return [collate(rows[start : start + size]) for start in range(0, len(rows), size)]


class Plain:
    """One text through the stock model, edited at its first token by hooks on modules with the type's names."""

    def __init__(self, encoder: Encoder, text: str) -> None:
        self.model, kind = encoder.stock(), encoder.kind
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


def probabilities(encoder: Encoder) -> str:
    """The classifier's own, whatever the padding."""
    model, stock, tokenizer = encoder.model(), encoder.stock(), framing_tokenizer()
    with torch.no_grad():
        expected = torch.cat([stock(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in TEXTS])
        for side, size in BATCHES:
            found = torch.cat([model(batch).softmax(-1) for batch in batches(side, size)])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    return "yes"


def ffn(encoder: Encoder) -> str:
    """FFN neurons: integrated gradients, each switched off alone, and many at once."""
    _integrated(encoder, "ffn")
    _switched_off(encoder)
    return "yes"


def attention(encoder: Encoder) -> str:
    """Attention neurons: integrated gradients."""
    _integrated(encoder, "attn")
    return "yes"


def _integrated(encoder: Encoder, site: Any) -> None:
    engine, method = encoder.model().engine(), IntegratedGradients(n_steps=STEPS, site=site, top_k=1000)
    own = Plain(encoder, TEXTS[1])
    expected: dict[tuple[int, int], Tensor] = {}
    for side, size in BATCHES:
        batch = next(batch for batch in batches(side, size) if 1 in batch["index"].tolist())
        found, place = method.attribute(engine, batch, BUDGET), batch["index"].tolist().index(1)
        assert found.target is not None
        for layer in range(LAYERS):
            key = layer, int(found.target[place])
            if key not in expected:
                expected[key] = own.integrated(site, *key)
            mine = found.layer[place] == layer
            scores = torch.zeros_like(expected[key])
            scores[found.unit[place][mine].long()] = found.score[place][mine]
            torch.testing.assert_close(scores, expected[key], rtol=1e-3, atol=1e-6)


def _switched_off(encoder: Encoder) -> None:
    engine = encoder.model().engine()
    (batch,) = batches("left", 4)
    found, own = Ablation(top_k=5).attribute(engine, batch, BUDGET), Plain(encoder, TEXTS[1])
    assert found.target is not None
    target = int(found.target[1])
    with torch.no_grad():
        before = own.probability({})
        entries = (part[1].tolist() for part in (found.layer, found.unit, found.score))
        for layer, unit, score in zip(*entries, strict=True):
            row = torch.ones(own.module("ffn", layer).in_features)
            row[unit] = 0
            after = own.probability({("ffn", layer): lambda values, row=row: values * row})
            rise = float(before[target].log() - after[target].log())
            assert abs(score - rise) < 1e-3 * abs(rise) + 1e-6, "a neuron switched off"
        states = engine.states(batch)
        halves = torch.arange(states.activation.shape[-1]) % 2

        def edit(layer: int, activation: Tensor) -> Tensor:
            return torch.stack([activation[:, 0], activation[:, 1] * halves], 1)

        scores = engine.score_edits(states, edit, 2).softmax(-1)
        expected = own.probability({("ffn", layer): lambda values: values * halves for layer in range(LAYERS)})
    torch.testing.assert_close(scores[1], torch.stack([before, expected]), rtol=1e-4, atol=1e-6)


def gradients(encoder: Encoder) -> str:
    """Dot products of every two texts' gradients over all linear layers."""
    model, stock, tokenizer = encoder.model(), encoder.stock(), framing_tokenizer()
    layers = linear_layers(model.lm, model.head, "all")
    weights = [stock.get_submodule(layer.name).weight.requires_grad_(True) for layer in layers]
    rows = []
    for text, label in zip(TEXTS, LABELS, strict=True):
        with torch.enable_grad():
            loss = cross_entropy(stock(**tokenizer(text, return_tensors="pt")).logits, label[None])
            rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]))
    expected = torch.stack(rows).double() @ torch.stack(rows).double().T
    for side, size in BATCHES:
        for batch in batches(side, size):
            found: dict[int, Tensor] = {}
            index = batch["index"]
            with recording(layers) as tape:
                scores = model(batch)

                def keep(number: int, inputs: Tensor, deltas: Tensor, n: int = len(index), found: Any = found) -> None:
                    found[number] = example_blocks(inputs, deltas, n).flatten(1).double()

                tape.gradients(scores, logit_cotangents(scores.detach(), LABELS[index]), keep)
            joined = torch.cat([found[number] for number in sorted(found)], 1)
            torch.testing.assert_close(joined @ joined.T, expected[index][:, index], rtol=1e-3, atol=1e-6)
    return "yes"


def saved(encoder: Encoder) -> str:
    """Saved and loaded again, here and by transformers."""
    model = encoder.model()
    (batch,) = batches("right", 4)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save(Path(folder))
        again = Encoder(encoder.kind, Path(folder))
        assert torch.equal(model(batch), again.model()(batch)), "logits of a loaded classifier"
        logits = again.stock()(**framing_tokenizer()(TEXTS[0], return_tensors="pt")).logits
        torch.testing.assert_close(logits, model(batch)[:1], rtol=1e-4, atol=1e-5)
    return "yes"


CELLS: dict[str, Callable[[Encoder], str]] = {
    "own probabilities": probabilities,
    "FFN": ffn,
    "attention": attention,
    "gradients": gradients,
    "saved and loaded": saved,
}
"""Column of docs/models.md → what is tried."""


def rows_of_encoders(kinds: list[str], tried: Callable[[Callable[[], str]], str]) -> dict[str, list[str]]:
    """What is served of each type, in the order of `CELLS`.

    Args:
        tried: what a cell says, or why it is refused.
    """
    found = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            encoder = Encoder(kind, Path(folder))
            save_encoder(kind, encoder.folder)
            found[kind] = [tried(lambda cell=cell, encoder=encoder: cell(encoder)) for cell in CELLS.values()]
    return found
