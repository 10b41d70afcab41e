"""Products and solves over all layers equal those of the curvature written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.attribution.gradients.cases import FAMILIES, Case, case
from tests.attribution.gradients.test_fisher import LAYERS, bases_of
from tests.combinations import half_long
from tests.families import random_batch
from tests.oracles_gradients import ggn_of_layers, layer_gradients
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.curvature_sums import CurvatureSums, WrittenGradients
from twinlens.attribution.gradients.fisher import Fisher, absolute_damping, solve
from twinlens.attribution.gradients.preconditioned import Parts, Solutions, solved
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.targets import Targets

TEST_LENGTHS, TRAIN_LENGTHS = [6, 4, 2], [7, 3, 5, 6, 4]
SOME = LAYERS.replace("*.1.fc1,", "")


def flat(gradients: list[Tensor]) -> Tensor:
    """[examples, numbers of all layers]."""
    return torch.cat([layer.flatten(1) for layer in gradients], 1)


def products(model: Case, batch: dict[str, Tensor], fisher: Fisher, vectors: Parts, workspace: int = 2**20) -> Parts:
    """The curvature's, from passes in batches of two."""
    sums = CurvatureSums(model.layers, fisher, vectors, workspace)
    for start in range(0, len(batch["labels"]), 2):
        part = {name: values[start : start + 2] for name, values in batch.items()}
        with recording(model.layers) as tape:
            sums.add(tape, model.scores(part), part["labels"])
    return [total / len(batch["labels"]) for total in sums.sums]


def cut(model: Case, vectors: Tensor) -> Parts:
    return list(vectors.split([layer.n_parameters for layer in model.layers], 1))


@pytest.mark.parametrize(("family", "fisher"), half_long(FAMILIES, ["expectation", "empirical"]))
def test_products_equal_the_matrix_written_out(family: str, fisher: Fisher) -> None:
    model, batch = case(family, SOME), random_batch(TRAIN_LENGTHS, "left" if fisher == "empirical" else "right")
    if fisher == "expectation":
        matrix = ggn_of_layers(model.layers, model.scores, batch, flat)
    else:
        rows = flat(layer_gradients(model.layers, model.loss, batch))
        matrix = rows.T @ rows / len(rows)
    torch.manual_seed(1)
    vectors = torch.randn(4, len(matrix), dtype=torch.float64)
    tolerance = 1e-5 if family in ("llama", "qwen2") else 1e-9  # whose norms are float32
    for workspace in (1, 2**20):  # a gradient at a time, and all of a batch
        found = torch.cat(products(model, batch, fisher, cut(model, vectors), workspace), 1)
        torch.testing.assert_close(found, vectors @ matrix, rtol=tolerance, atol=tolerance)


def solutions(
    model: Case, batch: dict[str, Tensor], right: Parts, damping: float, by_ekfac: bool, tolerance: float
) -> Solutions:
    """With λ of each layer, in steps of EK-FAC's inverse or of that λ alone."""
    bases = bases_of(model, batch, "expectation", corrected=True)
    dampings = [absolute_damping(basis, damping, "layer") for basis in bases]

    def damped(vectors: Parts) -> Parts:
        found = products(model, batch, "expectation", vectors)
        return [part + damping * v for part, damping, v in zip(found, dampings, vectors, strict=True)]

    def precondition(number: int, residual: Tensor) -> Tensor:
        if not by_ekfac:
            return residual / dampings[number]
        blocks = residual.unflatten(1, bases[number].eigenvalues.shape)
        return solve(bases[number], dampings[number], blocks).flatten(1)

    return solved(right, damped, precondition, tolerance, 100)


@pytest.mark.parametrize(
    ("family", "damping", "by_ekfac"),
    [
        ("gpt2", 0.1, False),
        ("gpt2", 10.0, True),
        pytest.param("llama", 1.0, False, marks=pytest.mark.long),
        pytest.param("opt", 10.0, True, marks=pytest.mark.long),
    ],
)
def test_solutions_equal_solves_with_the_matrix_written_out(family: str, damping: float, by_ekfac: bool) -> None:
    model = case(family, SOME)
    test, train = random_batch(TEST_LENGTHS, seed=5), random_batch(TRAIN_LENGTHS)
    gradients = WrittenGradients(model.layers, len(TEST_LENGTHS) + 1)
    for rows in ([0, 1], [2]):
        part = {name: values[rows] for name, values in test.items()}
        with recording(model.layers) as tape:
            gradients.add(tape, model.scores(part), Targets(part["labels"]))
    written = flat(layer_gradients(model.layers, model.loss, test))
    right = torch.cat(gradients.parts, 1)
    torch.testing.assert_close(right[:3], written, rtol=1e-5, atol=1e-5)
    assert not right[3].any()  # a vanishing gradient is solved by zero

    tolerance = 1e-4 if family == "llama" else 1e-7  # whose norms are float32
    found = solutions(model, train, gradients.parts, damping, by_ekfac, tolerance)
    matrix = ggn_of_layers(model.layers, model.scores, train, flat)
    sizes = [layer.n_parameters for layer in model.layers]
    for block, size in zip(torch.arange(len(matrix)).split(sizes), sizes, strict=True):
        matrix[block, block] += damping * float(matrix.diagonal()[block].sum()) / size  # λ of each layer
    solution = torch.cat(found.parts, 1)
    expected = torch.linalg.solve(matrix, right.T).T
    errors = (solution - expected).norm(dim=1) / expected.norm(dim=1).clamp_min(1e-300)
    assert float(errors.max()) <= 1e3 * tolerance  # the matrix's condition times the residual
    residual = (solution @ matrix - right).norm(dim=1)[:3] / right[:3].norm(dim=1)
    torch.testing.assert_close(found.residual[:3], residual, rtol=0.1, atol=tolerance)
    assert float(found.residual.max()) <= tolerance
    assert float(found.residual[3]) == 0
    assert found.steps < 60


def test_a_better_preconditioner_takes_fewer_steps_and_each_vector_goes_its_own_way() -> None:
    torch.manual_seed(0)
    values = torch.logspace(0, 4, 30, dtype=torch.float64)
    right = torch.randn(5, 30, dtype=torch.float64)
    right[1, 3:] = 0  # spans three eigenvectors and is there after three steps
    taken = []
    for power in (0, 0.5, 0.9):
        seen: list[int] = []

        def product(parts: Parts, seen: list[int] = seen) -> Parts:
            seen.append(len(parts[0]))
            return [parts[0] * values[:10], parts[1] * values[10:]]

        def precondition(number: int, residual: Tensor, power: float = power) -> Tensor:
            return residual / values.split([10, 20])[number] ** power

        found = solved([right[:, :10].clone(), right[:, 10:].clone()], product, precondition, 1e-9, 500)
        torch.testing.assert_close(torch.cat(found.parts, 1), right / values, rtol=1e-6, atol=1e-12)
        assert found.steps == len(seen)
        assert seen[0] == seen[-1] == 5
        assert seen[3] == 4  # those that are solved take no part until all are checked
        taken.append(found.steps)
    assert taken[0] > taken[1] > taken[2]


def test_a_recurrence_that_has_drifted_is_started_again_from_the_true_residual() -> None:
    """In float32 the recurrence's residual falls on where the true one does not."""
    torch.manual_seed(0)
    values, right = torch.logspace(0, 5, 200), torch.randn(3, 200)
    found = solved([right], lambda parts: [parts[0] * values], lambda _, r: r.clone(), 1e-5, 5000)
    exact = (found.parts[0].double() * values.double() - right).norm(dim=1) / right.double().norm(dim=1)
    assert float(exact.max()) <= 1.1e-5


@pytest.mark.parametrize(("most", "scale"), [(2, 1.0), (50, float("nan"))])
def test_a_solve_that_does_not_reach_its_residual_is_refused_with_the_number(most: int, scale: float) -> None:
    values, right = torch.logspace(0, 4, 30), torch.ones(2, 30)
    right[0, 1:] = 0  # there after one step: that does not speak for the other
    with pytest.raises(UserError, match=r"relative residual of (\d\.\d+|nan) in 2 passes.*cg_tolerance=1e-05"):
        solved([right], lambda parts: [scale * parts[0] * values], lambda _, r: r.clone(), 1e-5, most)
