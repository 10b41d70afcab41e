"""Logistic regression on scikit-learn's digits: the run's own features and refusal, and dattri beside twinlens."""

from __future__ import annotations

import csv
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.running import CommandLine, installed
from twinlens.attribution.errors import UserError
from twinlens.data import digits
from twinlens.models.pixel_sums import PixelSumsConfig, PixelSumsModel

SIZES = ("data.n_train=40", "data.n_validation=10", "data.n_test=12")
COVERING = [
    f"method.{name}.top_k=20" for name in ("gradsim", "gradsim_cosine", "influence", "tracin", "random_instances")
]


def images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn images in place of scikit-learn's, whose ink lies in the rows of their label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 10
    drawn = torch.randint(0, 17, (80, 64), generator=generator)
    drawn[torch.arange(80), labels * 6] = 16
    monkeypatch.setattr(digits, "_digits", lambda: (drawn.tolist(), labels.tolist()))


def test_states_are_the_numbers_of_a_text_on_either_side_of_the_padding() -> None:
    model = PixelSumsModel(PixelSumsConfig(n_numbers=3, largest=4))
    ids = torch.tensor([[4, 1, 2, 5], [5, 4, 1, 2]])
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    states = model(ids, mask, places).last_hidden_state
    for row, last in ((0, 2), (1, 3)):
        assert states[row, last].tolist() == [1.0, 0.25, 0.5, 1.0]
    assert states[0, 1].tolist() == [1.0, 0.25, 0.0, 1.0]  # causal


@pytest.mark.long
def test_the_experiment_fits_a_linear_map_on_pixels(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    images(monkeypatch)
    few = ("evaluation.lds.subsets=5", "trainer.max_epochs=2", "trainer.accelerator=cpu", "logger=none")
    done = command("experiment=benchmark/digits", *SIZES, *few, *COVERING, base=())
    assert done.code == 0, done.err
    rows = list(csv.DictReader((done.folder / "results.csv").open()))
    assert {"lds", "loo_pearson", "loo_spearman", "seconds"} <= {row["metric"] for row in rows}
    model: Any = AutoModelForSequenceClassification.from_pretrained(done.folder / "model")
    assert torch.equal(model.decoder.values.weight[:, 0], torch.arange(18) / 16)  # nothing of the decoder has learnt
    ids = torch.arange(64)[None] % 17
    expected = model.score.weight @ torch.cat([ids[0] / 16, torch.ones(1)])
    assert torch.allclose(model(ids).logits[0], expected, atol=1e-5)


def test_digits_without_scikit_learn_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'twinlens\[digits\]'"):
        digits.DigitsDataModule().load_splits()


def test_more_digits_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images(monkeypatch)
    with pytest.raises(UserError, match="together at most 80"):
        digits.DigitsDataModule(n_train=79, n_validation=1, n_test=1).load_splits()


@pytest.mark.skipif(
    not (installed("dattri") and installed("sklearn")), reason="the benchmarks' extra environment is not installed"
)
def test_dattri_gives_the_same_scores_and_the_same_measures() -> None:
    lines = peers().table(n_train=300, n_test=50, n_halves=10)
    for name, by, lds, peer_lds, loo, peer_loo, difference in lines:
        assert float(difference) < 1e-6, (name, by)
        assert float(lds) == pytest.approx(float(peer_lds), abs=1e-3)
        assert float(loo) == pytest.approx(float(peer_loo), abs=1e-3)
    assert lines[0][2:] == pytest.approx(lines[1][2:])


def peers() -> ModuleType:
    """Imported late: it needs the peers."""
    from benchmarks import digits as compared

    return compared
