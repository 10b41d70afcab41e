"""Scores from whole gradients equal inner products of per-example autograd, pair by pair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.attribution.gradients.test_fisher import LAYERS, bases_of
from tests.combinations import half_long
from tests.families import random_batch
from tests.oracles_gradients import fisher_of_layers, layer_gradients, whole_scores
from twinlens.attribution.gradients.fisher import absolute_damping
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse, cosines
from twinlens.attribution.targets import Targets

TEST_LENGTHS, TRAIN_LENGTHS = [6, 4, 2], [7, 3, 5, 6, 4]
Batch = dict[str, Tensor]


def scored(
    model: Case,
    inverses: list[Inverse],
    test: list[Batch],
    train: list[Batch],
    own: bool = True,
    n_train: int = 1,
    workspace: int = 2**20,
) -> tuple[HeldTests, Tensor, Tensor | None]:
    """Scores and, if asked for, self-influence of train batches against all tests.

    Args:
        n_train: what the tests are told, by which they choose their form.
    """
    n_tests = sum(len(batch["labels"]) for batch in test)
    held = HeldTests(model.layers, inverses, n_tests, n_train, own, workspace)
    for batch in test:
        with recording(model.layers) as tape:
            held.add(tape, model.scores(batch), Targets(batch["labels"]))
    parts = []
    for batch in train:
        with recording(model.layers) as tape:
            parts.append(held.scores(tape, model.scores(batch), batch["labels"]))
    itself = [part[1] for part in parts if part[1] is not None]
    assert len(itself) == own * len(parts)
    return held, torch.cat([part[0] for part in parts], 1), torch.cat(itself) if own else None


def rows(batch: Batch, chosen: list[int]) -> Batch:
    return {name: values[chosen] for name, values in batch.items()}


@pytest.mark.parametrize(("family", "padding"), half_long(FAMILIES, ["right", "left"]))
def test_inner_products_and_cosines_equal_the_oracle(family: str, padding: str) -> None:
    model = case(family)
    test, train = random_batch(TEST_LENGTHS, padding, seed=5), random_batch(TRAIN_LENGTHS, padding)
    gradients = [layer_gradients(model.layers, model.loss, split) for split in (test, train)]
    held, found, own = scored(model, [Inverse()] * len(model.layers), [test], [train])
    torch.testing.assert_close(found, whole_scores(*gradients), rtol=1e-8, atol=1e-8)
    squared = sum(layer.square().sum((1, 2)) for layer in gradients[1])
    assert own is not None
    torch.testing.assert_close(own, squared, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(cosines(found, held.own, own), whole_scores(*gradients, cosine=True))


@pytest.mark.parametrize(("family", "corrected"), half_long(FAMILIES, [True, False]))
def test_influence_equals_solves_with_the_matrices_written_out(family: str, corrected: bool) -> None:
    model = case(family, LAYERS.replace("*.1.fc1,", ""))
    test, train = random_batch(TEST_LENGTHS, seed=5), random_batch(TRAIN_LENGTHS)
    fisher = fisher_of_layers(model.layers, model.scores, train, True, corrected)
    damped = [f + 0.1 * f.trace() / len(f) * torch.eye(len(f)).double() for f in fisher]
    gradients = [layer_gradients(model.layers, model.loss, split) for split in (test, train)]
    bases = bases_of(model, train, "expectation", corrected)
    inverses = [Inverse(basis, absolute_damping(basis, 0.1, "layer")) for basis in bases]
    held, found, own = scored(model, inverses, [test], [train])
    # norms in float32 round each backward differently, whatever the model's type
    tolerance = 1e-5 if family in ("llama", "qwen2") else 1e-8
    expected = whole_scores(*gradients, damped=damped)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    itself = whole_scores(gradients[1], gradients[1], damped=damped).diagonal()
    torch.testing.assert_close(own, itself, rtol=tolerance, atol=tolerance)
    tests_themselves = whole_scores(gradients[0], gradients[0], damped=damped).diagonal()
    torch.testing.assert_close(held.own, tests_themselves, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_train", [1, 10**6], ids=["train_rotated", "tests_rotated_back"])
def test_solved_tests_are_held_in_the_form_that_takes_fewer_operations(n_train: int) -> None:
    model = case("gpt2")
    test, train = random_batch(TEST_LENGTHS, seed=5), random_batch(TRAIN_LENGTHS)
    bases = bases_of(model, train, "expectation", corrected=True)
    inverses = [Inverse(basis, absolute_damping(basis, 0.1, "layer")) for basis in bases]
    whole, expected, _ = scored(model, inverses, [test], [train])
    parts = [rows(test, [0, 1]), rows(test, [2])], [rows(train, [0, 1, 2]), rows(train, [3, 4])]
    held, found, own = scored(model, inverses, *parts, own=False, n_train=n_train, workspace=1)
    assert {layer.rotated for layer in held._held.values()} == {n_train == 1}
    assert own is None
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(held.own, whole.own, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_tokens", [5, 20, 40])
def test_blocks_rotated_before_or_after_the_sum_over_tokens_keep_to_the_workspace(n_tokens: int) -> None:
    """Layers of 16 to 64: 40 tokens are rotated after the sum, where a block stands beside what it is made of."""
    model = case("gpt2")
    test, train = random_batch([n_tokens, n_tokens], seed=5), random_batch([n_tokens] * 4)
    bases = bases_of(model, train, "expectation", corrected=True)
    inverses = [Inverse(basis, absolute_damping(basis, 0.1, "layer")) for basis in bases]
    _, expected, expected_own = scored(model, inverses, [test], [train], workspace=2**30)
    held, found, own = scored(model, inverses, [test], [train], workspace=1)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(own, expected_own, rtol=1e-8, atol=1e-8)
    assert held._memory is not None
    assert len(held._memory) == max(layer.n_parameters for layer in model.layers)  # a single gradient


def test_batches_order_padding_and_workspace_leave_scores_unchanged() -> None:
    model = case("gpt2", dtype=torch.float32)
    test, train = random_batch(TEST_LENGTHS, seed=5), random_batch(TRAIN_LENGTHS)
    inverses = [Inverse(damping=0.5)] * len(model.layers)
    _, expected, own = scored(model, inverses, [test], [train])
    wide = random_batch([*TRAIN_LENGTHS, 9])
    order = [4, 0, 2, 1, 3]
    test_batches = [rows(test, [0, 1]), rows(test, [2])]
    train_batches = [rows(wide, order[:2]), rows(train, order[2:])]
    for name in ("input_ids", "attention_mask"):
        train_batches[0][name][:, : train[name].shape[1]] = train[name][order[:2]]
    _, found, other = scored(model, inverses, test_batches, train_batches, workspace=1)
    torch.testing.assert_close(found, expected[:, order], rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert own is not None
    torch.testing.assert_close(other, own[order], rtol=1e-5, atol=0)


def test_factors_and_written_out_gradients_give_the_same() -> None:
    """A head and short texts are held in factors, longer ones are written out."""
    model = case("gpt2")
    inverses = [Inverse()] * len(model.layers)
    test, train = random_batch([3, 2]), random_batch(TRAIN_LENGTHS)
    held, found, _ = scored(model, inverses, [test], [train])
    forms = {model.layers[number].name: layer.dense is None for number, layer in held._held.items()}
    assert forms["head"]
    assert forms["backbone.h.0.mlp.c_fc"]
    long = random_batch([3, 2, 40])
    held, other, _ = scored(model, inverses, [long], [train])
    forms = {model.layers[number].name: layer.dense is None for number, layer in held._held.items()}
    assert forms["head"]
    assert not forms["backbone.h.0.mlp.c_fc"]
    gradients = [layer_gradients(model.layers, model.loss, split) for split in (long, train)]
    torch.testing.assert_close(other, whole_scores(*gradients), rtol=1e-8, atol=1e-8)
    gradients = [layer_gradients(model.layers, model.loss, split) for split in (test, train)]
    torch.testing.assert_close(found, whole_scores(*gradients), rtol=1e-8, atol=1e-8)
