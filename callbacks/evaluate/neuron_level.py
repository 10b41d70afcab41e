"""Evaluations of the second paper as a stage: forwards over the explained split, stored under their fingerprint.

What an evaluation answers per sentence is stored; the rows of results are made of it anew. An evaluation whose
interventions follow from all sentences together (`chosen`) has a second pass (`second`) with an entry of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons, Prompts, Sentences, sentence_bytes
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows, padded
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish
from twinlens.models.residual import ResidualEngine

VALUES_ASKED = 16
"""Value neurons whose keys an evaluation reads where it does not say how many (`longest`)."""

Answer = Callable[[Sentences], dict[str, Tensor]]


def neuron_level_stage(
    session: Session, name: str, evaluation: Any, settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> list[Result]:
    """Results of one evaluation.

    Args:
        methods: the run's neuron methods, whose stored lists of value neurons some evaluations read.
    """
    model = session.readable.residual_engine()
    lists = value_lists(session, evaluation, methods) if getattr(evaluation, "reads_lists", False) else {}
    inputs = neuron_level_inputs(session, evaluation, settings, lists)
    answers, fingerprint = _stored(session, name, inputs, model, evaluation, evaluation.answers, lists)
    kept = kept_rows(session)
    answers = {key: column[kept] for key, column in answers.items()}
    keys = {method: [score_name(method, seed) for seed in found.seeds] for method, found in methods.items()}
    names = {method: found for method, found in keys.items() if found[0] in lists}
    types = types_of(session)
    prompts = Prompts(
        tuple(types[row] for row in kept.tolist()),
        model.where_it_is(),
        partial(token_text, session.readable.tokenizer, session),
        names,
    )
    if hasattr(evaluation, "second"):
        chosen = evaluation.chosen(answers, prompts)
        if chosen:
            second = {**inputs, "first": fingerprint}
            answer = partial(evaluation.second, chosen=chosen)
            found = _stored(session, name, second, model, evaluation, answer, lists)[0]
            answers = {**answers, **{key: column[kept] for key, column in found.items()}}
    if hasattr(evaluation, "text") and is_first_process():
        print(evaluation.text(answers, prompts), flush=True)
    return evaluation.evaluate(answers, prompts)


def neuron_level_inputs(
    session: Session, evaluation: Any, settings: Mapping[str, Any], lists: Mapping[str, ListedNeurons]
) -> dict[str, Any]:
    """Everything the answers depend on."""
    return {
        "examples": session.predictions[session.split].fingerprint,
        "types": hashlib.sha256("\0".join(types_of(session)).encode()).hexdigest(),
        "lists": {key: _digest(neurons) for key, neurons in lists.items()},
        "evaluation": dict(settings),
        "explain": session.explain.neuron.identity["target"],
        "code": code_of(__name__, evaluation, settings),
    }


def types_of(session: Session) -> tuple[str, ...]:
    """Type of knowledge of every explained example, empty where the data have none."""
    return types_in(session.predictions[session.split].dataset)


def types_in(rows: datasets.Dataset) -> tuple[str, ...]:
    """Type of knowledge of every row, empty where the data have none."""
    return tuple(rows["type"][:]) if "type" in rows.column_names else ("",) * len(rows)


def token_text(tokenizer: Any, session: Session, output: int) -> str:
    """What an output stands for: a token of the vocabulary, or a class."""
    return session.readout.shown(output, session.data.label_names, tokenizer)


def value_lists(session: Session, evaluation: Any, methods: Mapping[str, Any]) -> dict[str, ListedNeurons]:
    """Stored lists of value neurons of all methods and seeds, as long as the evaluation reads.

    Methods whose lists are no value neurons (layers, heads, query neurons) are left out.
    """
    found = {}
    for method, configured in methods.items():
        for seed in configured.seeds:
            key = score_name(method, seed)
            rows = datasets.load_from_disk(str(session.scores[key, session.split] / session.split)).with_format(None)
            kinds = {(role, kind) for column in zip(rows["role"][:], rows["unit_kind"][:], strict=True)
                     for role, kind in zip(*column, strict=True)}  # fmt: skip
            if kinds == {("value", "neuron")}:
                found[key] = _listed(rows, max(evaluation.longest, configured.top_k), configured.is_control)
    return found


def _listed(rows: datasets.Dataset, length: int, control: bool) -> ListedNeurons:
    attention = [[int(site == "attn") for site in row] for row in rows["site"][:]]
    layer, unit = padded(rows["layer"][:], length), padded(rows["unit"][:], length)
    return ListedNeurons(padded(attention, length) > 0, layer, unit, control=control)


def neuron_level_need(model: ResidualModel, evaluation: Any) -> Need:
    """Memory of one sentence."""
    top_k = getattr(evaluation, "longest", VALUES_ASKED)

    def needed(columns: int) -> int:
        return sentence_bytes(model, columns, top_k)

    return Need(needed, needed)


def _stored(
    session: Session,
    name: str,
    inputs: Mapping[str, Any],
    engine: ResidualEngine,
    evaluation: Any,
    answer: Answer,
    lists: Mapping[str, ListedNeurons],
) -> tuple[dict[str, Tensor], str]:
    """Answers of all explained sentences, in their order, and the fingerprint of the entry."""
    target = session.targets("neuron", session.split).target
    title = f"{name} on {session.split}"
    there: list[ResidualModel] = []

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        index = batch["index"]
        rows = index.cpu()
        asked = {
            key: ListedNeurons(
                *(getattr(neurons, part)[rows].to(index.device) for part in ("attention", "layer", "unit")),
                control=neurons.control,
            )
            for key, neurons in lists.items()
        }
        if not there:  # by the first batch the model is on its device, and so must be what is kept of its weights
            there.append(engine.where_it_is())
        sentences = Sentences(there[0], batch, target[rows].to(index.device), budget, asked)
        return {"index": index, **answer(sentences)}

    def build(folder: Path) -> Finish:
        found = run_pass(
            title,
            session.readable,
            WithinMemory(title, compute, session.memory_budget, neuron_level_need(engine, evaluation)),
            session.shards(session.split),
            session.loader(session.split),
            folder / "shards",
            session.trainers,
        ).rows
        kept = {key: column.contiguous() for key, column in found.items() if key != "index"}
        return lambda: save_file(kept, folder / "answers.safetensors")

    entry = session.store.get("evaluate", inputs, build, session.labels(evaluation=name, split=session.split))
    return load_file(entry.path / "answers.safetensors"), entry.fingerprint


def _digest(neurons: ListedNeurons) -> str:
    parts = (neurons.attention, neurons.layer, neurons.unit)
    known = b"control" if neurons.control else b""
    return hashlib.sha256(known + b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()
