"""The tape hands over what per-example autograd finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.families import random_batch
from tests.oracles_gradients import layer_gradients
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.blocks import UNPROJECTED, example_blocks, project_sides, token_blocks
from twinlens.attribution.gradients.cotangents import logit_cotangents
from twinlens.attribution.gradients.projection import Projection
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.protocols import LinearLayer
from twinlens.models.linear_layers import linear_layers


def taped_blocks(model: Case, batch: dict[str, Tensor], projections: dict[int, object] | None = None) -> list[Tensor]:
    """Each example's block in each layer by the tape."""
    found: dict[int, Tensor] = {}
    n = len(batch["labels"])

    def consume(number: int, inputs: Tensor, deltas: Tensor) -> None:
        projection = (projections or {}).get(number, UNPROJECTED)
        a, d = project_sides(inputs, deltas, model.layers[number].has_bias, projection)
        found[number] = example_blocks(a, d, n)

    with recording(model.layers) as tape:
        scores = model.scores(batch)
        tape.gradients(scores, logit_cotangents(scores.detach(), batch["labels"]), consume)
    return [found[number] for number in range(len(model.layers))]


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_equal_per_example_autograd(family: str, padding: str) -> None:
    model, batch = case(family), random_batch([5, 3, 7], padding)
    expected = layer_gradients(model.layers, model.loss, batch)
    assert len(expected) > 10
    for layer, found, wanted in zip(model.layers, taped_blocks(model, batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10, msg=lambda m, n=layer.name: f"{n}: {m}")


def test_a_pattern_ends_the_backward_where_it_is_satisfied() -> None:
    model, batch = case("llama", "backbone.layers.2.*,head"), random_batch([5, 3])
    assert {layer.block for layer in model.layers} == {2, None}
    expected = layer_gradients(model.layers, model.loss, batch)
    for found, wanted in zip(taped_blocks(model, batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_consumers_choose_their_own_type_under_mixed_precision() -> None:
    model, batch = case("llama", "head", torch.float32), random_batch([5, 3])
    products: list[torch.dtype] = []
    with torch.autocast("cpu", torch.bfloat16), recording(model.layers) as tape:
        scores = model.scores(batch)
        assert scores.dtype == torch.bfloat16
        cotangents = logit_cotangents(scores.detach().float(), batch["labels"])
        tape.gradients(scores, cotangents, lambda number, a, d: products.append((a.float() @ a.float().mT).dtype))
    assert products == [torch.float32]


def test_token_shares_add_up() -> None:
    inputs, deltas = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    torch.testing.assert_close(token_blocks(inputs, deltas).sum(1), example_blocks(inputs, deltas, 2))


def test_projection_before_the_product_is_projection_of_the_product() -> None:
    model, batch = case("gpt2"), random_batch([5, 3, 7])
    draw = Projection("random", dim=8, seed=3)
    projections = {number: draw.random(layer) for number, layer in enumerate(model.layers)}
    whole, small = taped_blocks(model, batch), taped_blocks(model, batch, projections)
    for number, layer in enumerate(model.layers):
        left, right = projections[number].inputs, projections[number].outputs
        wanted = whole[number] if left is None else whole[number] @ left.double()
        wanted = wanted if right is None else right.double().T @ wanted
        assert small[number].shape[1:] == draw.sides(layer)
        torch.testing.assert_close(small[number], wanted)


def test_random_projections_keep_inner_products() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 40, 60), torch.randn(2, 40, 60)
    right = right + left  # with something in common
    layer = LinearLayer("layer", nn.Linear(60, 40, bias=False), 60, 40, False)

    def error(dim: int) -> float:
        errors = []
        for seed in range(40):
            p = Projection("random", dim, seed).random(layer)
            a, b = (p.outputs.T @ x @ p.inputs for x in (left, right))
            errors.append(((a * b).sum((1, 2)) / (left * right).sum((1, 2)) - 1).square())
        return float(torch.stack(errors).mean().sqrt())

    assert error(32) < 0.6 * error(8) < 0.5


def test_projections_draw_from_seed_and_name_alone() -> None:
    def of(seed: int, name: str) -> Tensor:
        layer = LinearLayer(name, nn.Linear(30, 30), 30, 30, True)
        found = Projection("random", 4, seed).random(layer).inputs
        assert found is not None
        return found

    assert torch.equal(of(0, "a"), of(0, "a"))
    assert not torch.equal(of(0, "a"), of(1, "a"))
    assert not torch.equal(of(0, "a"), of(0, "b"))
    assert of(0, "a").abs().unique().tolist() == [0.5]


def test_leading_eigenvectors_keep_all_where_the_data_have_few_directions() -> None:
    layer = LinearLayer("layer", nn.Linear(30, 20), 30, 20, True)
    inputs, outputs = torch.randn(31, 4), torch.randn(20, 4)
    gradients = torch.stack([outputs @ torch.randn(4, 4) @ inputs.T for _ in range(3)])
    p = Projection("pca", 4).leading(layer, inputs @ inputs.T, outputs @ outputs.T)
    small = p.outputs.T @ gradients @ p.inputs
    torch.testing.assert_close(
        torch.einsum("aij,bij->ab", small, small),
        torch.einsum("aij,bij->ab", gradients, gradients),
        rtol=1e-3,
        atol=1e-2,
    )


class LowRank(nn.Module):
    """An adapter as PEFT builds it: the frozen layer, and beside it two linear layers of low rank."""

    def __init__(self, base: nn.Module, d_in: int, d_out: int) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(d_in, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, d_out, bias=False)})

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base_layer(inputs) + self.lora_B["default"](self.lora_A["default"](inputs))


def test_adapters_alone() -> None:
    model, batch = case("llama"), random_batch([5, 3, 7])
    for block in model.module["backbone"].layers:
        projection = block.self_attn.q_proj
        adapted = LowRank(projection, projection.in_features, projection.out_features).double()
        block.self_attn.q_proj = adapted.requires_grad_(False)
    adapters = Case(model.module, linear_layers(model.module, model.module["head"], "*lora_A*,*lora_B*"))
    assert len(adapters.layers) == 2 * len(model.module["backbone"].layers)
    expected = layer_gradients(adapters.layers, adapters.loss, batch)
    for found, wanted in zip(taped_blocks(adapters, batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_a_layer_that_runs_twice_is_refused() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    with pytest.raises(UserError, match="runs more than once"), recording(linear_layers(model, shared, "all")):
        model(torch.randn(2, 4))


def test_a_pattern_without_a_layer_is_refused_with_names() -> None:
    with pytest.raises(UserError, match=r"params=\*\.nothing matches no linear layer.*backbone\.layers\.0"):
        case("llama", "*.nothing")
