"""Evaluations of the second paper as a stage: rows of results, made anew of the answers that the store keeps.

An evaluation whose interventions follow from all sentences together (`chosen`) has a second pass (`second`) with an
entry of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import datasets

from twinlens.attribution.evaluation.neuron_level.sentences import ListedNeurons, Prompts
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.attribute.score_files import score_name
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows, padded
from twinlens.callbacks.evaluate.neuron_level_pass import Job, compute_answers, job_of, stored_answers, types_of
from twinlens.callbacks.evaluate.prompt_record import RECORD, write_record
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process


def neuron_level_pass(
    session: Session, evaluations: Mapping[str, Any], settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> dict[str, Job]:
    """Answer all that evaluations ask of the explained sentences and the store lacks, in one pass.

    Args:
        evaluations: of the second paper, by name.
        settings: their configurations by name, plain values.
        methods: the run's neuron methods, whose stored lists of value neurons some evaluations read.

    Returns:
        what was asked, by the evaluations' names.
    """
    jobs = {
        name: job_of(session, name, evaluation, settings[name], lists_of(session, evaluation, methods))
        for name, evaluation in evaluations.items()
    }
    compute_answers(session, [*jobs.values()])
    return jobs


def neuron_level_stage(
    session: Session,
    name: str,
    evaluation: Any,
    settings: Mapping[str, Any],
    methods: Mapping[str, Any],
    job: Job | None = None,
) -> list[Result]:
    """Results of one evaluation.

    Args:
        methods: the run's neuron methods, whose stored lists of value neurons some evaluations read.
        job: what the shared pass has answered for it; None: there was none, so that its lists are read here.
    """
    model = session.readable.residual_engine()
    if job is None:
        job = job_of(session, name, evaluation, settings, lists_of(session, evaluation, methods))
    kept = kept_rows(session)
    answers = {key: column[kept] for key, column in stored_answers(session, job).items()}
    keys = {method: [score_name(method, seed) for seed in found.seeds] for method, found in methods.items()}
    names = {method: found for method, found in keys.items() if found[0] in job.lists}
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
            answer = partial(evaluation.second, chosen=chosen)
            second = Job(name, evaluation, answer, {**job.inputs, "first": job.fingerprint}, job.lists)
            answers |= {key: column[kept] for key, column in stored_answers(session, second).items()}
    if hasattr(evaluation, "text") and is_first_process():
        print(evaluation.text(answers, prompts), flush=True)
    if hasattr(evaluation, "recorded") and is_first_process():
        write_record(session.folder / f"{name}{RECORD}", evaluation.recorded(answers, prompts), prompts.token)
    return evaluation.evaluate(answers, prompts)


def token_text(tokenizer: Any, session: Session, output: int) -> str:
    """What an output stands for: a token of the vocabulary, or a class."""
    return session.readout.shown(output, session.data.label_names, tokenizer)


def lists_of(session: Session, evaluation: Any, methods: Mapping[str, Any]) -> dict[str, ListedNeurons]:
    """The stored lists that an evaluation reads, none where it reads none."""
    return value_lists(session, evaluation, methods) if getattr(evaluation, "reads_lists", False) else {}


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
