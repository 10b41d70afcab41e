"""The attribution stage: every configured method over the explained split, stored under its own fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor, nn

from attribution.base import Batch, HeadInputs, NeuronModel, require_finite
from attribution.instance.protocol import InstanceMethod, InstanceScores
from attribution.instance.stream import TrainSummary, stream_scores
from attribution.neuron.protocol import NeuronMethod
from attribution.neuron.ranking import NeuronScores
from callbacks.costs import neuron_need
from callbacks.files import is_first_process, link, write_yaml
from callbacks.fingerprints import with_imports
from callbacks.memory import WithinMemory, within_memory
from callbacks.passes import index_loader, index_shards, run_pass
from callbacks.session import Session, rows_per_shard
from callbacks.shards import PARTIAL_SUMS
from callbacks.store import Entry, code_hash
from models.footprint import footprint_of

NEURON_CODE = ("models.last_token", "models.choice", "models.families", "callbacks.attribute")
INSTANCE_CODE = ("attribution.instance.stream", "callbacks.attribute")


def attribute_stage(session: Session, name: str, method: Any, settings: Mapping[str, Any]) -> None:
    """Attribute the explained split with one method, once per seed where the method draws random numbers.

    Args:
        session: gets the folder of the scores; the run folder gets `scores/<name>/[seed<k>/]<split>`.
        name: the method's name in the configuration.
        method: an instance or neuron method.
        settings: its configuration, plain values.
    """
    for seed in getattr(method, "seeds", [None]):
        chosen = method if seed is None else method.for_seed(seed)
        if isinstance(chosen, NeuronMethod):
            entry = _neurons(session, name, chosen, {**settings, "seed": seed})
        else:
            entry = _instances(session, name, chosen, {**settings, "seed": seed})
        session.scores[score_name(name, seed)] = entry.path
        _link_scores(session, name, seed, entry)
        print(f"{score_name(name, seed)}: {'read from the store' if entry.reused else 'computed'}", flush=True)


def method_inputs(session: Session, method: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the scores of a method depend on; `settings` with the seed where there is one."""
    of_neurons = isinstance(method, NeuronMethod)
    return {
        **({} if of_neurons else {"train": session.predictions["train"].fingerprint}),
        "examples": session.predictions[session.split].fingerprint,
        "method": {k: v for k, v in settings.items() if v is not None},
        **(session.reading if of_neurons else {}),
        "code": code_hash(with_imports((type(method).__module__, *(NEURON_CODE if of_neurons else INSTANCE_CODE)))),
    }


def score_name(name: str, seed: int | None) -> str:
    """Folder of a method's scores below `scores/`."""
    return name if seed is None else f"{name}/seed{seed}"


def _labels(session: Session, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return session.labels(method=name, split=session.split, draw=settings["seed"])


def _link_scores(session: Session, name: str, seed: int | None, entry: Entry) -> None:
    folder = session.folder / "scores" / score_name(name, seed)
    for part in (session.split, "train_summary"):
        if (entry.path / part).is_dir():
            link(entry.path / part, folder / part)
    link(entry.path / "method.yaml", session.folder / "scores" / name / "method.yaml")


# -- neurons -----------------------------------------------------------------------------------------------------


def _neurons(session: Session, name: str, method: NeuronMethod, settings: Mapping[str, Any]) -> Entry:
    predictions = session.predictions[session.split]

    def build(folder: Path) -> None:
        model = session.classifier
        engine = model.engine()
        description = method.describe(engine)
        rows = _neuron_pass(session, name, method, engine, folder)
        if not is_first_process():
            return
        if "target" not in rows:
            rows["target"] = predictions.column("prediction")
            rows["target_prob"] = predictions.column("prob").gather(1, rows["target"][:, None])[:, 0]
        datasets.Dataset(neuron_table(rows)).save_to_disk(str(folder / session.split))
        write_yaml(folder / "method.yaml", {"name": name, **description, **session.reading})

    inputs = method_inputs(session, method, settings)
    return session.store.get("attribute", inputs, build, _labels(session, name, settings))


def _neuron_pass(
    session: Session, name: str, method: NeuronMethod, engine: NeuronModel, folder: Path
) -> dict[str, Tensor]:
    """All examples' best neurons, in the order of `index`."""
    split = session.split

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        scores = method.attribute(engine, batch, budget)
        require_finite(scores.score, f"the score of {name} on {split}", batch["index"])
        return {"index": batch["index"], **_tensors_of(scores)}

    if method.reads_text:
        shards, loader = session.shards(split), session.loader(split)
    else:
        shards, loader = row_shards(len(session.data.splits[split])), index_loader
    need = neuron_need(method, footprint_of(session.classifier.backbone), session.sequences)
    cut = WithinMemory(f"{name} on {split}", compute, session.memory_budget, need)
    result = run_pass(
        f"{name} on {split}", session.classifier, cut, shards, loader, folder / "shards", session.trainers
    )
    return result.rows


def _tensors_of(scores: NeuronScores) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in vars(scores).items() if tensor is not None}


def neuron_table(rows: Mapping[str, Tensor]) -> pyarrow.Table:
    """The contract's columns of FFN value neurons; entries with layer −1 stand for shorter lists and are left out."""
    kept = rows["layer"] >= 0
    lengths = kept.sum(1)
    offsets = pyarrow.array(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int().numpy())

    def listed(values: Tensor) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array(values[kept].numpy()))

    def constant(value: str) -> pyarrow.Array:
        return pyarrow.ListArray.from_arrays(offsets, pyarrow.array([value] * int(lengths.sum())))

    completeness = rows.get("completeness")
    return pyarrow.table(
        {
            "index": pyarrow.array(rows["index"].numpy()),
            "target": pyarrow.array(rows["target"].long().numpy()),
            "target_prob": pyarrow.array(rows["target_prob"].float().numpy()),
            "role": constant("value"),
            "unit_kind": constant("neuron"),
            "site": constant("ffn"),
            "layer": listed(rows["layer"].int()),
            "unit": listed(rows["unit"].int()),
            "position": listed(torch.full_like(rows["unit"], -1).int()),
            "score": listed(rows["score"].float()),
            "completeness": pyarrow.array(
                [None] * len(kept) if completeness is None else completeness.tolist(), pyarrow.list_(pyarrow.float32())
            ),
        }
    )


# -- instances ---------------------------------------------------------------------------------------------------


def row_shards(n_rows: int) -> list[list[list[int]]]:
    """Shards of one batch each, for passes that read cached tensors."""
    return index_shards(n_rows, rows_per_shard(n_rows))


def head_inputs(session: Session, split: str, labels: str) -> HeadInputs:
    """Cached head inputs of a split with gold or predicted labels."""
    predictions = session.predictions[split]
    column = "label" if labels == "gold" else "prediction"
    return HeadInputs(predictions.features, predictions.column(column), session.classifier.head)


def _instances(session: Session, name: str, method: InstanceMethod, settings: Mapping[str, Any]) -> Entry:
    title = f"{name} on {session.split}"

    def build(folder: Path) -> None:
        labels = getattr(method, "labels", "gold")
        train = head_inputs(session, "train", labels)
        test = head_inputs(session, session.split, labels)
        scorer, budget = within_memory(title, lambda size: method.prepare(train, size), session.memory_budget)
        allowed = [budget]  # what the last block took, after any out-of-memory error

        def compute(batch: Batch) -> dict[str, Tensor]:
            index = batch["index"].cpu()
            part = HeadInputs(test.features[index], test.labels[index], test.head)
            (scores, summary), allowed[0] = within_memory(
                title, lambda size: stream_scores(scorer, part, index, method.top_k, size), allowed[0]
            )
            sums = {f"{PARTIAL_SUMS}{key}": torch.as_tensor(value) for key, value in vars(summary).items()}
            return {**vars(scores), **sums}

        shards = row_shards(len(test))
        result = run_pass(
            title,
            nn.Identity(),
            compute,
            shards,
            index_loader,
            folder / "shards",
            session.trainers,
        )
        if not is_first_process():
            return
        datasets.Dataset(instance_table(InstanceScores(**result.rows))).save_to_disk(str(folder / session.split))
        summary = TrainSummary.empty(len(train))
        for part in result.partials:
            summary = summary.merge(TrainSummary(part["sum"], part["max"], part["votes"], int(part["n_test"])))
        columns = summary.finalize(scorer.self_influence())
        table = pyarrow.table({key: pyarrow.array(value.numpy()) for key, value in columns.items()})
        datasets.Dataset(table).save_to_disk(str(folder / "train_summary"))
        write_yaml(folder / "method.yaml", {"name": name, "top_k": method.top_k, **scorer.describe()})

    inputs = method_inputs(session, method, settings)
    return session.store.get("attribute", inputs, build, _labels(session, name, settings))


def instance_table(scores: InstanceScores) -> pyarrow.Table:
    """The contract's columns of instance scores."""

    def lists(values: Tensor) -> pyarrow.Array:
        flat = pyarrow.array(values.flatten().numpy())
        fixed = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return fixed.cast(pyarrow.list_(flat.type))

    columns = {"index": pyarrow.array(scores.index.numpy())}
    for name in ("top_index", "top_score", "bottom_index", "bottom_score"):
        columns[name] = lists(getattr(scores, name))
    return pyarrow.table(columns)
