"""`twinlens.Task` over modules from outside: equal to written-out autograd, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import twinlens
from tests.face.digits import Net, ekfac_influence, exact_influence, gradients, loss, outputs
from tests.running import installed
from twinlens.attribution.instance.bm25 import BM25
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.tracin import TracIn

Images = tuple[Tensor, Tensor]


def images(n: int, batch_size: int, first: int = 0) -> list[Images]:
    """Batches of drawn images, whose ink lies in the rows of their label."""
    generator = torch.Generator().manual_seed(first)
    labels = (torch.arange(n) + first) % 10
    drawn = torch.rand(n, 1, 8, 8, generator=generator)
    drawn[torch.arange(n), 0, labels % 8] += 1
    return list(zip(drawn.split(batch_size), labels.split(batch_size), strict=True))


def net(seed: int = 0, n_classes: int = 10) -> Net:
    torch.manual_seed(seed)
    return Net(n_classes)


def close(found: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((found.double() - expected).abs().max()) < 2e-5 * scale


TRAIN, QUERIES = images(7, 3), images(4, 4, first=20)


def test_inner_products_are_those_of_written_out_gradients() -> None:
    module = net()
    task = twinlens.Task(module, loss)
    expected = gradients(module, QUERIES) @ gradients(module, TRAIN).T
    close(task.scores("gradsim", TRAIN, QUERIES), expected)
    lengths = gradients(module, QUERIES).norm(dim=1)[:, None] * gradients(module, TRAIN).norm(dim=1)
    close(task.scores(GradientSimilarity(similarity="cosine"), TRAIN, QUERIES), expected / lengths)
    assert task.coverage().startswith("params cover 324 of 324 parameters (100.0%)")


@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_influence_is_that_of_the_dense_curvature(solver: Any) -> None:
    module = net()
    task = twinlens.Task(module, loss, outputs=outputs)
    found = task.scores(Influence(curvature="ggn", solver=solver, damping=0.1), TRAIN, QUERIES)
    close(found, exact_influence(module, TRAIN, QUERIES, 0.1))


def test_ekfac_is_that_of_written_out_factors() -> None:
    module = net(1)
    task = twinlens.Task(module, loss, outputs=outputs)
    close(task.scores("influence_ekfac", TRAIN, QUERIES), ekfac_influence(module, TRAIN, QUERIES, 0.1))


def test_tracin_adds_up_along_the_training() -> None:
    steps = [(net(seed), rate) for seed, rate in ((1, 0.5), (2, 0.1))]
    task = twinlens.Task(net(), loss)
    found = task.scores(TracIn(), TRAIN, QUERIES, checkpoints=[(step.state_dict(), rate) for step, rate in steps])
    parts = [rate * gradients(step, QUERIES) @ gradients(step, TRAIN).T for step, rate in steps]
    close(found, sum(parts))


def test_regression_with_a_measurement_of_its_own() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    given, truth = torch.randn(6, 3).double(), torch.randn(6, 2).double()
    train, queries = [(given[:4], truth[:4])], [(given[4:], truth[4:])]

    def squares(module: Any, batch: Images) -> Tensor:
        return 0.5 * (module(batch[0]) - batch[1]).square().sum(1)

    def first_output(module: Any, batch: Images) -> Tensor:
        return module(batch[0])[:, 0]

    task = twinlens.Task(module, squares, first_output, ["2"], outputs, "gaussian")
    found = task.scores(Influence(curvature="ggn", damping=0.2), DataLoader(TensorDataset(*train[0]), 2), queries)
    inner = module[1](module[0](given))
    inner = torch.cat([inner, torch.ones(6, 1)], 1).detach()  # with the 1 of the bias
    off = (module(given) - truth).detach()
    rows = torch.stack([off[i].outer(inner[i]).flatten() for i in range(4)])
    asked = torch.stack([torch.eye(2).double()[0].outer(inner[i]).flatten() for i in (4, 5)])
    curvature = torch.kron(torch.eye(2).double(), inner[:4].T @ inner[:4] / 4)
    curvature += 0.2 * curvature.trace() / 10 * torch.eye(10)
    close(found, -asked @ torch.linalg.solve(curvature, rows.T))
    assert torch.equal(task.measure(queries), module(given[4:])[:, 0].float())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 3, 3, padding=2, dilation=2),
        nn.Conv1d(2, 3, 2, stride=3, bias=False),
        nn.Conv2d(2, 3, (2, 3), padding="same"),
        nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"),
    ],
)
def test_every_form_of_a_convolution_is_a_map_of_patches(layer: Any) -> None:
    torch.manual_seed(0)
    given = torch.randn(3, 2, *(7, 6)[: layer.weight.dim() - 2])
    torch.nn.init.normal_(layer.weight)
    batch = [(given, torch.zeros(3))]

    def energy(module: Any, batch: Images) -> Tensor:
        return module(batch[0]).square().flatten(1).sum(1)

    rows = []
    for row in range(3):
        found = torch.autograd.grad(energy(layer, (given[row : row + 1], torch.zeros(1))).sum(), layer.parameters())
        rows.append(torch.cat([part.flatten() for part in found]).double())
    expected = torch.stack(rows) @ torch.stack(rows).T
    close(twinlens.Task(nn.Sequential(layer), energy).scores("gradsim", batch, batch), expected)


@pytest.mark.parametrize("kind", ["random", "pca"])
def test_projections_that_cut_nothing_change_nothing(kind: Any) -> None:
    module = net()
    task = twinlens.Task(module, loss)
    method = GradientSimilarity(params="all", projection=kind, projection_dim=40)
    close(task.scores(method, TRAIN, QUERIES), gradients(module, QUERIES) @ gradients(module, TRAIN).T)
    small = task.scores(GradientSimilarity(params="all", projection=kind, projection_dim=3), TRAIN, QUERIES)
    assert small.shape == (4, 7)
    assert bool(small.isfinite().all())


def test_lds_tells_good_scores_from_bad_ones() -> None:
    torch.manual_seed(0)
    worth = torch.randn(3, 12)

    class Sums(nn.Module):
        def __init__(self, rows: list[int]) -> None:
            super().__init__()
            self.fit = nn.Linear(12, 1, bias=False)
            self.fit.weight.data = torch.zeros(1, 12).index_fill_(1, torch.tensor(rows), 1.0)

        def forward(self, given: Tensor) -> Tensor:
            return self.fit(given)[:, 0]

    task = twinlens.Task(Sums([0]), lambda module, batch: -module(batch))
    held = {"right": worth, "wrong": -worth}
    results = {row.method: row.value for row in task.lds(held, [worth], lambda rows, seed: Sums(rows), subsets=8)}
    assert results == pytest.approx({"right": 1.0, "wrong": -1.0}, abs=1e-6)


def test_the_module_stays_as_it_is() -> None:
    module = net().train()
    module.head.weight.grad = torch.ones_like(module.head.weight)
    module.first.requires_grad_(False)
    calls: list[int] = []
    handle = module.second.register_forward_hook(lambda part, given, output: calls.append(1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    twinlens.Task(module, loss, outputs=outputs).scores("influence_ekfac", TRAIN, QUERIES)
    assert calls == []
    assert module.training
    assert module.active.inplace
    assert [value.requires_grad for value in module.parameters()] == [False, False, True, True, True]
    assert torch.equal(module.head.weight.grad, torch.ones_like(module.head.weight))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert list(module.second._forward_hooks) == [handle.id]


def of_mean(module: Any, batch: Images) -> Tensor:
    return loss(module, batch).mean()


class Overwriting(Net):
    """A net whose forward overwrites what its last layer gives."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).relu_()


class Twice(nn.Module):
    """A layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.same(self.same(images[:, 0, 0]))


@pytest.mark.parametrize(
    ("make", "given", "method", "said"),
    [
        (net, {"loss": of_mean}, "gradsim", "loss gives the shape ()"),
        (net, {"modules": ["third"]}, "gradsim", "modules names third"),
        (net, {}, "influence", "the task says none"),
        (net, {}, BM25(), "BM25 is not over the gradients of layers"),
        (net, {}, "tracin", "given 0 checkpoints"),
        (net, {}, Influence(curvature="hessian"), "curvature=hessian is of a classifier's head"),
        (net, {}, Influence(damping="auto", curvature="ekfac", fisher="empirical"), "damping=auto is chosen by a run"),
        (net, {"likelihood": "poisson"}, "gradsim", "likelihood='poisson'"),
        (net, {"memory_budget": 1000}, "gradsim", "rows of 324 numbers need more than"),
        (nn.Flatten, {}, "gradsim", "has no linear layer and no convolution"),
        (Overwriting, {}, "gradsim", "overwrites the input or output of head"),
        (Twice, {}, "gradsim", "runs more than once"),
    ],
)  # fmt: skip
def test_what_a_task_cannot_do_is_refused(make: Any, given: Any, method: Any, said: str) -> None:
    with pytest.raises(twinlens.UserError) as refused:
        twinlens.Task(make(), **{"loss": loss, **given}).scores(method, TRAIN, QUERIES)
    assert said in str(refused.value)
    assert "expected" in str(refused.value)


def test_rows_in_no_fixed_order_are_refused() -> None:
    task = twinlens.Task(net(), loss)
    shuffled = DataLoader(TensorDataset(*TRAIN[0]), batch_size=2, shuffle=True)
    with pytest.raises(twinlens.UserError, match="train is a DataLoader that shuffles"):
        task.scores("gradsim", shuffled, QUERIES)
    with pytest.raises(twinlens.UserError, match="queries is an iterator"):
        task.scores("gradsim", TRAIN, iter(QUERIES))
    with pytest.raises(twinlens.UserError, match="does not fit the module"):
        task.scores(TracIn(), TRAIN, QUERIES, checkpoints=[({"head.weight": torch.zeros(1)}, 0.1)])
    with pytest.raises(twinlens.UserError, match="some of one shape"):
        task.lds({}, QUERIES, lambda rows, seed: net())


@pytest.mark.long
@pytest.mark.skipif(not installed("sklearn"), reason="needs scikit-learn, whose digits these are (twinlens[digits])")
def test_scikit_learns_digits_go_through_every_method() -> None:
    from sklearn.datasets import load_digits

    drawn = load_digits()
    given = torch.tensor(drawn.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(drawn.target)
    train, queries = [(given[:40], labels[:40]), (given[40:60], labels[40:60])], [(given[60:70], labels[60:70])]

    def fit(rows: list[int], seed: int) -> Net:
        module = net(seed)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
        for _ in range(60):
            optimizer.zero_grad()
            loss(module, (given[rows], labels[rows])).mean().backward()
            optimizer.step()
        return module

    module = fit(list(range(60)), 0)
    task = twinlens.Task(module, loss, outputs=outputs)
    inner = gradients(module, queries) @ gradients(module, train).T
    found = {
        "gradsim": task.scores("gradsim", train, queries),
        "direct": task.scores(Influence(curvature="ggn", solver="direct", damping=0.1), train, queries),
        "influence_ekfac": task.scores("influence_ekfac", train, queries),
        "tracin": task.scores(TracIn(), train, queries, checkpoints=[(module.state_dict(), 0.3)]),
    }
    close(found["gradsim"], inner)
    close(found["tracin"], 0.3 * inner)
    close(found["direct"], exact_influence(module, train, queries, 0.1))
    close(found["influence_ekfac"], ekfac_influence(module, train, queries, 0.1))
    results = {row.method: row.value for row in task.lds(found, queries, fit, subsets=20)}
    assert results.keys() == found.keys()
    assert results["direct"] > 0
    opposite = {row.method: row.value for row in task.lds({"x": -found["direct"]}, queries, fit, subsets=20)}
    assert opposite["x"] == pytest.approx(-results["direct"], abs=1e-6)
