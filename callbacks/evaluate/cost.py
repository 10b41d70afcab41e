"""Cost as a stage: what the manifests of the run's stored scores say of time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.evaluation.cost import Cost
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.evaluate.evaluation_inputs import score_folder
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.manifest import read_manifest


def cost_results(session: Session, name: str, evaluation: Cost, methods: Mapping[str, Any]) -> list[Result]:
    """Results of every method whose passes are known; the others are named."""
    took: dict[str, list[tuple[float, float, float]]] = {}
    for key, method in methods.items():
        manifests = [read_manifest(score_folder(session, key, seed)) for seed in method.seeds]
        known = [one.took for one in manifests if one is not None and one.took is not None]
        if len(known) == len(manifests):
            took[key] = [(one.seconds, one.processor_seconds, one.memory) for one in known]
    if unknown := [key for key in methods if key not in took]:
        print(f"{name}: not known of {', '.join(unknown)}, whose passes were interrupted or are of before", flush=True)
    return evaluation.evaluate(took, {key: method.kind for key, method in methods.items()})
