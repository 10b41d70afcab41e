"""Scores from whole gradients through the stages: equal to plain loops, resumable, whatever the blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml

from tests.callbacks.attribute.layer_case import (
    LENGTHS,
    Readout,
    Rows,
    attributed,
    dense_scores,
    gradients_of,
    session_of,
)
from tests.oracles_gradients import fisher_of_layers, whole_scores
from tests.running import SMALLER_MODEL, CommandLine
from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.callbacks.attribute import whole_gradient_scores as layer_scores
from twinlens.callbacks.store.files import write_json
from twinlens.callbacks.store.leftovers import NOTE

SMALL = "*.0.attention.dense,score"


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=tolerance, atol=tolerance * float(expected.abs().max())
    )


@pytest.mark.parametrize(
    ("readout", "padding", "folded"),
    [
        ("classification", "left", False),
        ("classification", "right", True),
        ("choice", "right", False),
        ("token", "left", False),
    ],
)
def test_similarity_equals_per_example_autograd(tmp_path: Path, readout: Readout, padding: str, folded: bool) -> None:
    session = session_of(tmp_path, Rows(readout, padding, folded=folded))
    folder = attributed(session, "gradsim", GradientSimilarity(params="all"), {"params": "all"})
    found = dense_scores(folder)
    summary = datasets.load_from_disk(str(folder / "train_summary")).with_format("torch")
    layers, gradients = gradients_of(session, "all")
    expected = whole_scores(gradients["test"], gradients["train"])
    close(found, expected)
    close(summary["mean"][:], expected.mean(0))
    close(summary["max"][:], expected.amax(0))
    close(summary["self_influence"][:], sum(layer.square().sum((1, 2)) for layer in gradients["train"]))  # type: ignore[arg-type]
    assert int(summary["votes"][:].sum()) == 10 * len(LENGTHS["test"])
    told = yaml.safe_load((folder / "method.yaml").read_text())
    assert told["layers"] == [layer.name for layer in layers]


@pytest.mark.parametrize(("curvature", "fisher"), [("kfac", "empirical"), ("ekfac", "expectation")])
def test_influence_equals_solves_with_the_matrices_written_out(tmp_path: Path, curvature: Any, fisher: Any) -> None:
    session = session_of(tmp_path, Rows("classification"))
    method = Influence(curvature, fisher=fisher, params=SMALL)
    found = dense_scores(attributed(session, "influence", method, {"fisher": fisher}))
    layers, gradients = gradients_of(session, SMALL)
    assert len(layers) == 2
    batch = session.data.batches["train"]  # type: ignore[attr-defined]
    matrices = fisher_of_layers(layers, session.classifier, batch, fisher == "expectation", curvature == "ekfac")
    damped = [f + 0.1 * f.trace() / len(f) * torch.eye(len(f)).double() for f in matrices]
    close(found, whole_scores(gradients["test"], gradients["train"], damped=damped), 1e-4)


@pytest.mark.parametrize("readout", ["choice", "token"])
def test_influence_serves_choices_and_language_models(tmp_path: Path, readout: Readout) -> None:
    session = session_of(tmp_path, Rows(readout))
    method = Influence("ekfac", fisher="empirical", params="all")
    assert bool(dense_scores(attributed(session, "influence", method, {})).isfinite().all())


@pytest.mark.parametrize(
    ("head", "layer"),
    [
        (GradientSimilarity(params="head"), GradientSimilarity(params="score")),
        (GradientSimilarity("cosine", params="head"), GradientSimilarity("cosine", params="score")),
        (Influence("ekfac", params="head"), Influence("ekfac", params="score")),
        (Influence("identity", params="head"), Influence("identity", params="score")),
    ],
    ids=["dot", "cosine", "ekfac", "identity"],
)
def test_the_head_by_its_name_is_the_head(tmp_path: Path, head: Any, layer: Any) -> None:
    session = session_of(tmp_path, Rows("classification"))
    folders = [attributed(session, name, method, {"method": name}) for name, method in (("a", head), ("b", layer))]
    expected, found = (dense_scores(folder) for folder in folders)
    close(found, expected)
    expected, found = (
        datasets.load_from_disk(str(folder / "train_summary")).with_format("torch")["self_influence"][:]
        for folder in folders
    )
    close(found, expected)


def test_blocks_of_tests_batches_and_segments_leave_scores_unchanged(tmp_path: Path) -> None:
    method, results = GradientSimilarity("cosine", params="all", top_k=4), []
    for number, (budget, size) in enumerate([(2**26, 3), (280_000, 5)]):
        session = session_of(tmp_path / str(number), Rows("classification", batch_size=size), budget)
        layers = layer_scores.layers_of(session, "all")
        assert len(layer_scores.blocks_of_tests(session, layers, False, 5, 1)) == (1, 3)[number]
        results.append(attributed(session, "gradsim", method, {}))
    for name in ("test", "train_summary"):
        one, other = (datasets.load_from_disk(str(folder / name)).with_format("torch")[:] for folder in results)
        for column in one:
            close(other[column], one[column])


def test_a_lost_segment_alone_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(tmp_path, Rows("classification"))
    method, computed = Influence("kfac", params=SMALL), []
    whole = dense_scores(attributed(session, "influence", method, {}))
    final = session.scores["influence", "test"]
    for segment in sorted((final / "shards").rglob("*.safetensors"))[3:5]:
        segment.unlink()
    (final / "manifest.json").unlink()
    final.rename(final.with_suffix(".partial"))
    write_json(final.with_suffix(".partial") / NOTE, {"entry": final.name, "launch": "of before"})
    original = layer_scores.GradientBlock.__call__

    def counted(self: Any, batch: Any) -> Any:
        computed.append(len(batch["index"]))
        return original(self, batch)

    monkeypatch.setattr(layer_scores.GradientBlock, "__call__", counted)
    assert torch.equal(dense_scores(attributed(session, "influence", method, {})), whole)
    assert computed == [1, 1]


def test_curvatures_that_layers_cannot_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"curvature=ggn of whole layers \(params=all.*use curvature=ekfac or"):
        Influence(params="all")
    session = session_of(tmp_path, Rows("token"))
    with pytest.raises(UserError, match="a backward pass for each of"):
        attributed(session, "influence", Influence("ekfac", params=SMALL.replace(",score", "")), {})
    session.memory_budget = 1000
    with pytest.raises(UserError, match="the gradient of one test and the factors take"):
        attributed(session, "gradsim", GradientSimilarity(params="all"), {})
    with pytest.raises(UserError, match="curvature=kfac with params=all keeps factors of"):
        attributed(session, "influence", Influence("kfac", params="all"), {})


def test_a_run_and_its_plan(command: CommandLine) -> None:
    methods = ("method=[gradsim,influence_ekfac]", "method.gradsim.params=all", "method.influence_ekfac.params=all",
               *SMALLER_MODEL)  # fmt: skip
    planned = command(*methods, "evaluation=accuracy", "plan=true")
    assert planned.code == 0, planned.err
    assert "1 block of tests" in planned.out
    done = command(*methods, "evaluation=accuracy")
    assert done.code == 0, done.err
    assert "influence_ekfac, eigenvalues: computed" in done.out
    assert (done.folder / "report.html").is_file()
