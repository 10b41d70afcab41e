"""Solves by steps over the curvature of all layers, through the stages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml

from tests.callbacks.attribute.layer_case import Rows, attributed, dense_scores, gradients_of, session_of
from tests.callbacks.attribute.test_whole_gradient_scores import SMALL, close
from tests.oracles_gradients import ggn_of_layers
from tests.running import SMALLER_MODEL, CommandLine
from tests.test_processes import start
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.influence import Influence
from twinlens.callbacks.attribute import whole_gradient_scores as layer_scores
from twinlens.callbacks.attribute import whole_gradient_solves as solves
from twinlens.callbacks.attribute.whole_gradient_factors import factor_bytes
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.leftovers import NOTE


def stepwise(**more: Any) -> Influence:
    settings = {"curvature": "ggn", "solver": "cg", "params": SMALL, "cg_tolerance": 1e-3, "preconditioner": "none"}
    return Influence(**{**settings, **more})


@pytest.mark.parametrize(
    ("fisher", "preconditioner", "damping"),
    [("expectation", "none", 1.0), pytest.param("empirical", "ekfac", 10.0, marks=pytest.mark.long)],
)
def test_scores_equal_solves_with_the_matrix_of_all_layers_written_out(
    tmp_path: Path, fisher: Any, preconditioner: Any, damping: float
) -> None:
    """Five tests in two blocks."""
    session = session_of(tmp_path, Rows("classification", "left", batch_size=5))
    layers = layer_scores.layers_of(session, SMALL)
    each = 4 * solves.COPIES * sum(layer.n_parameters for layer in layers)
    session.memory_budget = 2 * (3 * each + factor_bytes(layers, 4))
    method = stepwise(fisher=fisher, preconditioner=preconditioner, damping=damping, cg_tolerance=1e-4)
    assert len(layer_scores.blocks_of_tests(session, layers, True, 5, solves.held_copies(method))) == 2
    folder = attributed(session, "influence_cg", method, {"fisher": fisher})
    found, told = dense_scores(folder), yaml.safe_load((folder / "method.yaml").read_text())
    layers, gradients = gradients_of(session, SMALL)
    train, test = (torch.cat([g.flatten(1) for g in gradients[split]], 1) for split in ("train", "test"))
    if fisher == "expectation":
        batch = session.data.batches["train"]  # type: ignore[attr-defined]
        matrix = ggn_of_layers(layers, session.classifier, batch, lambda g: torch.cat([x.flatten(1) for x in g], 1))
    else:
        matrix = train.T @ train / len(train)
    first = 0
    for size, absolute in zip([layer.n_parameters for layer in layers], told["damping_absolute"], strict=True):
        block = slice(first, first + size)
        assert absolute == pytest.approx(damping * float(matrix.diagonal()[block].mean()), rel=1e-4)
        matrix.diagonal()[block] += absolute
        first += size
    close(found, test @ torch.linalg.solve(matrix, train.T), 1e-3)
    assert told["solver"] == "cg"
    assert told["preconditioner"] == preconditioner
    assert told["curvature_equals_ggn"] == (fisher == "expectation")
    assert told["residual"] <= 1e-4
    assert len(told["steps"]) == 2
    assert all(1 < steps < 100 for steps in told["steps"])
    own = datasets.load_from_disk(str(folder / "train_summary")).with_format("torch")["self_influence"][:]
    assert bool(own.isnan().all())  # a solve of its own for every train row
    assert not list(folder.rglob(solves.SOLUTIONS))


def test_a_killed_run_goes_on_with_the_solutions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, taken = session_of(tmp_path, Rows("classification", batch_size=7)), []
    original = solves.StepwiseSolve._product

    def counted(self: Any, *arguments: Any) -> Any:
        taken.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(solves.StepwiseSolve, "_product", counted)
    with monkeypatch.context() as patched:
        patched.setattr(layer_scores, "forget_solutions", lambda shards: None)
        whole = dense_scores(attributed(session, "influence_cg", stepwise(), {}))
    steps = len(taken)
    assert steps > 1
    final = session.scores["influence_cg", "test"]
    for segment in sorted(final.glob("shards/tests_*/*.safetensors"))[3:5]:
        segment.unlink()
    (final / "manifest.json").unlink()
    final.rename(final.with_suffix(".partial"))
    write_json(final.with_suffix(".partial") / NOTE, {"entry": final.name, "launch": "of before"})
    folder = attributed(session, "influence_cg", stepwise(), {})
    assert torch.equal(dense_scores(folder), whole)
    assert len(taken) == steps  # read, not taken again
    assert "influence_cg on test: its solutions are there, going on" in capsys.readouterr().out
    assert not list(folder.rglob(solves.SOLUTIONS))


@pytest.mark.long
def test_an_expert_that_no_train_example_reaches_has_no_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its λ is infinite, and 0 · ∞ is no number."""
    session = session_of(tmp_path, Rows("classification"))
    alone = dense_scores(
        attributed(session, "influence_cg", stepwise(params="score", damping=100.0), {"params": "score"})
    )
    known = Influence.inverses

    def idle(self: Any, *arguments: Any) -> Any:
        first, *others = known(self, *arguments)
        return [replace(first, damping=inf), *others]

    monkeypatch.setattr(Influence, "inverses", idle)
    found = dense_scores(attributed(session, "influence_cg", stepwise(damping=100.0), {"params": SMALL}))
    close(found, alone, 1e-3)


def test_what_cannot_be_solved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"curvature=hessian of whole layers \(params=all.*use curvature=ekfac or"):
        Influence("hessian", "cg", params="all")
    with pytest.raises(UserError, match=r"solver=cg with cg_tolerance=1e-3 \(method=influence_cg\)"):
        Influence("ggn", "dual", params="all", cg_tolerance=1e-3)
    with pytest.raises(UserError, match=r"cg_max_steps=1 leaves no step over whole layers.*at least 2"):
        stepwise(cg_max_steps=1)
    with pytest.raises(UserError, match=r"cg_tolerance=1e-06 is finer than float32.*set cg_tolerance=1e-3"):
        Influence("ggn", "cg", params="all")
    session = session_of(tmp_path, Rows("classification"))
    with pytest.raises(UserError, match=r"relative residual of \d\.\d+ in 3 passes.*raise cg_max_steps \(now 3\)"):
        attributed(session, "influence_cg", stepwise(cg_max_steps=3), {})


@pytest.mark.long
def test_a_run_and_its_plan(command: CommandLine) -> None:
    methods = (
        "method=influence_cg", "method.influence_cg.cg_tolerance=0.1", "method.influence_cg.damping=10",
        *SMALLER_MODEL, "evaluation=accuracy",
    )  # fmt: skip
    planned = command(*methods, "plan=true")
    assert planned.code == 0, planned.err
    assert "steps of cg expected for each, 300 at most" in planned.out
    done = command(*methods)
    assert done.code == 0, done.err
    assert "passes over the train split in" in done.out
    assert (done.folder / "report.html").is_file()


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp"])
def test_processes_share_the_passes_of_every_step(command: CommandLine, repository: Path, trainer: str) -> None:
    """Scores are compared at the same weights: one process reads the fit, with its epochs, that two have stored."""
    what = (
        "method=[influence_cg,source]", "method.influence_cg.cg_tolerance=1e-5", "method.source.projection_dim=4",
        "evaluation=accuracy", "trainer.accelerator=cpu", "data.n_train=32", "data.n_validation=8", "data.n_test=9",
        "data.n_twins=2", "trainer.max_epochs=1", *SMALLER_MODEL,
    )  # fmt: skip
    two = (f"trainer={trainer}", "trainer.devices=2", "data.batch_size=4", "paths.store=several")
    several = start(repository, command.folder, *what, *two, timeout=900)
    assert several.returncode == 0, several.stderr
    assert several.stdout.count("passes over the train split in") == 1  # said once
    shutil.copytree(command.folder / "several" / "fit", command.folder / "whole" / "fit")
    one = command(*what, "data.batch_size=8", "paths.store=whole", base=())
    assert one.code == 0, one.err
    assert "fit: read from the store" in one.out
    folders = [one.folder, command.folder / several.stdout.strip().splitlines()[-1]]
    for name, tolerance in (("influence_cg", 1e-3), ("source", 1e-5)):
        expected, found = (
            torch.tensor(datasets.load_from_disk(str(folder / "scores" / name / "test"))["top_score"][:])
            for folder in folders
        )
        close(found, expected, tolerance)
