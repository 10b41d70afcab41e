"""Unrolled training through the stages: equal to matrix functions over plain loops under the weights of every epoch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.callbacks.attribute.layer_case import Rows, attributed, dense_scores, gradients_of, session_of
from tests.callbacks.attribute.test_whole_gradient_scores import SMALL, close
from tests.models.test_module import ARCHITECTURE
from tests.oracles_gradients import fisher_of_layers
from twinlens.attribution.instance.unrolling import SegmentedUnrolling
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.models.backbone import load_tokenizer
from twinlens.models.module import TextClassifier

RATES = (0.4, 0.2, 0.9)
"""Sums of learning rates; behind the second epoch lies the explained model."""


def trained_session(folder: Path) -> Session:
    """A session whose model is that of the second of three epochs."""
    session = session_of(folder, Rows("classification", "left", batch_size=7))
    models = {}
    for number in (1, 2, 3):
        model = copied(session, session.readable)
        torch.manual_seed(number)
        for parameter in model.parameters() if number != 2 else ():
            parameter.data += 0.05 * torch.randn_like(parameter)
        models[str(folder / str(number))] = model
    session.epochs = tuple(
        Epoch(number, folder / str(number), "w" if number == 2 else f"w{number}", 0.1, rate)
        for number, rate in enumerate(RATES, start=1)
    )
    session.open_epoch = models.__getitem__
    return session


def copied(session: Session, model: Any) -> Any:
    """Another model of the same weights."""
    other = TextClassifier(
        "tiny", tokenizer=load_tokenizer("models/tiny"), architecture=ARCHITECTURE, **session.model_arguments
    )
    other.load_state_dict(model.state_dict())
    return other.eval().requires_grad_(False)


def under(session: Session, number: int) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of both splits, [examples, numbers], and EK-FAC's matrix over all layers, under an epoch's weights."""
    own = copy.copy(session)
    own.model = copied(session, session.open_epoch(str(session.epochs[number - 1].folder)))  # type: ignore[misc]
    layers, gradients = gradients_of(own, SMALL)
    batch = own.data.batches["train"]  # type: ignore[attr-defined]
    blocks = fisher_of_layers(layers, own.classifier, batch, True, True)
    return {split: torch.cat([g.flatten(1) for g in parts], 1) for split, parts in gradients.items()}, (
        torch.block_diag(*blocks)
    )


@pytest.mark.parametrize("scale", [1.0, pytest.param(20.0, marks=pytest.mark.long)])
def test_scores_equal_the_formula_written_out_up_to_the_explained_epoch(tmp_path: Path, scale: float) -> None:
    session = trained_session(tmp_path)
    method = SegmentedUnrolling(params=SMALL, projection_dim=64, rate_scale=scale)  # which keeps all of these layers
    folder = attributed(session, "source", method, {"rate_scale": scale})
    told = yaml.safe_load((folder / "method.yaml").read_text())
    assert told["segments"] == 2
    assert told["rate_sums"] == list(RATES[:2])
    at_first, at_second = (under(session, number) for number in (1, 2))
    left = at_second[0]["test"]
    expected = torch.zeros(len(left), len(at_second[0]["train"]), dtype=torch.float64)
    for (gradients, matrix), rate in ((at_second, RATES[1]), (at_first, RATES[0])):
        decay = torch.linalg.matrix_exp(-scale * rate * matrix)
        # (1 − exp(−TH))/H, where a direction is flat the time itself
        values, vectors = torch.linalg.eigh(matrix)
        flat = values < 1e-9
        gain = torch.where(flat, scale * rate, -torch.expm1(-scale * rate * values) / values.masked_fill(flat, 1.0))
        expected += left @ (vectors * gain) @ vectors.T @ gradients["train"].T
        left = left @ decay
    close(dense_scores(folder), expected, 1e-4)
