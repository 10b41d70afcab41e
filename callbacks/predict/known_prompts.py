"""Filter between prediction and attribution: only prompts that the model knows are explained (second paper, Sec. 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from safetensors.torch import load_file, save_file

from twinlens.attribution.evaluation.neuron_level.known_prompts import Kept, kept_prompts, require_kept
from twinlens.callbacks.passes.session import Predictions, Session
from twinlens.callbacks.predict.next_token import renumbered
from twinlens.callbacks.store.files import link, write_json
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish


def filters(session: Session) -> bool:
    """Whether the data ask for prompts that the model knows."""
    return session.readout.of_vocabulary and bool(getattr(session.data, "only_known", False))


def known_inputs(fingerprint: str) -> dict[str, Any]:
    """Everything that the known prompts of a split depend on, given their predictions' fingerprint."""
    return {"known_of": fingerprint, "code": code_of(__name__)}


def known_stage(session: Session, split: str, predicted: Path) -> dict[str, float]:
    """Keep a split's known prompts alone and say which were dropped and why.

    From here on `index` counts the kept prompts, in the data of the session as well as in what is stored.

    Args:
        session: its predictions of the split and the split itself are replaced; the run folder gets
            `examples/<split>`.
        predicted: stored predictions of the whole split.

    Returns:
        metrics: `data/kept`, `data/dropped`, and by type `data/kept/<type>` and `data/dropped/<type>/<reason>`.

    Raises:
        UserError: no prompt is left.
    """
    result = known_of(session.predictions[split], predicted)
    require_kept(result)
    kept = result.kept.nonzero()[:, 0].tolist()

    def build(folder: Path) -> Finish:
        def finish() -> None:
            known = session.predictions[split]
            renumbered(known.dataset, kept).save_to_disk(str(folder / "dataset"))
            save_file({"features": known.features[kept].contiguous()}, folder / "features.safetensors")
            write_json(folder / "known.json", result.report())

        return finish

    inputs = known_inputs(session.predictions[split].fingerprint)
    entry = session.store.get("examples", inputs, build, session.labels(split=split, known="only"))
    session.predictions[split] = Predictions(
        dataset=datasets.load_from_disk(str(entry.path / "dataset")),
        features=load_file(entry.path / "features.safetensors")["features"],
        fingerprint=entry.fingerprint,
    )
    session.data.splits[split] = renumbered(session.data.splits[split], kept)
    link(entry.path / "dataset", session.folder / "examples" / split)
    print(in_words(result, split), flush=True)
    return metrics_of(result)


def known_of(predictions: Predictions, predicted: Path) -> Kept:
    """What the filter says of a predicted split."""
    stored = load_file(predicted / "features.safetensors")
    return kept_prompts(
        predictions.column("target_rank"), stored["target_logit"], stored["best_other_logit"],
        predictions.column("label"), list(predictions.dataset["type"][:]),
    )  # fmt: skip


def in_words(result: Kept, split: str) -> str:
    """For example `known: 3 of 5 test prompts kept; capital 1 of 3 (2 not in the top 10)`."""
    parts = []
    for name, counts in result.report().items():
        why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if reason != "kept")
        parts.append(f"{name} {counts['kept']} of {sum(counts.values())}" + (f" ({why})" if why else ""))
    return f"known: {int(result.kept.sum())} of {len(result.kept)} {split} prompts kept; {'; '.join(parts)}"


def metrics_of(result: Kept) -> dict[str, float]:
    """The counts as metrics."""
    n_kept = int(result.kept.sum())
    metrics: dict[str, float] = {"data/kept": n_kept, "data/dropped": len(result.kept) - n_kept}
    for name, counts in result.report().items():
        for reason, count in counts.items():
            metrics[f"data/kept/{name}" if reason == "kept" else f"data/dropped/{name}/{reason}"] = count
    return metrics
