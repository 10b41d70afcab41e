"""kronfluence's influence scores of a classifier, from token ids."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D


def as_dataset(batch: dict[str, Tensor]) -> torch.utils.data.TensorDataset:
    """Ids, mask and labels of every example."""
    return torch.utils.data.TensorDataset(batch["input_ids"], batch["attention_mask"], batch["labels"])


def kronfluence_scores(
    model: nn.Module,
    test: torch.utils.data.Dataset,
    train: torch.utils.data.Dataset,
    batch_size: int,
    folder: str,
    dtype: torch.dtype,
    strategy: str,
    decomposing: list[float] | None = None,
    covariance_dtype: torch.dtype | None = None,
) -> Tensor:
    """kronfluence's pairwise scores with empirical labels, damped by 0.1 of each layer's mean eigenvalue.

    Args:
        decomposing: gets the seconds of the decompositions.
        covariance_dtype: of the covariances' sums; None: like all else.

    Returns:
        [tests, train examples].
    """
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task as PeerTask

    class Losses(PeerTask):  # type: ignore[misc]  # the library has no types
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            assert not sample
            return cross_entropy(model(batch[0], batch[1]), batch[2], reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_attention_mask(self, batch: Any) -> Tensor:
            return batch[1]

    task = Losses()
    given = copy.deepcopy(model)
    for module in list(given.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):  # which kronfluence does not know
                setattr(module, name, as_linear(child))
    prepared = prepare_model(given.requires_grad_(True), task)
    analyzer = Analyzer("peer", prepared, task, cpu=True, output_dir=folder, disable_tqdm=True)
    factors = FactorArguments(
        strategy=strategy,
        use_empirical_fisher=True,
        activation_covariance_dtype=covariance_dtype or dtype,
        gradient_covariance_dtype=covariance_dtype or dtype,
        eigendecomposition_dtype=torch.float64,
        per_sample_gradient_dtype=dtype,
        lambda_dtype=dtype,
    )
    analyzer.fit_covariance_matrices("factors", train, per_device_batch_size=batch_size, factor_args=factors)
    began = time.perf_counter()
    analyzer.perform_eigendecomposition("factors", factor_args=factors)
    if decomposing is not None:
        decomposing.append(time.perf_counter() - began)
    analyzer.fit_lambda_matrices("factors", train, per_device_batch_size=batch_size, factor_args=factors)
    scores = ScoreArguments(
        damping_factor=None,  # 0.1 of the mean eigenvalue
        score_dtype=dtype,
        per_sample_gradient_dtype=dtype,
        precondition_dtype=dtype,
    )
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        test,
        train,
        per_device_query_batch_size=batch_size,
        per_device_train_batch_size=batch_size,
        score_args=scores,
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"]


def as_linear(layer: Conv1D) -> nn.Linear:
    """The same map as an nn.Linear."""
    d_in, d_out = layer.weight.shape
    linear = nn.Linear(d_in, d_out).to(layer.weight.dtype)
    linear.weight.data, linear.bias.data = layer.weight.data.T.contiguous(), layer.bias.data.clone()
    return linear
