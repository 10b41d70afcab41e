"""Opening of a run: its methods, data and tokenizer and, for a classifier used as it is, its labels; no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.attribute.dispatch import among_others
from twinlens.callbacks.passes.explain import Explain, Names, read_explain
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.run.architecture import configured_architecture, configured_type
from twinlens.callbacks.run.layers_of_texts import with_layers_of_texts, with_readings_of_texts
from twinlens.callbacks.run.readable_texts import refuse_unreadable_texts
from twinlens.conf.checking.former_names import READ_UNTIL, with_current_names
from twinlens.conf.checking.plain_values import chosen, plain
from twinlens.conf.checking.target_settings import with_target_of_run
from twinlens.conf.checking.top_level import SEVERAL, check_groups_are_there
from twinlens.data.input_form import OwnForm
from twinlens.data.labels import numbers_alone
from twinlens.models.adapter_files import adapter_of, base_path
from twinlens.models.adapters import require_usable
from twinlens.models.backbone import (
    config_from_scratch,
    load_config,
    load_tokenizer,
    require_architecture,
)
from twinlens.models.checkpoint_files import require_weights
from twinlens.models.checkpoint_settings import check_architecture, check_attention, told_attention, told_unused
from twinlens.models.choice import scores_choices
from twinlens.models.class_labels import require_trained_classifier
from twinlens.models.encoders import is_encoder, refuse_other_head, require_classification_token
from twinlens.models.own_form import known_tokens, learned_positions, stated_length, trained_form
from twinlens.models.weight_types import check_dtype, told_type

LANGUAGE_MODEL = "twinlens.models.language_model.LanguageModel"
"""What the checkpoint becomes for data that ask for the next token."""


def read_former_names(config: Any) -> Any:
    """The configuration with every class by its name of now, and with the target that its methods meant; says in a line
    each what of 0.1.0 stood there."""
    config, replaced = with_current_names(config)
    if replaced and is_first_process():
        names = ", ".join(f"{before} as {now}" for before, now in sorted(replaced.items()))
        print(f"former names: read {names}, until version {READ_UNTIL}; docs/former_names.md has all", flush=True)
    for read in (with_target_of_run, with_layers_of_texts, with_readings_of_texts):
        config, line = read(config)
        if line and is_first_process():
            print(line, flush=True)
    return config


def open_questions(config: Any, build: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's methods and evaluations by name; each method as the others make it, what is none is refused later.

    Args:
        config: the run's configuration.
        build: makes the object of a configuration node.

    Raises:
        UserError: the configuration lacks a group.
    """
    check_groups_are_there(config)
    asked = {group: chosen(config, group) for group in SEVERAL}
    unchosen = [f"{group}.{name}" for group in SEVERAL for name in config.get(group) or {} if name not in asked[group]]
    if unchosen and is_first_process():
        print(f"left out, since nothing chooses them: {', '.join(unchosen)}", flush=True)
    methods, evaluations = ({name: build(node) for name, node in asked[group].items()} for group in SEVERAL)
    return among_others(methods), evaluations


def open_inputs(config: Any, build: Callable[..., Any]) -> tuple[Any, PreTrainedTokenizerBase, Explain]:
    """The prepared data, the model's tokenizer, and what the run explains of such data.

    Args:
        config: the run's configuration.
        build: makes the object of a configuration node.

    Raises:
        UserError: bad data, an unreadable checkpoint, labels of a trained classifier that do not match the data, or
            a target that the data do not have.
            Where the data ask for the next token, any causal language model can be used as it is.
    """
    model = config.model
    check_attention(model.attention)
    check_dtype(dtype := model.get("dtype", "float32"))
    if model.path is None and model.architecture is not None:
        check_architecture(model.architecture)
    data = build(config.data)
    trained, of_choices, adapter = None, False, None
    if model.path is not None:
        checkpoint = load_config(model.path, model.trust_remote_code)
        require_architecture(checkpoint, model.model_type, model.path)
        if (unused := told_unused(model.architecture, checkpoint, model.path)) and is_first_process():
            print(unused, flush=True)
        adapter = adapter_of(model.path)
        if adapter is not None:
            require_usable(adapter, model.adapter)
        if not (model.trust_remote_code or config.plan):  # a plan reads no weights
            require_weights(base_path(model.path))
        if not config.fit and not READOUTS[data.readout].of_vocabulary:
            trained = require_trained_classifier(checkpoint, model.path)
        of_choices = scores_choices(checkpoint)
        if model.adapter == "lora" and adapter is None and not config.fit:
            raise UserError(
                f"model.adapter=lora trains new matrices beside the layers of model.path={model.path}, but fit=false "
                "trains nothing; expected a fit, or a checkpoint with an adapter: set fit=true or model.adapter=keep."
            )
    elif model.adapter == "lora":
        raise UserError(
            f"model.adapter=lora trains new matrices beside the layers of a checkpoint, and model={model.name} starts "
            "from scratch; expected weights that can stay as they are: set model.path, or model.adapter=keep to train "
            "all."
        )
    elif config.fit:
        checkpoint = config_from_scratch(model.architecture)
    else:
        raise UserError(
            f"fit=false uses a trained {READOUTS[data.readout].model} as it is, but model={model.name} starts from "
            "scratch; expected model.path: set model=local model.path=DIR."
        )
    stored = None if model.path is None else checkpoint
    for line in (told_attention(checkpoint, model.attention), told_type(dtype, stored, model.path)):
        if line and is_first_process():
            print(line, flush=True)
    names_given = config.data.get("label_names", ())
    if trained is not None and not of_choices and names_given is None:
        data = build(config.data, label_names=trained)
    tokenizer = load_tokenizer(model.tokenizer_path or model.path, model.trust_remote_code, trained is not None)
    where = "model.architecture" if model.path is None else f"model.path={model.path}"
    if not READOUTS[data.readout].of_vocabulary:
        require_classification_token(checkpoint, tokenizer, where)
    own = None if trained is None else own_form(checkpoint, tokenizer)
    data.prepare(tokenizer, own, positions_of(checkpoint, READOUTS[data.readout].of_vocabulary))
    if trained is not None:
        require_matching_readout(of_choices, trained, data.n_choices, data.label_names, model.path)
        if not of_choices:
            require_matching_labels(trained, data.label_names, model.path, nameable=names_given != ())
    if is_encoder(checkpoint) and not READOUTS[data.readout].of_vocabulary:
        lm = configured_architecture(data, plain(model), tokenizer)  # refuses a head that is not found
        if model.head == "mlp":
            refuse_other_head(lm, model.path)
    known = len(tokenizer) if model.path is None else known_tokens(checkpoint, adapter)
    refuse_unreadable_texts(data, checkpoint, tokenizer, known, f"model={model.name}")
    for line in _taken_names(trained or (), data.label_names):
        data.notes.say(line)
    whole = READOUTS[data.readout].of_vocabulary and getattr(data, "answer", "first") == "full"
    names = Names(READOUTS[data.readout], data.label_names, tokenizer, whole)
    return data, tokenizer, read_explain(plain(config)["explain"], config.explain_against, names)


def open_trainers(config: Any, build: Callable[..., Any], folder: Path) -> TrainerFactory:
    """What makes a Trainer for the fit and each pass, and knows in which numbers the model computes.

    Args:
        config: the run's configuration.
        build: makes the object of a configuration node.
        folder: the run's.

    Raises:
        UserError: see `configured_type`.
    """
    make = partial(build, config.trainer, default_root_dir=str(folder))
    return TrainerFactory(make, config.trainer.precision, configured_type(plain(config.model)))


def positions_of(checkpoint: Any, next_tokens: bool) -> int | None:
    """Tokens that a model can read; of a language model, whose every token counts, as many as it was made for."""
    learned, stated = learned_positions(checkpoint), checkpoint.get_text_config()
    return getattr(stated, "max_position_embeddings", learned) if next_tokens else learned


def own_form(checkpoint: Any, tokenizer: PreTrainedTokenizerBase) -> OwnForm:
    """The form in which a classifier reads texts that is used as it is: of its configuration and its tokenizer."""
    trained = trained_form(checkpoint)
    return OwnForm(
        template=trained.get("template"),
        max_length=trained.get("max_length"),
        stated=stated_length(checkpoint, tokenizer),
        padding=None if is_encoder(checkpoint) else checkpoint.get_text_config().pad_token_id,
    )


def model_node(model: Any, readout: str) -> Any:
    """The model's configuration for the readout of the data: the node itself, which describes a classifier, or for
    a vocabulary the same checkpoint and recipe as a language model, which brings its own head.

    Args:
        model: the configuration's node.
        readout: of the data, see `data.base`.
    """
    if not READOUTS[readout].of_vocabulary:
        return model
    return {**{name: value for name, value in model.items() if name != "head"}, "_target_": LANGUAGE_MODEL}


def require_matching_readout(
    of_choices: bool, checkpoint: Sequence[str], n_choices: int | None, data: Sequence[str], path: str
) -> None:
    """Refuse a multiple-choice model (fit=false) on classification data and the reverse.

    A model of one score per sequence serves any number of choices.

    Raises:
        UserError: naming both sides.
    """
    if of_choices and n_choices is None:
        raise UserError(
            f"the classifier in model.path={path} gives one score per sequence, as multiple choice needs it, but the "
            f"data have the labels {_listed(data)}; expected a classifier of these labels: choose multiple-choice "
            "data, or train it on these (fit=true)."
        )
    if n_choices is not None and not of_choices:
        raise UserError(
            f"the classifier in model.path={path} has the labels {_listed(checkpoint)}, but the data are multiple "
            f"choice with {n_choices} choices; expected a model of one score per sequence: choose data with these "
            "labels, or train it on these (fit=true)."
        )


def require_matching_labels(checkpoint: Sequence[str], data: Sequence[str], path: str, nameable: bool = True) -> None:
    """Refuse a classifier (fit=false) whose classes are not those of the data, in the same order.

    A checkpoint that never named its classes (LABEL_0, LABEL_1 …) is taken at its number of classes.

    Args:
        nameable: whether these data take their classes in any order that `data.label_names` says.

    Raises:
        UserError: naming both lists.
    """
    if list(checkpoint) == list(data) or (numbers_alone(checkpoint) and len(checkpoint) == len(data)):
        return
    hint = (
        "give them in the checkpoint's order with data.label_names"
        if sorted(checkpoint) == sorted(data) and nameable
        else "choose the data the classifier was trained for, or train it on these (fit=true)"
    )
    raise UserError(
        f"the classifier in model.path={path} has the labels {_listed(checkpoint)}, but the data have "
        f"{_listed(data)}; expected the same labels in the same order: {hint}."
    )


def _taken_names(checkpoint: Sequence[str], data: Sequence[str]) -> list[str]:
    """What the classes of a checkpoint that names none are taken for."""
    if not numbers_alone(checkpoint) or list(checkpoint) == list(data):
        return []
    taken = ", ".join(f"{name} as {label}" for name, label in zip(checkpoint, data, strict=True))
    return [f"labels: the checkpoint names none of its classes; taken in the order of the data: {taken}"]


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(names) + "]"
