"""Passes of the second paper's evaluations: one over the explained sentences for all of them that the store lacks.

Each evaluation's answers are an entry of their own, so that a changed one is computed alone. An evaluation that scores
every neuron (`of_part`) goes through the neurons instead, with all sentences at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.reads import Reads, reads_of
from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons, Sentences, sentence_bytes
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import index_loader, run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import index_shards
from twinlens.callbacks.store.fingerprints import code_of, fingerprint_of
from twinlens.callbacks.store.store import Finish, as_in_json
from twinlens.models.residual import ResidualEngine

VALUES_ASKED = 16
"""Value neurons whose keys an evaluation reads where it does not say how many (`longest`)."""
FILE = "answers.safetensors"
PARTS_OF_BUDGET = 2
"""Sentences whose neurons are scored together may take one part of the memory budget."""

Answer = Callable[[Sentences], dict[str, Tensor]]
Answers = dict[Path, dict[str, Tensor]]


@dataclass(frozen=True)
class Job:
    """Answers of one evaluation.

    Attributes:
        name: in the configuration.
        evaluation: what answers.
        answer: how it does.
        inputs: all that the answers depend on.
        lists: stored lists of value neurons that it reads.
    """

    name: str
    evaluation: Any
    answer: Answer
    inputs: Mapping[str, Any]
    lists: Mapping[str, ListedNeurons]

    @property
    def fingerprint(self) -> str:
        """Of the entry."""
        return fingerprint_of(as_in_json(self.inputs))


def job_of(
    session: Session, name: str, evaluation: Any, settings: Mapping[str, Any], lists: Mapping[str, ListedNeurons]
) -> Job:
    """What an evaluation asks of every sentence."""
    inputs = neuron_level_inputs(session, evaluation, settings, lists)
    return Job(name, evaluation, evaluation.answers, inputs, lists)


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


def neuron_level_need(model: ResidualModel, *evaluations: Any) -> Need:
    """Memory of one sentence."""
    top_k = max(getattr(evaluation, "longest", VALUES_ASKED) for evaluation in evaluations)

    def needed(columns: int) -> int:
        return sentence_bytes(model, columns, top_k)

    return Need(needed, needed)


def stored_answers(session: Session, job: Job) -> dict[str, Tensor]:
    """Answers of all explained sentences, in their order; computed where the store lacks them."""
    compute_answers(session, [job])
    return load_file(session.store.root / "evaluate" / job.fingerprint / FILE)


def compute_answers(session: Session, jobs: Sequence[Job]) -> None:
    """Write the entries that the store lacks, those of all evaluations over sentences in one pass."""
    engine = session.readable.residual_engine()
    for job in jobs:
        if scores_every_neuron(job.evaluation):
            _write_part_sums(session, engine, job)
    # in one order for every run: two that want the same entries never wait for each other
    over_sentences = [job for job in jobs if not scores_every_neuron(job.evaluation)]
    _hold(session, engine, sorted(over_sentences, key=lambda job: job.fingerprint), {})


def scores_every_neuron(evaluation: Any) -> bool:
    """Whether an evaluation goes through the neurons with all sentences at once."""
    return hasattr(evaluation, "of_part")


# -- over the sentences ------------------------------------------------------------------------------------------


def _hold(session: Session, engine: ResidualEngine, jobs: Sequence[Job], held: Mapping[Path, Job]) -> Answers:
    """Take the entries of `jobs` that are missing one after the other, then answer all that are held in one pass.

    Entries are begun inside each other, so that all of them are this run's while it computes. Other processes follow
    the first one's way through them.
    """
    if not jobs:
        return _answer(session, engine, held) if held else {}
    job, *rest = jobs
    found: Answers = {}

    def build(folder: Path) -> Finish:
        found.update(_hold(session, engine, rest, {**held, folder: job}))
        return lambda: save_file(found[folder], folder / FILE)

    labels = session.labels(evaluation=job.name, split=session.split)
    if session.store.get("evaluate", job.inputs, build, labels, job.name).reused:
        return _hold(session, engine, rest, held)
    return found


def _answer(session: Session, engine: ResidualEngine, held: Mapping[Path, Job]) -> Answers:
    """The pass: what several evaluations read of a sentence is computed once. Answers by the entry's folder."""
    jobs, first = list(held.values()), next(iter(held))
    title = f"{', '.join(job.name for job in jobs)} on {session.split}"
    evaluations = [job.evaluation for job in jobs]
    targets = session.targets("neuron", session.split)
    target, completions = targets.target, targets.completions
    there: list[tuple[ResidualEngine, Reads]] = []

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        index = batch["index"]
        rows = index.cpu()
        if not there:  # by the first batch the model is on its device, and so must be what is kept of its weights
            model = engine.where_it_is()
            there.append((model, reads_of(evaluations, model)))
        model, reads = there[0]
        whole = None if completions is None else completions.at(rows)
        shared = Sentences(model, batch, target[rows].to(index.device), budget, reads=reads, completions=whole)
        answers = {"index": index}
        for number, job in enumerate(jobs):
            own = replace(shared, lists={key: _at(lists, rows, index.device) for key, lists in job.lists.items()})
            answers |= {f"{number}/{key}": values for key, values in job.answer(own).items()}
        return answers

    need = neuron_level_need(engine, *evaluations)
    if completions is not None:
        longest = completions.longest
        need = need.lengthened(lambda columns: columns + longest)
    rows = run_pass(
        title,
        session.readable,
        WithinMemory(title, compute, session.memory_budget, need),
        session.shards(session.split),
        session.loader(session.split),
        first / "shards" / _set_name(jobs) if len(jobs) > 1 else first / "shards",
        session.trainers,
    ).rows
    return {folder: _starting_with(f"{number}/", rows) for number, folder in enumerate(held)}


def _starting_with(prefix: str, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): part.contiguous() for key, part in rows.items() if key.startswith(prefix)}


def _set_name(jobs: Sequence[Job]) -> str:
    """Shards of other evaluations together are not gone on from."""
    return hashlib.sha256("".join(job.fingerprint for job in jobs).encode()).hexdigest()[:12]


def _at(neurons: ListedNeurons, rows: Tensor, device: torch.device) -> ListedNeurons:
    parts = (getattr(neurons, part)[rows].to(device) for part in ("attention", "layer", "unit"))
    return ListedNeurons(*parts, control=neurons.control)


def _digest(neurons: ListedNeurons) -> str:
    parts = (neurons.attention, neurons.layer, neurons.unit)
    known = b"control" if neurons.control else b""
    return hashlib.sha256(known + b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest()


# -- over the neurons --------------------------------------------------------------------------------------------


def sentences_at_once(evaluation: Any, model: ResidualModel, tokens: int, memory_budget: int) -> int:
    """How many sentences' neurons are scored together; results do not depend on it."""
    return max(1, memory_budget // PARTS_OF_BUDGET // evaluation.bytes_at_once(model, tokens))


def _write_part_sums(session: Session, engine: ResidualEngine, job: Job) -> None:
    """The entry of an evaluation that scores every neuron: a pass over parts of the neurons, all sentences at each."""
    evaluation, title = job.evaluation, f"{job.name} on {session.split}"
    tokens = max(len(ids) for ids in session.data.splits[session.split]["input_ids"][:])
    known: dict[int, tuple[ResidualEngine, list[Any], Tensor]] = {}

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        device = batch["index"].device
        if budget not in known:  # after an out-of-memory error there is less of it
            known.clear()
            model = engine.where_it_is()
            known[budget] = (model, *_scored(session, model, evaluation, tokens, budget, device))
        model, groups, order = known[budget]
        found: list[dict[str, Tensor]] = []
        for number in batch["index"].tolist():
            parts = [evaluation.of_part(model, group.to(device), number, budget) for group in groups]
            found.append({name: torch.cat([part[name] for part in parts])[order] for name in parts[0]})
        return {"index": batch["index"], **{name: torch.stack([one[name] for one in found]) for name in found[0]}}

    def build(folder: Path) -> Finish:
        shards = index_shards(evaluation.n_parts(engine), 1)
        within = WithinMemory(title, compute, session.memory_budget, part_need(evaluation, engine, tokens))
        rows = run_pass(title, session.readable, within, shards, index_loader, folder / "shards", session.trainers).rows

        def finish() -> None:
            parts = {name: part for name, part in rows.items() if name != "index"}
            answers = evaluation.total(parts, engine, tokens)
            save_file({key: part.contiguous() for key, part in answers.items()}, folder / FILE)

        return finish

    labels = session.labels(evaluation=job.name, split=session.split)
    session.store.get("evaluate", job.inputs, build, labels, job.name)


def part_need(evaluation: Any, model: ResidualModel, tokens: int) -> Need:
    """Memory of a part of the neurons with a single sentence."""
    each = PARTS_OF_BUDGET * evaluation.bytes_at_once(model, tokens)
    return Need(lambda columns: each, lambda columns: each)


def _scored(
    session: Session, model: ResidualModel, evaluation: Any, tokens: int, budget: int, device: torch.device
) -> tuple[list[Any], Tensor]:
    """All sentences in groups that are scored together, kept on the host, and the order that they have to be put in."""
    target = session.targets("neuron", session.split).target
    batches = [batch for shard in session.shards(session.split) for batch in shard]
    need, at_once = neuron_level_need(model, evaluation), sentences_at_once(evaluation, model, tokens, budget)
    scored, index = [], []
    for batch in session.loader(session.split)(batches):
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        step = min(at_once, need.examples(len(batch["index"]), batch["input_ids"].shape[-1], budget))
        for start in range(0, len(batch["index"]), step):
            part = {name: tensor[start : start + step] for name, tensor in batch.items()}
            own = target[part["index"].cpu()].to(device)
            scored.append(evaluation.scored(Sentences(model, part, own, budget)).padded(tokens).to(torch.device("cpu")))
        index.append(batch["index"])
    groups: list[Any] = []
    for part in scored:
        if groups and len(groups[-1]) + len(part) <= at_once:
            groups[-1] = groups[-1].joined([part])
        else:
            groups.append(part)
    return groups, torch.cat(index).argsort()
