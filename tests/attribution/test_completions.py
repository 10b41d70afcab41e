"""Documents, completions and their gradients on a real model, against plain autograd and full forwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from twinlens.attribution.completions import Completions, explained_losses
from twinlens.attribution.evaluation.completion_answers import completion_answers
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse
from twinlens.attribution.neuron.completion_scores import completion_scores
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.interventions import zeroed_completion_metrics
from twinlens.attribution.neuron.neuron_score import NeuronScore
from twinlens.attribution.targets import Targets
from twinlens.callbacks.predict.generate import NO_TOKEN, greedy
from twinlens.data.document_batches import DocumentCollator
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel
from twinlens.models.linear_layers import linear_layers

BUDGET = 2**30
WINDOW = 10
PROMPTS = ["The capital of France is", "In most years the month after May is", "Grass is", "The number after two is"]
ENDINGS = [" Paris.", " June.", " green and", " three."]
FOILS = [" Rome.", " July.", " red", " four or five."]
PATTERNS = "*.mlp.*,*.self_attn.q_proj"


@pytest.fixture(scope="module", params=["facts", pytest.param("stories", marks=pytest.mark.long)])
def model(request: pytest.FixtureRequest, repository: Path) -> Any:
    """The project's own model, and in the long series one that was trained by others."""
    path = str(repository / "models" / "facts")
    if request.param == "stories":
        path = str(request.getfixturevalue("shared_data") / "stories260k" / "hf")
    return LanguageModel(request.param, load_tokenizer(path), path=path).eval().requires_grad_(False)


def ids_of(model: Any, texts: Sequence[str], bos: bool = False) -> list[list[int]]:
    start = [model.tokenizer.bos_token_id] if bos else []
    return [start + model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def documents(model: Any) -> list[dict[str, Any]]:
    """Five, of one to three windows, the last one with a mask."""
    texts = ["Grass is green.", "The capital of France is Paris and that of Italy is Rome.", "June follows May.",
             "One, two, three, four, five, six, seven, eight, nine, ten.", "The month after May is June."]  # fmt: skip
    found = []
    for number, ids in enumerate(ids_of(model, texts)):
        windows = [[1, *ids[start : start + WINDOW - 1]] for start in range(0, len(ids), WINDOW - 1)]
        counts = [[False, *[True] * (len(window) - 1)] for window in windows]
        flat = [token for window in windows for token in window]
        marked = [count for window in counts for count in window]
        if number == 4:
            marked = [count and place > 3 for place, count in enumerate(marked)]
        found.append({"index": number, "label": -1, "input_ids": flat, "counts": marked})
    assert max(len(row["input_ids"]) for row in found) > 2 * WINDOW
    return found


def log_probs(model: Any, ids: Sequence[int]) -> Tensor:
    """Of every token behind the first, by the model's own forward over one text."""
    tokens = torch.tensor([list(ids)])
    return model.lm(tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]


def plain_loss(model: Any, row: dict[str, Any]) -> Tensor:
    """A document's loss window by window."""
    losses = []
    for start in range(0, len(row["input_ids"]), WINDOW):
        counts = torch.tensor(row["counts"][start : start + WINDOW][1:])
        losses.append(-(log_probs(model, row["input_ids"][start : start + WINDOW]) * counts).sum())
    return torch.stack(losses).sum()


def prompts(model: Any, side: str, rows: Sequence[int]) -> dict[str, Tensor]:
    found = ids_of(model, PROMPTS, bos=True)
    return DocumentCollator(0, side, 512)([{"index": row, "label": -1, "input_ids": found[row]} for row in rows])


def completions(model: Any, foils: bool) -> Completions:
    return Completions(ids_of(model, ENDINGS), ids_of(model, FOILS) if foils else None)


def plain_phi(model: Any, row: int, foils: bool) -> Tensor:
    """Σ log p over the completion, less that of the foil."""
    prompt, asked = ids_of(model, PROMPTS, bos=True)[row], completions(model, foils)
    sides = [log_probs(model, prompt + list(ids[row]))[len(prompt) - 1 :].sum() for _, ids in asked.sides]
    return sides[0] - sides[1] if foils else sides[0]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("size", [1, 8])
def test_losses_are_those_of_every_window_by_itself(model: Any, side: str, size: int) -> None:
    rows = documents(model)
    found = []
    for start in range(0, len(rows), size):
        batch = DocumentCollator(0, side, WINDOW)(rows[start : start + size])
        losses, predicts = model.token_losses(batch)
        assert predicts.sum(1).tolist() == [sum(row["counts"]) for row in rows[start : start + size]]
        found += losses.sum(1).tolist()
    expected = [float(plain_loss(model, row)) for row in rows]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("foils", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_completions_are_summed_as_a_plain_loop_does(model: Any, side: str, foils: bool) -> None:
    asked, expected = completions(model, foils), [float(plain_phi(model, row, foils)) for row in range(4)]
    for rows in ([0, 1, 2, 3], [2], [3]):
        own, batch = asked.at(torch.tensor(rows)), prompts(model, side, rows)
        found = -explained_losses(model, own, own.behind(batch))
        torch.testing.assert_close(found, torch.tensor([expected[row] for row in rows]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "size", "foils"),
    [
        ("right", 1, True),
        ("left", 8, True),
        ("left", 1, False),
        ("right", 8, False),
        pytest.param("right", 1, False, marks=pytest.mark.long),
        pytest.param("left", 8, False, marks=pytest.mark.long),
        pytest.param("left", 1, True, marks=pytest.mark.long),
        pytest.param("right", 8, True, marks=pytest.mark.long),
    ],
)
def test_gradients_equal_plain_autograd(model: Any, side: str, size: int, foils: bool) -> None:
    """⟨∇φ, ∇(document's loss)⟩ of all layers that a pattern names, whatever the batches."""
    layers, rows, asked = linear_layers(model.lm, model.head, PATTERNS), documents(model), completions(model, foils)
    held = HeldTests(layers, [Inverse()] * len(layers), 4, len(rows), own=True, workspace=2**20)
    for start in range(0, 4, size):
        part = list(range(start, min(start + size, 4)))
        own = asked.at(torch.tensor(part))
        with recording(layers) as tape:
            losses = explained_losses(model, own, own.behind(prompts(model, side, part)))
            held.add(tape, losses, Targets(torch.zeros(len(part)), completions=own))
    found, lengths = [], []
    for start in range(0, len(rows), size):
        batch = DocumentCollator(0, side, WINDOW)(rows[start : start + size])
        with recording(layers) as tape:
            scores, itself = held.scores(tape, model.token_losses(batch)[0].sum(1), None)
        found.append(scores)
        lengths.append(itself)
    weights = [layer.module.weight.requires_grad_(True) for layer in layers]
    try:
        tests, train = (
            [torch.cat([gradient.flatten() for gradient in torch.autograd.grad(of(row), weights)]).double()
             for row in some]
            for of, some in ((lambda row: -plain_phi(model, row, foils), range(4)),
                             (lambda row: plain_loss(model, row), rows))
        )  # fmt: skip
    finally:
        model.requires_grad_(False)
    expected = torch.stack(tests) @ torch.stack(train).T
    assert (torch.cat(found, 1) - expected).abs().max() < 1e-5 * expected.abs().max()
    norms = torch.stack(train).square().sum(1)
    assert (torch.cat(lengths) - norms).abs().max() < 1e-5 * norms.max()


def plain_ig(model: Any, ids: list[int], target: int, layer: int, steps: int) -> Tensor:
    """IG of log p(target) at the last token by full forwards, [neurons]."""
    down = model.lm.model.layers[layer].mlp.down_proj
    seen: dict[str, Tensor] = {}

    def forward(scale: float) -> Tensor:
        def scaled(module: Any, args: Any) -> Any:
            activation = args[0].clone()
            seen["own"] = activation[0, -1].detach().clone()
            seen["point"] = (scale * seen["own"]).requires_grad_(True)
            activation[0, -1] = seen["point"]
            return (activation,)

        handle = down.register_forward_pre_hook(scaled)
        try:
            return model.lm(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[target]
        finally:
            handle.remove()

    total = torch.zeros(down.in_features)
    for step in range(1, steps + 1):
        total += torch.autograd.grad(forward(step / steps), seen["point"])[0] / steps
    return seen["own"] * total


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.long)])
def test_ig_at_every_token_equals_full_forwards(model: Any, side: str) -> None:
    """All neurons of two layers, at every token of completion and foil; the sum is the list's score."""
    asked, steps = completions(model, foils=True), 3
    method = IntegratedGradients(n_steps=steps, top_k=10_000)
    width = int(asked.lengths.max())
    found = completion_scores(method, model.engine(), prompts(model, side, range(4)), asked, BUDGET, width)
    given = ids_of(model, PROMPTS, bos=True)
    assert found.token is not None
    torch.testing.assert_close(found.token.nansum(-1), found.score, rtol=1e-4, atol=1e-5)
    for row in (1, 3):
        expected: dict[int, list[Tensor]] = {0: [], 3: []}
        for layer, shares in expected.items():
            for sign, side_tokens in asked.sides:
                tokens = list(side_tokens[row])
                shares += [
                    sign * plain_ig(model, given[row] + tokens[:number], token, layer, steps)
                    for number, token in enumerate(tokens)
                ]
            own = found.layer[row] == layer
            dense = torch.full((len(shares[0]), width), torch.nan)
            dense[found.unit[row][own].long()] = found.token[row][own]
            torch.testing.assert_close(dense[:, : len(shares)], torch.stack(shares, 1), rtol=1e-3, atol=1e-5)
            assert bool(dense[:, len(shares) :].isnan().all())
        probability = float(plain_phi(model, row, foils=False).exp())
        assert found.target_prob is not None
        assert float(found.target_prob[row]) == pytest.approx(probability, rel=1e-4)


def test_increases_at_every_token_are_those_of_its_own_prompt(model: Any) -> None:
    """A score of the second paper summed over tokens equals the method asked for one next token after the other."""
    asked = completions(model, foils=False)
    method = NeuronScore("logprob_increase", top_k=10_000)
    engine = model.residual_engine()
    batch = prompts(model, "right", range(4))
    found = completion_scores(method, engine, batch, asked, BUDGET, int(asked.lengths.max()))
    row, total = 3, torch.zeros(engine.n_layers, engine.n_neurons)
    for step in asked.steps(batch):
        place = (step.rows == row).nonzero()[:, 0].tolist()
        if place:
            one = method.attribute(engine, {name: tensor[place] for name, tensor in step.batch.items()}, BUDGET)
            listed = one.layer[0] >= 0
            total[one.layer[0, listed].long(), one.unit[0, listed].long()] += one.score[0, listed]
    summed = torch.zeros_like(total)
    summed[found.layer[row].long(), found.unit[row].long()] = found.score[row]
    torch.testing.assert_close(summed, total, rtol=1e-4, atol=1e-5)


def test_faithfulness_asks_every_token(model: Any) -> None:
    """Switching nothing off changes nothing; probabilities are geometric means over the completion's tokens."""
    asked = completions(model, foils=True)
    engine, batch = model.engine(), prompts(model, "right", range(4))
    none = {"empty": (torch.full((4, 2), -1), torch.full((4, 2), -1))}
    answers = completion_answers(Faithfulness([1], [2]), engine, batch, asked, none, BUDGET)
    assert bool(answers["empty|comprehensiveness|2"].all())
    expected = [float((plain_phi(model, row, foils=False) / len(asked.tokens[row])).exp()) for row in range(4)]
    torch.testing.assert_close(answers["probability"], torch.tensor(expected), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(answers["empty|comprehensiveness|2|probability"], answers["probability"])
    assert not bool(answers["empty|sufficiency|1"].all())


def test_interventions_read_the_whole_completion(model: Any) -> None:
    """Zeroing parameters is zeroing coefficients everywhere: one forward over prompt and completion says the same."""
    asked, engine = completions(model, foils=False), model.residual_engine()
    ffn = torch.zeros(4, engine.n_layers, engine.n_neurons, dtype=torch.bool)
    ffn[:, 2, ::3] = True
    found = zeroed_completion_metrics(engine, prompts(model, "right", range(4)), asked, ffn, None, BUDGET)
    down = model.lm.model.layers[2].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda module, args: (args[0] * ~ffn[0, 2],))
    try:
        expected = torch.stack([plain_phi(model, row, foils=False) for row in range(4)])
    finally:
        handle.remove()
    torch.testing.assert_close(found.log_prob, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.prob, (expected / asked.lengths).exp(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_generated_tokens_are_the_models_own_choice(model: Any, side: str) -> None:
    found = greedy(model, prompts(model, side, range(4)), n_tokens=6)
    for row, given in enumerate(ids_of(model, PROMPTS, bos=True)):
        expected = model.lm.generate(
            torch.tensor([given]), max_new_tokens=6, do_sample=False, pad_token_id=0,
            attention_mask=torch.ones(1, len(given), dtype=torch.int64),
        )[0, len(given) :].tolist()  # fmt: skip
        said = [token for token in found[row].tolist() if token != NO_TOKEN]
        assert said == [token for token in expected if token != model.tokenizer.eos_token_id]
