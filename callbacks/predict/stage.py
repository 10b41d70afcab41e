"""The examples stage: predictions and head inputs of a split, one forward per example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.errors import require_finite
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Epoch, Predictions, Session
from twinlens.callbacks.predict.next_token import FILTERED_BY, NextTokens, with_next_tokens
from twinlens.callbacks.store.files import link
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish
from twinlens.data.labels import Fold
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier


def examples_stage(session: Session, split: str) -> Path:
    """Predict a split, or read an earlier prediction, and put it into the session and the run folder.

    Returns:
        the stored prediction.
    """
    inputs = examples_inputs(session, split)
    labels = session.labels(split=split)
    title = f"predict {split}"
    entry = session.store.get("examples", inputs, lambda folder: _predict(session, split, folder), labels, title)
    session.predictions[split] = Predictions(
        dataset=datasets.load_from_disk(str(entry.path / "dataset")),
        features=load_file(entry.path / "features.safetensors")["features"],
        fingerprint=entry.fingerprint,
    )
    link(entry.path / "dataset", session.folder / "examples" / split)
    return entry.path


def epochs_stage(session: Session, make_model: Callable[..., TextClassifier | LanguageModel], split: str) -> None:
    """Predict a split with the weights of every kept epoch, or read an earlier prediction, and note its folder.

    Args:
        session: gets `epoch_examples` and `open_epoch`.
        make_model: builds a classifier; keyword `path` says from which checkpoint.
        split: one that the explained model has predicted.
    """

    def predict(epoch: Epoch, folder: Path) -> Finish:
        model = session.trained_model(make_model, str(epoch.folder))
        return _predict(replace(session, weights=epoch.weights, model=model), split, folder)

    session.open_epoch = partial(session.trained_model, make_model)
    for epoch in session.epochs:
        inputs = examples_inputs(replace(session, weights=epoch.weights), split)
        labels = session.labels(split=split, epoch=epoch.number)
        title = f"predict {split}, epoch {epoch.number}"
        entry = session.store.get("examples", inputs, partial(predict, epoch), labels, title)
        session.epoch_examples[epoch.number, split] = entry.path


def examples_inputs(session: Session, split: str) -> dict[str, Any]:
    """Everything the predictions of a split depend on."""
    return {
        "weights": session.weights,
        "split": session.data.fingerprint(split),
        "rows": _digest(session.data.splits[split]),
        "readout": session.readout.name,
        "precision": session.trainers.numbers,
        "code": code_of(__name__, session.data, {"_target_": session.model_target}),
    }


def _digest(rows: datasets.Dataset) -> str:
    """sha256 over everything that is copied beside the predictions: texts and plants as well as tokens."""
    digest = hashlib.sha256(json.dumps(rows.column_names).encode())
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _predict(session: Session, split: str, folder: Path) -> Finish:
    model: Any = session.readable
    rows = session.data.splits[split]
    asked = NextTokens(rows, getattr(session.data, "answer", "first")) if session.readout.of_vocabulary else None

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        features = model.features(batch)
        scores = model.scores(features).float()
        require_finite(scores, f"the model's score on {split}", batch["index"])
        said = {"prob": scores.softmax(-1)} if asked is None else asked.of_batch(model, batch, scores)
        return {"index": batch["index"], "features": features.float(), **said}

    shards = session.shards(split)
    need = prediction_need(session.footprint, session.sequences, session.window(split))
    cut = WithinMemory(f"predict {split}", compute, session.memory_budget, need)
    result = run_pass(
        f"predict {split}", model, cut, shards, session.loader(split), folder / "shards", session.trainers
    )

    def finish() -> None:
        kept = ("features", *FILTERED_BY) if asked else ("features",)
        save_file({name: result.rows[name].contiguous() for name in kept}, folder / "features.safetensors")
        if asked:
            table = with_next_tokens(rows, result.rows, model.tokenizer)
        else:
            table = with_predictions(rows, result.rows["prob"], session.readout.name)
        fold = session.data.folds.get(split)
        written = datasets.Dataset(table) if fold is None else with_fold(table, fold)
        written.save_to_disk(str(folder / "dataset"))

    return finish


def with_predictions(rows: datasets.Dataset, prob: Tensor, readout: str = "classification") -> pyarrow.Table:
    """The split's own columns with `readout`, `prediction` and `prob` beside them.

    Args:
        rows: the split in the order of `index`.
        prob: softmax probabilities, [examples, classes]; in multiple choice the classes are the choices.
        readout: what gave them, `classification` or `choice`.
    """
    table = rows.with_format("arrow")[:]
    values = pyarrow.array(prob.flatten().numpy())
    lists = pyarrow.FixedSizeListArray.from_arrays(values, prob.shape[1]).cast(pyarrow.list_(pyarrow.float32()))
    table = table.append_column("readout", pyarrow.array([readout] * len(prob)))
    table = table.append_column("prediction", pyarrow.array(prob.argmax(-1).numpy()))
    return table.append_column("prob", lists)


def with_fold(table: pyarrow.Table, fold: Fold) -> datasets.Dataset:
    """A split whose labels are coarser than the model's classes, with what a reader of the file alone needs.

    Returns:
        the rows with `folded_prediction` (the label that the prediction counts as) beside `prediction`, which stays a
        class of the model as `prob` stays those of its classes. `label` and `folded_prediction` are ClassLabels that
        name the folded classes.
    """
    folded = [fold.of_class[prediction] for prediction in table["prediction"].to_pylist()]
    table = table.append_column(FOLDED_PREDICTION, pyarrow.array(folded, pyarrow.int64()))
    table = table.set_column(table.column_names.index("label"), "label", table["label"].cast(pyarrow.int64()))
    names = datasets.ClassLabel(names=list(fold.names))
    features = datasets.Features.from_arrow_schema(table.schema) | {"label": names, FOLDED_PREDICTION: names}
    return datasets.Dataset(table, datasets.DatasetInfo(features=datasets.Features(features)))
