"""The fit stage: train once per (model, data, seed, settings), keep the best validation checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from twinlens.attribution.errors import UserError
from twinlens.callbacks.fit.checkpoints import (
    EpochSeed,
    EpochWeights,
    FitCheckpoint,
    kept_epochs,
    last_checkpoint,
    write_whole_checkpoints,
)
from twinlens.callbacks.passes.memory import saying_what_needs_memory, trim_freed_memory
from twinlens.callbacks.passes.predict_pass import interruptible
from twinlens.callbacks.passes.progress import fit_progress
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.callbacks.processes.fsdp import whole_model
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.processes.terminal import on_terminal
from twinlens.callbacks.store.checksums import note_checksums
from twinlens.callbacks.store.files import link, write_json
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish
from twinlens.callbacks.store.weights import weights_hash
from twinlens.models.adapter_files import adapter_of, is_adapter
from twinlens.models.backbone import load_config
from twinlens.models.checkpoint_files import pickled_files, resolve
from twinlens.models.language_model import LanguageModel
from twinlens.models.module import TextClassifier

WITHOUT_EFFECT = frozenset(
    {"_target_", "accelerator", "devices", "num_nodes", "strategy", "enable_progress_bar", "log_every_n_steps"}
)
"""Trainer settings that must not change what is learned, so that they are not part of the fingerprint."""

FINISHED = "fit.json"  # written when everything else of a fit is there
EPOCHS = "epochs"  # folder of a fit that keeps the weights of every epoch

MakeModel = Callable[..., TextClassifier | LanguageModel]


def fit_stage(
    session: Session,
    make_model: MakeModel,
    model_settings: Mapping[str, Any],
    trainer_settings: Mapping[str, Any],
    callback_settings: Mapping[str, Any],
    make_callbacks: Callable[[], list[Callback]],
    loggers: Sequence[Logger],
    keep_epochs: bool = False,
) -> None:
    """Fit the model, or read an earlier fit of the same thing, and put it into the session.

    Args:
        session: gets `model` and `weights`, and `epochs` where they are kept; the run folder gets a link `model`.
        make_model: builds the model; keyword `path` replaces the configured checkpoint.
        model_settings: configuration of the model, plain values.
        trainer_settings: configuration of the Trainer, plain values.
        callback_settings: configuration of the fit's callbacks, plain values.
        make_callbacks, loggers: what the user configured for the fit.
        keep_epochs: keep the weights of every epoch beside the best, for methods that read them.
    """
    if "train" not in session.data.splits:
        raise UserError(
            f"data={session.data.name} has no labelled train split, so nothing can be fitted; expected one: give "
            "data.path with a train split, or use fit=false with a trained classifier in model.path."
        )

    def build(folder: Path) -> None:
        keeping: list[Callback] = [EpochWeights(folder / EPOCHS, make_model)] if keep_epochs else []
        fit_into(folder, session, make_model, lambda: [*make_callbacks(), *keeping], loggers)

    inputs = fit_inputs(session, model_settings, trainer_settings, callback_settings, keep_epochs=keep_epochs)
    entry = session.store.get("fit", inputs, build, session.labels(model=model_settings["name"]), "fit")
    session.fitted = not entry.reused
    trim_freed_memory()  # of gradients and moments: the passes need the room
    _tell(json.loads((entry.path / FINISHED).read_text(encoding="utf-8"))["weights"])
    _take(session, make_model, entry.path / "model")
    session.epochs = epochs_of(entry.path, lambda folder: weights_hash(folder, session.store.root / "weights.json"))


def fit_into(
    folder: Path,
    session: Session,
    make_model: MakeModel,
    make_callbacks: Callable[[], list[Callback]],
    loggers: Sequence[Logger],
) -> None:
    """Fit on the session's train split and save `model/` and `fit.json`, going on from what a killed fit has left."""
    if (folder / FINISHED).is_file():  # killed between the end of the fit and its entry in the store
        _remove_checkpoints(folder)
        return
    checkpoint = FitCheckpoint(folder / "checkpoints", session.data.monitored)
    trainer = session.trainers.make(
        callbacks=[*make_callbacks(), EpochSeed(session.seed), checkpoint, fit_progress()],
        logger=list(loggers),
        enable_progress_bar=on_terminal(),
        enable_model_summary=False,
        use_distributed_sampler=False,  # training rows are shared out by the data; every process validates on all
    )
    _fit(session, make_model, trainer, checkpoint, folder)


def trains(session: Session, fit: bool) -> bool:
    """Whether the run trains its model: where `fit` says so and a language model has a train split to learn from."""
    return fit and session.readout.fits(session.data.splits)


def load_stage(session: Session, make_model: MakeModel, model_settings: Mapping[str, Any]) -> None:
    """Use a trained model as it is (fit=false, or prompts alone).

    What lies on the hub, in a pickle, or is made of an adapter is written into the store, whole, and read from there.
    """
    path = model_settings["path"]
    if not is_stored_whole(model_settings):
        _take(session, make_model, Path(resolve(path)))
        _tell(session.readable.weights_told)
        return

    def build(folder: Path) -> Finish:
        def finish() -> None:
            model = session.trained_model(make_model, path)
            _tell(model.weights_told)
            model.save(folder / "model")

        return finish

    inputs = load_inputs(model_settings, source_of(session, model_settings))
    entry = session.store.get("fit", inputs, build, {"model": path}, "model")
    _take(session, make_model, entry.path / "model")


def _tell(weights: str | None) -> None:
    if weights is not None and is_first_process():
        print(weights, flush=True)


def is_stored_whole(model_settings: Mapping[str, Any]) -> bool:
    """Whether a model that is used as it is goes through the store: one from the hub, one with an adapter, and one with
    weights in a pickle, unless it runs code of its own folder."""
    folder = Path(resolve(model_settings["path"]))
    if not folder.is_dir() or is_adapter(folder):
        return True
    return not model_settings.get("trust_remote_code") and bool(pickled_files(folder, model_settings["path"]))


def load_inputs(model_settings: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Everything that a model depends on which is used as it is and written into the store.

    Args:
        model_settings: configuration of the model.
        source: of `source_of`.
    """
    adapted = is_adapter(Path(resolve(model_settings["path"])))
    return {
        "source": source,
        **({name: model_settings[name] for name in ("adapter", "head")} if adapted else {}),
        "dtype": model_settings.get("dtype", "float32"),  # of `auto`, the source has the checkpoint's own
        "code": code_of(__name__, model_settings),
    }


def _take(session: Session, make_model: MakeModel, folder: Path) -> None:
    session.model = session.trained_model(make_model, str(folder))
    if session.trainers.casts_to is not None:
        # as Lightning does when a pass begins: without it, what is read beside passes would depend on their order
        session.model.to(session.trainers.casts_to)
    session.weights = weights_hash(folder, session.store.root / "weights.json")
    link(folder, session.folder / "model")


def epochs_of(fit: Path, hash_of: Callable[[Path], str]) -> tuple[Epoch, ...]:
    """The epochs that a stored fit has kept, none where no method asked for them."""
    return tuple(Epoch(number, folder, hash_of(folder), *rates) for number, folder, *rates in kept_epochs(fit / EPOCHS))


def fit_inputs(
    session: Session,
    model_settings: Mapping[str, Any],
    trainer_settings: Mapping[str, Any],
    callback_settings: Mapping[str, Any],
    source: Any = None,
    keep_epochs: bool = False,
) -> dict[str, Any]:
    """Everything the fitted weights depend on, and whether those of every epoch are kept.

    `source`: what they start from, where it is known already. A fit that keeps no epochs does not mention them, so that
    it stays the same stage as before; one that does learns the same weights, and what is made of these is shared.
    Several processes learn what one does with as many rows in a step, but where rows do not divide evenly: so that all
    have as many, some rows come twice in an epoch's last step.
    """
    data = session.data
    processes = n_processes(trainer_settings)
    uneven = len(data.splits["train"]) % processes if "train" in data.splits else 0
    learning = {k: v for k, v in trainer_settings.items() if k not in WITHOUT_EFFECT}
    return {
        "source": source_of(session, model_settings) if source is None else source,
        "model": {
            k: v
            for k, v in model_settings.items()
            if k not in ("_target_", "name", "path", "tokenizer_path", "batch_size", "max_epochs", "gradient_clip_val")
        },
        "trainer": learning,
        "callbacks": dict(callback_settings),
        "batch_size": data.batch_size * processes,
        **({"processes": processes} if uneven else {}),
        "data": {split: data.fingerprint(split) for split in ("train", "validation") if split in data.splits},
        "seed": session.seed,
        **({"epochs": "kept"} if keep_epochs else {}),
        "code": code_of(__name__, data, model_settings, learning, callback_settings),
    }


def source_of(session: Session, model_settings: Mapping[str, Any], hash_of: Callable[[Path], Any] | None = None) -> Any:
    """What the weights start from: a hash of local files, a commit of the hub, or nothing (from scratch).

    `hash_of`: of a folder's weights, see `weights_hash`; with another one that may give None, so may this.
    """
    path = model_settings.get("path")
    if path is None:
        return "scratch"
    folder = Path(resolve(path))
    if not folder.is_dir():
        return {"hub": path, "commit": getattr(load_config(path), "_commit_hash", None)}
    hashed = weights_hash(folder, session.store.root / "weights.json") if hash_of is None else hash_of(folder)
    adapter = adapter_of(path)
    if adapter is None or not adapter.has_base_on_hub or hashed is None:
        return hashed
    return {"adapter": hashed, "base": source_of(session, {"path": adapter.base})}


def n_processes(trainer_settings: Mapping[str, Any]) -> int:
    """Processes that a Trainer starts or joins, over all machines."""
    devices = trainer_settings.get("devices", 1)
    if isinstance(devices, list):
        on_each = len(devices)
    elif isinstance(devices, int) and devices > 0:
        on_each = devices
    else:
        on_each = max(1, torch.cuda.device_count())
    return on_each * int(trainer_settings.get("num_nodes", 1))


def _fit(
    session: Session,
    make_model: MakeModel,
    trainer: Trainer,
    checkpoint: FitCheckpoint,
    folder: Path,
) -> None:
    model: Any = make_model()
    write_whole_checkpoints(trainer)
    keeping = any(isinstance(callback, EpochWeights) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    last = last_checkpoint(folder / "checkpoints", folder / EPOCHS if keeping else None)
    data: Any = session.data
    data.trainer = trainer  # its training order is shared out by the trainer's rank and number of processes
    loaders = {"train_dataloaders": data.train_dataloader()}
    if "validation" in data.splits:
        loaders["val_dataloaders"] = data.val_dataloader()
    model.train()  # checkpoints come in eval mode, in which Lightning would leave them
    with interruptible(trainer), saying_what_needs_memory(data.batch_size):
        trainer.fit(model, **loaders, ckpt_path=None if last is None else str(last), weights_only=True)
    data.trainer = None  # which holds gradients and moments
    if not trainer.is_global_zero:
        return
    if checkpoint.best_model_path:
        # mapped: the moments, two thirds of the file, would stand beside those in memory
        state = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True, mmap=True)
        model = whole_model(model, make_model, state["state_dict"])
    shutil.rmtree(folder / "model", ignore_errors=True)  # of a kill in the next lines
    # weights that were read in bfloat16 are frozen there; those that a precision has cast are trained ones
    (model.cpu() if model.weights_in == torch.bfloat16 else model.cpu().float()).save(folder / "model")
    note_checksums(folder / "model")
    best = checkpoint.best_model_score
    write_json(
        folder / FINISHED,
        {
            checkpoint.best_name: None if best is None else float(best),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "learning_rate": model.learning_rate,
            "weights": model.weights_told,
        },
    )
    _remove_checkpoints(folder)


def _remove_checkpoints(folder: Path) -> None:
    if is_first_process():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
