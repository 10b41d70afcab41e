"""The four cells of MLP × attention as a stage: edited forwards over the explained split, stored once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.site_ablation import SiteAblation
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.attribute.anatomy import check_edited_tokens
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish

ANSWERS = "answers.safetensors"


def site_ablation_stage(
    session: Session, name: str, evaluation: SiteAblation, settings: Mapping[str, Any]
) -> list[Result]:
    """Results of the evaluation over the explained split."""

    def build(folder: Path) -> Finish:
        check_edited_tokens(session)
        engine, targets = session.readable.engine(), session.targets("neuron", session.split)

        def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
            return {"index": batch["index"], **evaluation.answers(engine, targets.of_batch(batch), budget)}

        title = f"{name} on {session.split}"
        within = WithinMemory(title, compute, session.memory_budget, evaluation.need(session.engine_sizes))
        shards, loader = session.shards(session.split), session.loader(session.split)
        rows = run_pass(title, session.readable, within, shards, loader, folder / "shards", session.trainers).rows

        def finish() -> None:
            save_file({key: rows[key].contiguous() for key in rows if key != "index"}, folder / ANSWERS)

        return finish

    inputs = site_ablation_inputs(session, evaluation, settings)
    labels = session.labels(evaluation=name, split=session.split)
    entry = session.store.get("evaluate", inputs, build, labels, name)
    kept = kept_rows(session)
    answers = {key: column[kept] for key, column in load_file(entry.path / ANSWERS).items()}
    return evaluation.evaluate(answers, session.split)


def site_ablation_inputs(session: Session, evaluation: SiteAblation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything the answers depend on."""
    return {
        "examples": session.predictions[session.split].fingerprint,
        "evaluation": dict(settings),
        "explain": session.explain.neuron.identity["target"],
        "code": code_of(__name__, evaluation, settings),
        **session.reading,
    }
