"""EK-FAC over all linear layers of a tiny GPT-2 classifier beside kronfluence, an independent implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.kronfluence_peer import as_dataset, kronfluence_scores
from benchmarks.layers import Classifier
from tests.attribution.gradients.cases import Case, case
from tests.attribution.gradients.test_fisher import bases_of
from tests.families import random_batch
from twinlens.attribution.gradients.fisher import absolute_damping
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.gradients.whole import HeldTests, Inverse
from twinlens.attribution.targets import Targets
from twinlens.models.linear_layers import linear_layers


def test_all_layers_equal_kronfluence(tmp_path: Path) -> None:
    """K-FAC is left out: kronfluence takes S as a mean over tokens, K-FAC-expand sums over those of an example."""
    pytest.importorskip("kronfluence.analyzer", reason="needs kronfluence (pip install twinlens[bench])")
    tiny = case("gpt2")
    train, test = random_batch([9, 6, 4, 7, 5, 3, 8, 9]), random_batch([7, 3, 5], seed=7)
    model = Classifier(tiny.module["backbone"], tiny.module["head"])
    layers = linear_layers(model, model.head, "all")
    expected = kronfluence_scores(model, as_dataset(test), as_dataset(train), 4, str(tmp_path), torch.float64, "ekfac")
    ours = Case(tiny.module, linear_layers(tiny.module, tiny.module["head"], "all"))
    assert len(ours.layers) == len(layers)
    bases = bases_of(ours, train, "empirical", corrected=True)
    inverses = [
        Inverse(basis, absolute_damping(basis, 0.1, layer.name))
        for basis, layer in zip(bases, ours.layers, strict=True)
    ]
    held = HeldTests(ours.layers, inverses, 3, len(train["labels"]), False, 2**20)
    with recording(ours.layers) as tape:
        held.add(tape, ours.scores(test), Targets(test["labels"]))
    with recording(ours.layers) as tape:
        found, _ = held.scores(tape, ours.scores(train), train["labels"])
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
