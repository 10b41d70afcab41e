"""(EK-)FAC with empirical labels beside kronfluence, an independent implementation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.attribution.instance.cases import choice_head, make_choices, make_head, make_split, prepared_scores
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.instance.inputs import HeadInputs


@pytest.mark.parametrize("strategy", ["ekfac", "kfac"])
@pytest.mark.parametrize("case", ["linear", "mlp", "choices"])
def test_equals_kronfluence(case, strategy, tmp_path):
    analyzer = pytest.importorskip("kronfluence.analyzer", reason="needs kronfluence (pip install twinlens[bench])")
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    if case == "choices" and strategy == "kfac":
        pytest.skip("kronfluence takes the mean over the sequences of an example, K-FAC-expand the sum")
    head = choice_head("mlp") if case == "choices" else make_head(case)
    make = make_choices if case == "choices" else make_split
    train, test = make(head, 24), make(head, 5, seed=2)
    # kronfluence's factors are in the type of the model; double precision on both sides leaves only the definitions.
    train, test = (HeadInputs(s.features.double(), s.labels, head) for s in (train, test))

    class Losses(Task):
        def compute_train_loss(self, batch, model, sample=False):
            assert not sample
            return nn.functional.cross_entropy(model(batch[0]).flatten(1), batch[1], reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    task = Losses()
    model = analyzer.prepare_model(nn.Sequential(copy.deepcopy(head)).double(), task)
    peer = analyzer.Analyzer("peer", model, task, cpu=True, output_dir=str(tmp_path), disable_tqdm=True)
    splits = [torch.utils.data.TensorDataset(s.features, s.labels) for s in (train, test)]
    double = torch.float64
    peer.fit_all_factors(
        "factors",
        splits[0],
        per_device_batch_size=7,
        factor_args=FactorArguments(
            strategy=strategy,
            use_empirical_fisher=True,
            activation_covariance_dtype=double,
            gradient_covariance_dtype=double,
            eigendecomposition_dtype=double,
            per_sample_gradient_dtype=double,
            lambda_dtype=double,
        ),
    )
    peer.compute_pairwise_scores(
        "scores",
        "factors",
        splits[1],
        splits[0],
        per_device_query_batch_size=5,
        per_device_train_batch_size=7,
        score_args=ScoreArguments(
            damping_factor=None,  # 0.1 · mean eigenvalue of each layer
            score_dtype=double,
            per_sample_gradient_dtype=double,
            precondition_dtype=double,
        ),
    )
    expected = peer.load_pairwise_scores("scores")["all_modules"].double()
    actual = prepared_scores(Influence(strategy, fisher="empirical", damping=0.1), train, test)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
