"""Checkpoints that somebody else's training kept, each with the learning rate that led to it, for methods along it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.callbacks.fit.stage import source_of
from twinlens.callbacks.passes.session import Epoch, Session
from twinlens.callbacks.store.fingerprints import fingerprint_of
from twinlens.models.adapter_files import base_path, is_adapter
from twinlens.models.backbone import load_config, load_tokenizer
from twinlens.models.checkpoint_files import require_weights, resolve

STATE = "trainer_state.json"
"""What transformers' Trainer writes beside the weights."""
SAME = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "head_dim", "tie_word_embeddings",
)  # fmt: skip
"""Of a configuration what two checkpoints of one training have in common."""


@dataclass(frozen=True)
class OtherCheckpoint:
    """Weights along a training.

    Attributes:
        path: as the user wrote it.
        folder: where it lies.
        learning_rate: of the step that led to it.
    """

    path: str
    folder: Path
    learning_rate: float


def other_checkpoints(paths: Sequence[str] | None, rates: Sequence[float] | None) -> list[OtherCheckpoint]:
    """The checkpoints that a run names, in their order; reads no weights.

    Without rates, that of a checkpoint is the last one that its Trainer's state has logged up to its step.

    Args:
        paths: folders; None: none are named.
        rates: of each; None: the checkpoints say.

    Raises:
        UserError: rates of another number, or that are no positive numbers; a folder without a model; or no state to
            take a rate from.
    """
    if not paths:
        if rates is not None:
            raise UserError(
                f"checkpoint_rates={list(rates)} are learning rates of no checkpoint; expected checkpoints beside "
                "them: set checkpoints=[DIR1,DIR2]."
            )
        return []
    if rates is not None and len(rates) != len(paths):
        raise UserError(
            f"checkpoint_rates has {len(rates)} learning rates for {len(paths)} checkpoints; expected one of each, in "
            "the same order: give as many."
        )
    found = []
    for number, path in enumerate(paths):
        folder = _folder_of_model(path)
        rate = float(rates[number]) if rates is not None else _logged_rate(path, folder)
        if not 0 < rate < float("inf"):
            raise UserError(
                f"checkpoints={path} was reached with the learning rate {rate:g}, so that its steps add nothing; "
                "expected a positive number: leave the checkpoint out, or give checkpoint_rates."
            )
        found.append(OtherCheckpoint(path, folder, rate))
    return found


def require_same_model(
    checkpoints: Sequence[OtherCheckpoint], model: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse checkpoints of another architecture or vocabulary than the explained model's.

    Args:
        model: settings of the explained model, plain values.
        tokenizer: of the explained model.

    Raises:
        UserError: naming the checkpoint and what differs.
    """
    trusted = bool(model.get("trust_remote_code"))
    if not checkpoints:
        return
    own = _sizes(load_config(model["path"], trusted))
    for checkpoint in checkpoints:
        sizes = _sizes(load_config(str(checkpoint.folder), trusted))
        for name, value in own.items():
            if sizes[name] != value:
                raise UserError(
                    f"checkpoints={checkpoint.path} has {name}={sizes[name]}, but the model that is explained "
                    f"({model['path']}) has {name}={value}; expected checkpoints of the training that led to it: "
                    "leave this one out."
                )
        if (checkpoint.folder / "tokenizer.json").is_file():
            words = _words(load_tokenizer(str(checkpoint.folder), trusted))
            if words != _words(tokenizer):
                raise UserError(
                    f"checkpoints={checkpoint.path} has a tokenizer of another vocabulary than the model that is "
                    f"explained ({model['path']}); expected the same tokens under the same numbers: leave the "
                    "checkpoint out."
                )


def epochs_along(
    checkpoints: Sequence[OtherCheckpoint], source_of: Callable[[str], Any], fingerprint: Callable[[Any], str]
) -> tuple[Epoch, ...]:
    """The same as kept epochs, numbered from 1 on, as methods along a training read them.

    Args:
        source_of: what a folder's weights are, a hash or plain values.
        fingerprint: of plain values.
    """
    sources = [source_of(str(checkpoint.folder)) for checkpoint in checkpoints]
    return tuple(
        Epoch(number, one.folder, source if isinstance(source, str) else fingerprint(source), one.learning_rate)
        for number, (one, source) in enumerate(zip(checkpoints, sources, strict=True), start=1)
    )


def take_checkpoints(session: Session, settings: Mapping[str, Any]) -> None:
    """Put the checkpoints that a run names into its session, as kept epochs, and print them in a line.

    Args:
        session: gets `epochs`.
        settings: the whole configuration as plain values.
    """
    named = other_checkpoints(settings.get("checkpoints"), settings.get("checkpoint_rates"))
    if not named:
        return
    session.epochs = epochs_along(named, lambda folder: source_of(session, {"path": folder}), fingerprint_of)
    rates = ", ".join(f"{one.folder.name} at {one.learning_rate:g}" for one in named)
    print(f"checkpoints: {len(named)}, each with its learning rate: {rates}", flush=True)


def _folder_of_model(path: str) -> Path:
    folder = Path(resolve(path))
    if not folder.is_dir():
        raise UserError(f"checkpoints={path} is no folder; expected one with config.json and weights: correct it.")
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        inside = sorted((entry.name for entry in folder.glob("checkpoint-*") if entry.is_dir()), key=_step_of)
        hint = f"name those inside ({', '.join(inside[:3])}{' …' if len(inside) > 3 else ''})" if inside else "name one"
        raise UserError(
            f"checkpoints={path} holds no model (config.json is missing); expected the folder of a checkpoint: {hint}."
        )
    require_weights(base_path(str(folder)))
    return folder


def _step_of(name: str) -> tuple[int, str]:
    number = name.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, name)


def _logged_rate(path: str, folder: Path) -> float:
    file = folder / STATE
    if not file.is_file():
        raise UserError(
            f"checkpoints={path} has no {STATE}, which names the learning rate that led to it; expected a checkpoint "
            "of transformers' Trainer, or a rate for each: set checkpoint_rates=[1e-4,…]."
        )
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        step = int(state["global_step"])
        logged = [
            (int(entry["step"]), float(entry["learning_rate"]))
            for entry in state["log_history"]
            if "learning_rate" in entry and int(entry["step"]) <= step
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read as the state of a Trainer ({type(error).__name__}); expected global_step and "
            "log_history: mend it, or set checkpoint_rates=[1e-4,…]."
        ) from None
    if not logged:
        raise UserError(
            f"{file} has logged no learning_rate up to step {step}; expected one (logging_steps at most as large as "
            "save_steps): set checkpoint_rates=[1e-4,…]."
        )
    return max(logged)[1]


def _sizes(config: Any) -> dict[str, Any]:
    text = config.get_text_config()
    return {name: getattr(text, name, None) for name in SAME}


def _words(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Tokens and their numbers, without the padding that a run adds where a tokenizer has none."""
    return {word: number for word, number in tokenizer.get_vocab().items() if word != tokenizer.pad_token}
