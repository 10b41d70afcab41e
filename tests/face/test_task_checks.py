"""Strangers at a task: gradients that are no example's own, batches of every form, and what is refused."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler
from transformers import BatchEncoding

import twinlens
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.tracin import TracIn

Batch = Any
INPUTS, LABELS = torch.randn(7, 6, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
ASKED, TRUTH = INPUTS[:3] + 0.5, torch.arange(3)
Pair = namedtuple("Pair", "x y")


def batches(size: int = 3, inputs: Tensor = INPUTS, labels: Tensor = LABELS) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), labels.split(size), strict=True))


QUERIES = batches(2, ASKED, TRUTH)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def loss(module: Any, batch: Batch) -> Tensor:
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def inner(module: nn.Module) -> Tensor:
    """⟨gradient of a query's loss, gradient of a train example's loss⟩ by autograd, one example after the other."""
    parts = list(module.parameters())

    def rows(inputs: Tensor, labels: Tensor) -> Tensor:
        values = [loss(module, (inputs[row : row + 1], labels[row : row + 1])).sum() for row in range(len(inputs))]
        return torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(v, parts)]) for v in values]).double()

    return rows(ASKED, TRUTH) @ rows(INPUTS, LABELS).T


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert float((found.double() - expected).abs().max()) < tolerance * float(expected.abs().max())


class Shared(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.two.weight = self.one.weight

    def forward(self, given: Tensor) -> Tensor:
        return self.head(self.two(self.one(given).tanh()))


class OfEmbedding(nn.Module):
    """A readout with the weight of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, given: Tensor) -> Tensor:
        return self.head(self.embed(given.argsort(1)).tanh().mean(1))


class TimeFirst(nn.Module):
    """Layers that read tokens along the first axis; there are as many of them as examples in a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, given: Tensor) -> Tensor:
        return self.head(self.read(given.view(len(given), 3, 2).transpose(0, 1)).tanh().mean(0))


class Drops(nn.Module):
    """Drops in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, given: Tensor) -> Tensor:
        return self.head(F.dropout(given))


def with_decay(module: Any, batch: Batch) -> Tensor:
    return loss(module, batch) + sum(weight.square().sum() for weight in module.parameters())


READ_BESIDE, NOT_ITS_OWN = "is read outside of the layer as well", "no example of its own in each row"


@pytest.mark.parametrize(
    ("make", "of", "said"),
    [
        (Shared, loss, f"the weight of two {READ_BESIDE}"),
        (OfEmbedding, loss, f"the weight of head {READ_BESIDE}"),
        (net, with_decay, f"the weight of 2 {READ_BESIDE}"),
        (TimeFirst, loss, NOT_ITS_OWN),
        (net, lambda module, batch: loss(module, batch).mean().expand(len(batch[0])), NOT_ITS_OWN),
        (net, lambda module, batch: module(batch[0]).log_softmax(0)[:, 0], NOT_ITS_OWN),
        (Drops, loss, "is another one each time the module runs"),
        (net, lambda module, batch: loss(module, batch)[:1], "gives 1 numbers for a batch of 3 examples"),
        (net, lambda module, batch: torch.cat([loss(module, batch)] * 2), "gives 6 numbers for a batch of 3"),
        (net, lambda module, batch: loss(module, batch).detach(), "depends on no layer that is differentiated"),
        (net, lambda module, batch: torch.ones(len(batch[0])), "depends on no layer that is differentiated"),
        (net, lambda module, batch: loss(module, batch).long(), "of torch.int64"),
        (net, lambda module, batch: loss(module, batch) / 0, "the loss of the task is NaN or infinite for 3"),
        (net, lambda module, batch: (module(batch[0]) * 0).square().sum(1).sqrt(), "the gradient of the loss of the"),
        (net, 3, "loss is an int; expected a function"),
    ],
)  # fmt: skip
def test_rows_that_are_no_gradients_of_single_examples_are_refused(make: Any, of: Any, said: str) -> None:
    with pytest.raises(twinlens.UserError) as refused:
        twinlens.Task(make(), of).scores("gradsim", batches(), QUERIES)
    assert said in str(refused.value)
    assert "expected" in str(refused.value)


def test_what_is_proven_goes_through() -> None:
    """A module whose weights, modes and places are all unusual, and nothing is wrong with it."""
    task = twinlens.Task(TimeFirst(), loss)
    assert task.scores("gradsim", batches(1), batches(1, ASKED, TRUTH)).shape == (3, 7)  # one example in each batch
    for kind, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 0.02)):
        task = twinlens.Task(net().to(kind).requires_grad_(False), loss)
        found = task.scores("gradsim", batches(3, INPUTS.to(kind)), batches(2, ASKED.to(kind), TRUTH))
        close(found, inner(net()), tolerance)


def test_mixed_precision_within_the_loss_is_taken_as_it_is() -> None:
    def mixed(module: Any, batch: Batch) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss(module, batch)

    close(twinlens.Task(net(), mixed).scores("gradsim", batches(), QUERIES), inner(net()), 0.05)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_numbers_do_not_depend_on_the_batches(size: int) -> None:
    close(twinlens.Task(net(), loss).scores("gradsim", batches(size), QUERIES), inner(net()))


FORMS: dict[str, Callable[[tuple[Tensor, Tensor]], Any]] = {
    "a named tuple": lambda pair: Pair(*pair),
    "what a tokenizer gives": lambda pair: BatchEncoding({"x": pair[0], "y": pair[1]}),
    "inputs with gradients": lambda pair: Pair(pair[0].clone().requires_grad_(), pair[1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_batches_come_in_every_form(form: str) -> None:
    train, queries = ([FORMS[form](pair) for pair in given] for given in (batches(), QUERIES))
    task = twinlens.Task(net(), lambda module, batch: loss(module, (batch.x, batch.y)))
    close(task.scores("gradsim", [*train, FORMS[form]((INPUTS[:0], LABELS[:0]))], queries), inner(net()))
    assert train[0].x.grad is None


def test_modes_around_the_call_change_nothing() -> None:
    module, drawn = net(), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        given = batches(3, INPUTS.clone())  # tensors that autograd does not keep
        found = twinlens.Task(module, loss).scores("gradsim", given, QUERIES)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    close(found, inner(net()))
    torch.set_rng_state(drawn)
    loader = DataLoader(TensorDataset(INPUTS, LABELS), 3)
    close(twinlens.Task(module, loss).scores("gradsim", loader, QUERIES), inner(net()))
    assert torch.equal(torch.get_rng_state(), drawn)  # which reading a DataLoader changes


@pytest.mark.long
def test_a_compiled_module_is_read_as_it_is() -> None:
    compiled: Any = torch.compile(net())
    close(twinlens.Task(compiled, loss).scores("gradsim", batches(), QUERIES), inner(net()))


ROWS = TensorDataset(INPUTS, LABELS)
SHUFFLES, NO_BATCHES = "a DataLoader that shuffles", "expected a DataLoader or a list of batches"


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (DataLoader(ROWS, 3, sampler=WeightedRandomSampler([1.0] * 7, 7)), SHUFFLES),
        (DataLoader(ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 3, False)), SHUFFLES),
        (INPUTS, f"train is a Tensor; {NO_BATCHES}"),
        ((INPUTS, LABELS), f"train is a tuple of tensors, which reads as that many batches; {NO_BATCHES}"),
        (ROWS, f"train is a TensorDataset; {NO_BATCHES}"),
        (3, f"train is an int; {NO_BATCHES}"),
        ([], "train has no batch"),
        ([(INPUTS[:0], LABELS[:0])], "there is no example to differentiate"),
    ],
)
def test_what_is_no_batches_is_refused(train: Any, said: str) -> None:
    with pytest.raises(twinlens.UserError, match=said):
        twinlens.Task(net(), loss).scores("gradsim", train, QUERIES)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return net()


def with_nan() -> nn.Module:
    module = net()
    module[0].weight.data[0, 0] = torch.nan
    return module


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (lambda: nn.Linear, {}, "the class Linear stands where a module should"),
        (lambda: print, {}, "a builtin_function_or_method stands where a module should"),
        (lambda: nn.DataParallel(net()), {}, "expected the module inside: pass module.module"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "the module's weight 0.weight has no shape yet"),
        (on_meta, {}, "the module's weight 0.weight has no values"),
        (with_nan, {}, "holds NaN or infinite numbers"),
        (lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3))), {}, "no linear layer"),
        (net, {"modules": []}, "modules=[] names no layer"),
        (net, {"modules": [0]}, "modules=[0] names no layer"),
        (net, {"memory_budget": "4 sheep"}, "memory_budget='4 sheep'"),
    ],
)
def test_modules_that_cannot_be_read_are_refused(make: Any, given: Any, said: str) -> None:
    module = make()
    before = {name: value.clone() for name, value in module.named_buffers()} if isinstance(module, nn.Module) else {}
    with pytest.raises(twinlens.UserError) as refused:
        twinlens.Task(module, loss, **given)
    assert said in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in (module.named_buffers() if before else ()))


STATE = {name: value.detach() for name, value in net().state_dict().items()}


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("source", {}, "is not over the gradients of layers"),
        ("data_of_neurons", {}, "is not over the gradients of layers"),
        (GradientSimilarity(per="token", params="all", projection="random"), {}, "has per=token"),
        (GradientSimilarity(labels="predicted"), {}, "has labels=predicted"),
        (TracIn(), {"checkpoints": [(STATE, "0.1")]}, "is no pair of a state_dict and a learning rate"),
        (TracIn(), {"checkpoints": [STATE]}, "is no pair"),
        (TracIn(), {"checkpoints": [(net(), 0.1)]}, "is no pair"),
        ("influence_ekfac", {"outputs": lambda module, batch: module(batch[0]).softmax(1)}, "gives probabilities"),
        ("influence_ekfac", {"outputs": lambda module, batch: module(batch[0])[:1]}, "outputs gives 1 numbers"),
        ("influence_ekfac", {"outputs": lambda module, batch: batch[0]}, "outputs depends on no layer"),
        ("influence_ekfac", {"outputs": lambda module, batch: None}, "outputs gives None"),
    ],
)
def test_methods_are_given_what_they_ask_for(method: Any, given: Any, said: str) -> None:
    task = twinlens.Task(net(), loss, outputs=given.get("outputs"))
    with pytest.raises(twinlens.UserError, match=said):
        task.scores(method, batches(), QUERIES, given.get("checkpoints", ()))


def test_checkpoints_are_read_in_the_types_of_the_module() -> None:
    states = ((state, rate) for state, rate in [({name: value.double() for name, value in STATE.items()}, 0.5)])
    close(twinlens.Task(net(), loss).scores(TracIn(), batches(), QUERIES, states), 0.5 * inner(net()))  # type: ignore[arg-type]


SCORES = torch.ones(3, 7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scores": SCORES}, "of no method"),
        ({"scores": {"a": SCORES[0]}}, "expected a dict with some of one shape"),
        ({"scores": {"a": SCORES * torch.nan}}, "the score of a is NaN or infinite for 3"),
        ({"fit": lambda rows, seed: None}, "None stands where a module should"),
        ({"queries": batches()}, "the scores are of 3 queries, and the batches hold 7"),
        ({"queries": iter(QUERIES)}, "queries is an iterator"),
    ],
)
def test_lds_refuses_what_it_cannot_compare(given: Any, said: str) -> None:
    asked = {"scores": {"a": SCORES}, "queries": QUERIES, "fit": lambda rows, seed: net(), "subsets": 5, **given}
    with pytest.raises(twinlens.UserError, match=said):
        twinlens.Task(net(), loss).lds(**asked)
