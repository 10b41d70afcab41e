"""Tail patch as a stage: steps of the trained model on first rows of lists, test by test, stored once per method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import default_convert

from twinlens.attribution.errors import require_finite
from twinlens.attribution.evaluation.ground_truth.tail_patch import TailPatch, stepped, with_weights
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.protocols import Batch
from twinlens.attribution.targets import phi
from twinlens.callbacks.attribute.explained_scores import explained_batch, explained_scores
from twinlens.callbacks.evaluate.evaluation_inputs import kinds_of, of_kind
from twinlens.callbacks.evaluate.ground_truth import truth_inputs
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish

RISES = "rises.safetensors"


def tail_patch_results(
    session: Session, name: str, evaluation: TailPatch, methods: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Result]:
    """Results of every instance method that draws nothing.

    Args:
        settings: of the evaluation, plain values.
    """
    inputs = truth_inputs(session, methods)
    tests = inputs.index[evaluation.chosen(inputs.tests)]
    rises: dict[tuple[Any, ...], Tensor] = {}
    for key, method in of_kind(methods, "instance").items():
        if method.draws or method.is_control:
            continue
        asked = evaluation.rows_of(inputs, key)
        for k in evaluation.first:
            own = {part: rows for part, rows in asked.items() if part[0] == k}
            found = _rises(session, name, key, evaluation, settings, tests, own)
            rises[key, k] = found[0][None]
            if len(found) > 1:
                rises[key, k, "control"] = found[1:]
    kinds, chosen = kinds_of(session), evaluation.chosen(inputs.tests)
    return evaluation.results(rises, {kind: own[chosen] for kind, own in kinds.items()}, inputs.labelled)


def _rises(
    session: Session, name: str, method: str, evaluation: TailPatch, settings: Mapping[str, Any], tests: Tensor,
    asked: Mapping[tuple[int, int | None], Tensor],
) -> Tensor:  # fmt: skip
    """Rise of φ of each test after a step on each of its sets of rows, [sets, tests]."""
    rows = torch.stack(list(asked.values()))  # [sets, tests, k]

    def build(folder: Path) -> Finish:
        title = f"{name} of {method} on {session.split}"
        compute = _Steps(session, evaluation.step, tests, rows)
        shards = [[[row] for row in tests[start : start + 5].tolist()] for start in range(0, len(tests), 5)]
        loader = session.loader(session.split)
        done = run_pass(title, session.readable, compute, shards, loader, folder / "shards", session.trainers).rows

        def finish() -> None:
            save_file({"rises": done["rises"].T.contiguous()}, folder / RISES)

        return finish

    inputs = {
        "examples": [session.predictions[split].fingerprint for split in ("train", session.split)],
        "rows": hashlib.sha256(torch.cat([tests, rows.flatten()]).numpy().tobytes()).hexdigest(),
        "step": settings["step"],
        "explain": session.explain.instance.identity,
        "batch_size": session.data.batch_size,
        "trained": _trained(session),
        "code": code_of(__name__, evaluation),
    }
    labels = session.labels(evaluation=name, method=method, split=session.split)
    entry = session.store.get("evaluate", inputs, build, labels, f"{name}, {method}")
    return load_file(entry.path / RISES)["rises"].double()


class _Steps:
    """A pass over tests, one a batch: a step on each of its sets of rows, and φ of the test before and after."""

    def __init__(self, session: Session, step: float, tests: Tensor, rows: Tensor) -> None:
        self.session = session
        self.step = step
        self.place = {test: number for number, test in enumerate(tests.tolist())}
        self.rows = rows
        self.trained = _trained(session)
        self.targets = session.targets("instance", session.split)
        self.loader = session.loader("train")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        session = self.session
        model: Any = session.readable
        device, index = batch["input_ids"].device, batch["index"].cpu()
        own = dict(model.named_parameters())
        weights = {name: own[name] for name in self.trained}
        losses_of = text_losses if session.readout.has_text_losses("train") else label_losses
        ask = partial(self._phi, batch, index)
        before, rises = ask(model), []
        for rows in self.rows[:, self.place[int(index)]].tolist():
            size = session.data.batch_size  # which the fit's device holds
            parts = self.loader([rows[start : start + size] for start in range(0, len(rows), size)])
            batches = (_on(device, part) for part in parts)
            patched = stepped(model, weights, losses_of, batches, self.step)
            rises.append(with_weights(model, patched, ask) - before)
        return {"index": batch["index"], "rises": torch.stack(rises, 1)}

    def _phi(self, batch: Batch, index: Tensor, model: Any) -> Tensor:
        """φ of the tests of a batch, [tests], float64 on the host."""
        targets = self.targets.at(index)
        scores = explained_scores(model, targets, explained_batch(self.targets, batch)).detach().float().cpu()
        require_finite(scores, "the score after a step of tail_patch", index)
        return phi(scores.log_softmax(-1), targets) if targets.completions is None else -scores.double()


def label_losses(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy of each row's label, [rows]."""
    return cross_entropy(model(batch).float(), batch["labels"], reduction="none")


def text_losses(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy of every token that counts, [tokens]."""
    losses, predicts = model.token_losses(batch)
    return losses[predicts]


def _on(device: torch.device, batch: Any) -> Batch:
    return {key: value.to(device) for key, value in default_convert(batch).items()}


def _trained(session: Session) -> list[str]:
    """Names of the weights that a fit trains."""
    return [name for name, weight in session.readable.named_parameters() if weight.requires_grad]
