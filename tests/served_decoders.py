"""Parts of one type of decoder that are served: each is compared with plain loops before it counts."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, DynamicCache

from tests.decoders import tiny_decoder
from tests.oracles_decoders import (
    direction,
    gradient_products,
    increases,
    logits_of,
    path_integrals,
    scaled_scores,
    seen_in,
    statistic,
)
from tests.oracles_experts import plain_downs
from twinlens.attribution.gradients.blocks import example_blocks
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.neuron.increase import Units, dense_increases
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.path import Path as Line
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.readout import readout_of
from twinlens.attribution.readouts import TokenReadout
from twinlens.models.adapters import save_weights
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.backbone import load_classifier
from twinlens.models.forwards import answer_positions, at_positions, backbone_arguments
from twinlens.models.last_token import LastTokenEngine
from twinlens.models.linear_layers import linear_layers
from twinlens.models.padding import aligned, moved_by_padding
from twinlens.models.readouts import readout_change
from twinlens.models.residual import ResidualEngine
from twinlens.models.residual_identities import build_residual

BUDGET = 1 << 30
STEPS = 2
LENGTHS = (7, 4, 10)
"""Tokens of the texts; windows of the tiny models are shorter than the longest."""
NATS = 1e-2
"""Log-probabilities near 0 are known to single precision of this much."""
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Subject:
    """A tiny language model with twinlens's engines over it.

    Attributes:
        lm: of transformers.
        readout: from its final hidden state to its own logits.
        engine, residual: None where only gradients are asked for.
    """

    lm: Any
    readout: nn.Module
    engine: LastTokenEngine | None = None
    residual: ResidualEngine | None = None

    @classmethod
    def plain(cls, name: str) -> Subject:
        """Without engines."""
        lm = tiny_decoder(name)
        assert lm is not None
        head = lm.get_output_embeddings()
        moved_by_padding(lm.base_model)
        return cls(lm, readout_change(lm, head, name).of(head))

    def texts(self) -> list[Tensor]:
        """Token ids without padding, [tokens] each."""
        generator = torch.Generator().manual_seed(5)
        return [torch.randint(3, 90, (length,), generator=generator) for length in LENGTHS]

    def batches(self) -> list[tuple[list[int], Batch]]:
        """The texts with padding on either side, and one by itself, each with their numbers."""
        texts = self.texts()
        whole = [([0, 1, 2], _padded(texts, left)) for left in (False, True)]
        return [*whole, ([1], _padded(texts[1:2], False))]


def subject_of(name: str) -> Subject:
    """The engines over a type's tiny model.

    Raises:
        UserError: the type's neurons are refused.
    """
    plain = Subject.plain(name)
    anatomy = build_anatomy(plain.lm.base_model)
    engine = LastTokenEngine(anatomy, plain.readout, TokenReadout.name)
    return Subject(plain.lm, plain.readout, engine, build_residual(anatomy, plain.readout, vocabulary=True))


def rows(subject: Subject) -> str:
    """How variant rows run; edited ones are compared with hooks on full forwards."""
    engine = subject.engine
    assert engine is not None
    factors = torch.tensor([1.0, 0.5, 0.0])
    downs = plain_downs(engine.anatomy)
    outputs = [engine.anatomy.attention_output(block) for block in engine.anatomy.blocks]
    expected = torch.stack([scaled_scores(subject.lm, downs, outputs, text, factors) for text in subject.texts()])
    for numbers, batch in subject.batches():
        found = engine.score_edits(
            engine.states(batch), lambda layer, rows: rows * factors[:, None], 3, lambda layer, rows: rows * 0.5
        )
        _close(found, expected[numbers], "scores of edited rows")
    return "full forwards" if engine.rows.axes is None else "replayed"


def ffn(subject: Subject) -> str:
    """Integrated gradients and log-probability increases of FFN neurons, and of which experts they are."""
    assert subject.engine is not None
    anatomy = subject.engine.anatomy
    downs = plain_downs(anatomy)
    _compare_paths(subject, downs, "ffn")
    _compare_increases(subject, ffn_units, lambda text: _ffn_increases(subject, downs, text), positions=False)
    if anatomy.experts is None:
        return "yes"
    return "experts, shared ones too" if anatomy.experts.shared else "experts"


def attention(subject: Subject) -> str:
    """The same of attention neurons."""
    engine, residual = subject.engine, subject.residual
    assert engine is not None
    assert residual is not None
    anatomy = engine.anatomy
    outputs = [anatomy.attention_output(block) for block in anatomy.blocks]
    _compare_paths(subject, outputs, "attn")
    residual.states(subject.batches()[0][1])  # refused where weights times values are something else
    _compare_increases(subject, attention_units, lambda text: _attention_increases(subject, outputs, text), True)
    return "yes"


def _compare_increases(
    subject: Subject, units_of: Callable[..., Units], expected_of: Callable[[Tensor], Tensor], positions: bool
) -> None:
    """Increases of a site's neurons in every batch with those of a loop over each text, [layers, units, positions].

    Args:
        positions: whether neurons stand at every token.
    """
    residual = subject.residual
    assert residual is not None
    expected = [expected_of(text) for text in subject.texts()]
    for numbers, batch in subject.batches():
        states = residual.states(batch, attention=positions)
        readout = readout_of(residual, states, states.scores.argmax(-1))
        found = torch.stack([part for _, part in dense_increases(readout, units_of(residual, states), BUDGET)], 1)
        tokens = aligned(subject.lm.base_model, batch)["attention_mask"].bool()
        for row, number in enumerate(numbers):
            own = found[row][..., tokens[row]] if positions else found[row]
            _close(own, expected[number], f"increases by {units_of.__name__}", NATS)


def _ffn_increases(subject: Subject, downs: list[nn.Module], text: Tensor) -> Tensor:
    """By the model's own activations and value rows, [layers, units, 1]."""
    assert subject.engine is not None
    anatomy = subject.engine.anatomy
    writes = [anatomy.mlp_write(layer) for layer in range(anatomy.n_layers)]
    seen = seen_in(subject.lm, [*downs, *(write.part for write in writes), *anatomy.blocks], text)
    n = anatomy.n_layers
    final, target = seen[-1][1], int(logits_of(subject.lm, text).argmax())
    layers = []
    for layer, write in enumerate(writes):
        (coefficient, raw), (_, written), (_, leaving) = seen[layer], seen[n + layer], seen[2 * n + layer]
        values = anatomy.value_rows(layer) if anatomy.experts is None else downs[layer].rows()
        rows = coefficient[:, None] * values
        vectors = write.scale * direction(write.norm, rows) / statistic(write.norm, raw)
        base = leaving - write.scale * written
        layers.append(increases(vectors, base, anatomy.last_norm, final, _behind(subject), target))
    return torch.stack(layers)[..., None]


def _attention_increases(subject: Subject, outputs: list[nn.Module], text: Tensor) -> Tensor:
    """By the model's own attention weights and cached values, [layers, units, tokens]."""
    assert subject.residual is not None
    anatomy, lm = subject.residual.anatomy, subject.lm
    usual = lm.config._attn_implementation
    lm.set_attn_implementation("eager")
    try:
        # a cache made from the config would crop sliding windows
        given = lm(input_ids=text[None], output_attentions=True, past_key_values=DynamicCache(), use_cache=True)
    finally:
        lm.set_attn_implementation(usual)
    seen = seen_in(lm, [*outputs, *anatomy.blocks], text)
    final, target = seen[-1][1], int(logits_of(lm, text).argmax())
    layers = []
    for layer in range(anatomy.n_layers):
        values = given.past_key_values.layers[layer].values[0]
        weights = given.attentions[layer][0, :, -1]
        values = values.repeat_interleave(len(weights) // len(values), 0)[:, -weights.shape[1] :]
        coefficients = (weights[..., None] * values).transpose(1, 2).flatten(0, 1)
        write, raw = anatomy.attention_write(layer), seen[layer][1]
        own: Any = outputs[layer]
        unit = own(torch.eye(len(coefficients))) - own(torch.zeros(1, len(coefficients)))
        vectors = write.scale * direction(write.norm, coefficients[..., None] * unit[:, None])
        vectors = vectors / statistic(write.norm, raw)
        entering = seen[anatomy.n_layers + layer][0]
        layers.append(increases(vectors, entering, anatomy.last_norm, final, _behind(subject), target))
    return torch.stack(layers)


def gradients(subject: Subject) -> str:
    """Dot products of every two texts' gradients over all linear layers, matrices of experts among them."""
    lm = subject.lm
    layers = linear_layers(lm, lm.get_output_embeddings(), "all")
    labels = torch.tensor([5, 17, 60])
    weights: list[Any] = [layer.module.weight for layer in layers if not layer.routed]
    weights += {id(p): p for layer in layers if layer.routed for p in layer.module.parameters()}.values()
    expected = gradient_products(lm, weights, subject.texts(), labels)
    for numbers, batch in subject.batches():
        found: dict[int, Tensor] = {}
        with recording(layers) as tape:
            given = aligned(lm.base_model, batch)
            hidden = lm.base_model(**backbone_arguments(lm.base_model, given), use_cache=False).last_hidden_state
            scores = subject.readout(at_positions(hidden, answer_positions(given["attention_mask"])))

            def keep(number: int, inputs: Tensor, deltas: Tensor, n: int = len(numbers), found: Any = found) -> None:
                found[number] = example_blocks(inputs, deltas, n).flatten(1).double()

            tape.gradients(scores, logit_cotangents(scores.detach(), labels[numbers]), keep)
        joined = torch.cat([found[number] for number in sorted(found)], 1)
        _close(joined @ joined.T, expected[numbers][:, numbers], "dot products of gradients")
    return "yes" if any(layer.routed for layer in layers) or not _has_experts(lm) else "yes, but for experts"


def _has_experts(lm: Any) -> bool:
    """Whether there are experts in one block of numbers, whoever made them."""
    owners = [part for part in lm.modules() for p in part.parameters(recurse=False) if p.dim() > 2]
    return any("Expert" in type(part).__name__ for part in owners)


@torch.no_grad()
def saved(name: str) -> str:
    """A classifier on the type's language model, saved and loaded again."""
    lm = tiny_decoder(name)
    assert lm is not None
    if lm.base_model is lm:
        return "no: no decoder by itself"
    ids = torch.arange(3, 9)[None]
    hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    with tempfile.TemporaryDirectory() as folder:
        lm.save_pretrained(folder)
        same: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        if not torch.allclose(
            same.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -1], hidden, atol=1e-3
        ):
            return "no: transformers itself loads other numbers"
        first = _classifier(folder)
        _close(first.score(first.base_model(input_ids=ids).last_hidden_state[:, -1]), first.score(hidden), "logits")
        save_weights(first, Path(folder) / "again")
        again = _classifier(str(Path(folder) / "again"))
        _close(again(input_ids=ids).logits, first.score(hidden), "logits of the saved classifier")
        decoder = AutoModel.from_pretrained(Path(folder) / "again").eval()
        alone = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    said = "own head" if type(first).__module__.startswith("twinlens") else "yes"
    return said if torch.allclose(alone, hidden, rtol=1e-3, atol=1e-3) else f"{said}, not its decoder alone"


def _classifier(folder: str) -> Any:
    tokenizer: Any = _Padding()
    classes = ["a", "b", "c"]
    lm, _ = load_classifier(folder, None, None, "linear", classes, tokenizer, 0, "eager", False)
    return lm.eval()


class _Padding:
    """As much of a tokenizer as loading asks for."""

    pad_token_id = 0


def _compare_paths(subject: Subject, projections: list[nn.Module], site: Any) -> None:
    assert subject.engine is not None
    targets = [int(logits_of(subject.lm, text).argmax()) for text in subject.texts()]
    pairs = zip(subject.texts(), targets, strict=True)
    expected = [path_integrals(subject.lm, projections, text, target, STEPS) for text, target in pairs]
    line = Line("activation", "last", "right", site=site)
    for numbers, batch in subject.batches():
        found = integrated_gradients(subject.engine, batch, line, STEPS, BUDGET)
        assert found.target.tolist() == [targets[number] for number in numbers], "targets"
        for row, number in enumerate(numbers):
            _close(found.scores[row], expected[number], f"integrated gradients ({site})")


def _behind(subject: Subject) -> Callable[[Tensor], Tensor]:
    """From what the final norm writes to logits."""
    assert subject.engine is not None
    projection: Any = copy.deepcopy(subject.engine.anatomy.last_projection)
    readout = copy.deepcopy(subject.readout).double()
    return readout if projection is None else lambda features: readout(projection.double()(features))


def _padded(texts: list[Tensor], left: bool) -> Batch:
    width = max(len(text) for text in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        columns = slice(width - len(text), width) if left else slice(0, len(text))
        ids[row, columns], mask[row, columns] = text, 1
    return {"index": torch.arange(len(texts)), "input_ids": ids, "attention_mask": mask}


def _close(found: Tensor, expected: Tensor, what: str, least: float = 1e-12) -> None:
    """Equal within single precision, relative to the largest entry, or to `least` where all are smaller."""
    if not bool(expected.isfinite().all()):
        raise OverflowError(what)
    assert found.shape == expected.shape, f"{what}: shapes {tuple(found.shape)} and {tuple(expected.shape)}"
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=least))
    assert error < 1e-3, f"{what} differ by {error:.1e} of the largest"


CELLS: dict[str, Callable[[Subject], str]] = {
    "rows": rows,
    "FFN": ffn,
    "attention": attention,
    "gradients": gradients,
}
"""Columns of the table and what fills them."""
