"""Columns beside a split's own: predictions, and where labels are folded what each prediction counts as."""

from __future__ import annotations

from pathlib import Path

import datasets
import torch

from twinlens.callbacks.predict.stage import with_fold, with_predictions
from twinlens.data.labels import Fold

PROB = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1]])


def test_a_folded_split_says_by_itself_what_its_numbers_mean(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"index": [0, 1, 2], "label": [0, 1, -1], "input_ids": [[1], [2], [3]]})
    fold = Fold(("entailment", "non-entailment"), (0, 1, 1))
    with_fold(with_predictions(rows, PROB), fold).save_to_disk(str(tmp_path / "test"))
    found = datasets.load_from_disk(str(tmp_path / "test"))
    assert found["label"][:] == [0, 1, -1]
    assert found["prediction"][:] == [0, 2, 1]  # classes of the model, as prob
    assert found["folded_prediction"][:] == [0, 1, 1]
    assert torch.allclose(torch.tensor(found["prob"][:]), PROB)
    for column in ("label", "folded_prediction"):
        assert found.features[column].names == ["entailment", "non-entailment"]
