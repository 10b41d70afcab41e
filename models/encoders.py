"""Classification heads of encoders: from the classification token's state to the logits, found by equal tensors.

An encoder reads a text in both directions and its classifier at the first token, which the tokenizer puts there. What
lies between that token's last state and the logits (a pooler, a dense layer and its non-linearity, a norm) is called
here as the model calls it; nothing is taken from names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModel,
    PretrainedConfig,
)
from transformers.activations import ACT2FN

from twinlens.attribution.errors import UserError
from twinlens.models.twin import described, twin_of

FUNCTIONS = ("tanh", "gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh")
"""Functions between two layers of a head that are called without a module, by their names in transformers."""
WORKS = "expected a classifier that reads its first token, as BERT, RoBERTa, DeBERTa-v2, ELECTRA, DistilBERT and \
ModernBERT (classifier_pooling=cls), or a decoder (docs/models.md lists them)"


@dataclass(frozen=True)
class HeadSteps:
    """What is called between the classification token's last state and the logits, in order.

    Attributes:
        steps: names of modules within the model, or of functions among transformers' activations with `act:` before.
        entry: how many of them come before the head, because of parameters outside linear layers (norms).
    """

    steps: tuple[str, ...]
    entry: int


_OF_TWINS: dict[str, HeadSteps] = {}


def is_encoder(config: PretrainedConfig) -> bool:
    """Whether transformers' classifier of a configuration reads its texts in both directions."""
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or getattr(config, "is_encoder_decoder", False):
        return False
    return not _decodes(config) and not _scores_last_token(config)


_SCORING: dict[type, bool] = {}
"""Types of configurations → what `_scores_last_token` found."""


def _scores_last_token(config: PretrainedConfig) -> bool:
    """Whether a type's classifier has transformers' head for the last token, `score`; built once without values."""
    kind = type(config)
    if kind not in _SCORING:
        try:
            with torch.device("meta"):
                classifier: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[kind]
                _SCORING[kind] = hasattr(classifier(copy.deepcopy(config)), "score")
        except Exception:  # settings that do not fit each other, which whoever loads the model tells
            return True
    return _SCORING[kind]


def reads_first(lm: Any) -> bool:
    """Whether a classifier was given its parts by `attach_head`, so that it reads the first token of a text."""
    return "entry" in vars(lm)


def last_states(lm: Any, arguments: Mapping[str, Tensor]) -> Tensor:
    """Last states of an encoder's tokens, [batch, tokens, hidden], by a forward without what belongs to the head (a
    pooler within the encoder), so that each layer of the head runs once."""
    backbone = lm.base_model
    own = {id(part) for steps in (lm.entry, lm.score) for part in steps.modules()}
    left_out = {
        name: child
        for name, child in backbone.named_children()
        if any(id(part) in own for part in child.modules() if any(True for _ in part.parameters(recurse=False)))
    }
    try:
        backbone._modules.update(dict.fromkeys(left_out))
        states: Tensor = backbone(**arguments)[0]
    finally:
        backbone._modules.update(left_out)
    return states


def named_in_head(lm: Any) -> dict[str, str]:
    """Names of the parameters of an encoder's head: within `score` → within the model."""
    whole = {id(value): name for name, value in lm.named_parameters()}
    return {name: whole[id(value)] for name, value in lm.score.named_parameters()}


def new_in_a_fit(lm: Any) -> frozenset[str]:
    """Names of the parameters behind the classification token's last state, which may be new where a fit follows."""
    own = {id(value) for part in (lm.entry, lm.score) for value in part.parameters()}
    return frozenset(name for name, value in lm.named_parameters() if id(value) in own)


def require_classification_token(config: PretrainedConfig, tokenizer: Any, where: str) -> None:
    """Refuse an encoder whose tokenizer puts no token before a text.

    Raises:
        UserError: naming the model.
    """
    if not is_encoder(config):
        return
    ids = tokenizer("a")["input_ids"]
    if tokenizer.cls_token_id is None or ids[:1] != [tokenizer.cls_token_id]:
        raise UserError(
            f"{where} is an encoder ({config.model_type}), whose classifier reads the first token of a text, but its "
            "tokenizer puts no classification token there; expected one, such as [CLS] or <s>: set "
            "model.tokenizer_path to the tokenizer that it was trained with, or choose a decoder, which reads the last."
        )


def refuse_other_head(lm: Any, path: str | None) -> None:
    """Refuse a head of two layers in the place of an encoder's own.

    Raises:
        UserError: naming the model.
    """
    if reads_first(lm):
        where = "model.architecture" if path is None else f"model.path={path}"
        raise UserError(
            f"model.head=mlp puts a head of two layers on the last state, and the encoder of {where} brings its own "
            f"({lm.config.model_type}); expected that: set model.head=linear."
        )


def refuse_adapter(lm: Any, path: str | None) -> None:
    """Refuse adapters beside the layers of an encoder, whose head would not see them.

    Raises:
        UserError: naming the model.
    """
    if reads_first(lm):
        raise UserError(
            f"model.path={path} is an encoder ({lm.config.model_type}), whose own head is read layer by layer, and an "
            "adapter would stand beside these; expected a checkpoint without one: merge the adapter into its base with "
            "PEFT (merge_and_unload) and save that, or fit without model.adapter=lora."
        )


def first_position(config: PretrainedConfig) -> int:
    """Number of a text's first position among those that an encoder has learned: RoBERTa's come behind padding's."""
    if not is_encoder(config):
        return 0
    with torch.device("meta"):
        backbone = AutoModel.from_config(config)
    return positions_passed(backbone)


def positions_passed(backbone: Any) -> int:
    """Positions that a model passes over before a text's first one: it counts them by itself then."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def _decodes(config: PretrainedConfig) -> bool:
    """Whether a type is a decoder: encoders among the causal types are such only where their configuration says so."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return False
    return bool(getattr(config, "is_decoder", not hasattr(config, "is_decoder")))


def attach_head(lm: Any, path: str | None) -> None:
    """Give an encoder's classifier a `score` of its own modules, and an `entry` before it; neither holds weights twice.

    Args:
        lm: a classifier of transformers, perhaps without values.
        path: of the checkpoint, for messages.

    Raises:
        UserError: the model reads another token, several, or in a way that is not found.
    """
    try:
        found = _steps_of(lm)
    except UserError:
        raise
    except Exception as error:  # each type has its own ways to fail
        raise _refusal(lm, path, f"cannot be looked into ({str(error).splitlines()[0][:80]})") from error
    if found is None:
        raise _refusal(lm, path, "does not read its first token through linear layers and known functions")
    modules = [_module(lm, step) for step in found.steps]
    # not as sub-modules: the weights keep the names that transformers knows, and are saved once
    object.__setattr__(lm, "entry", nn.Sequential(*modules[: found.entry]))
    object.__setattr__(lm, "score", _head(modules[found.entry :]))


def _refusal(lm: Any, path: str | None, what: str) -> UserError:
    where = "model.architecture" if path is None else f"model.path={path}"
    return UserError(f"{where} is of type {lm.config.model_type}, whose classifier {what}; {WORKS}: choose one.")


def _head(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _module(lm: Any, step: str) -> nn.Module:
    name = step.removeprefix("act:")
    return lm.get_submodule(step) if name == step else ACT2FN[name]


def _steps_of(lm: Any) -> HeadSteps | None:
    if all(not weight.is_meta for weight in lm.parameters()):
        return found_steps(lm)
    known = described(lm)
    if known not in _OF_TWINS:
        with torch.device("cpu"):  # whoever builds shapes alone may have made another one the usual
            twin = twin_of(lm)
            found = None if twin is None else found_steps(twin)
        if found is None:
            return None
        _OF_TWINS[known] = found
    return _OF_TWINS[known]


@torch.no_grad()
def found_steps(lm: Any) -> HeadSteps | None:
    """The steps of a model with values; None: they are not found."""
    config = lm.config.get_text_config()
    device = next(lm.parameters()).device
    pad = config.pad_token_id
    ids = torch.tensor([[number for number in range(8) if number != pad][:6]], device=device) % config.vocab_size
    seen: list[tuple[str, Tensor, Tensor]] = []
    last: list[Tensor] = []
    training = lm.training
    lm.eval()
    try:
        with _recording(lm, seen, last):
            logits = lm(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    finally:
        lm.train(training)
    if not last:
        return None
    state, steps = last[0][:, 0], []
    for name, read, written in seen:
        function = _between(state, read)
        if function is None:
            continue
        steps += [f"act:{function}"] if function else []
        steps.append(name)
        state = written
    if not _same(state, logits) or not steps:
        return None
    outside = [
        at
        for at, step in enumerate(steps)
        if not step.startswith("act:")
        and not isinstance(lm.get_submodule(step), nn.Linear)
        and any(True for _ in lm.get_submodule(step).parameters())
    ]
    return HeadSteps(tuple(steps), 1 + outside[-1] if outside else 0)


def _between(state: Tensor, read: Tensor) -> str | None:
    """What makes a module's input of the state before it: "" for nothing, the name of a function; None: neither."""
    if _same(state, read):
        return ""
    if state.shape != read.shape:
        return None
    return next((name for name in FUNCTIONS if _same(ACT2FN[name](state), read)), None)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.allclose(one, other, rtol=1e-5, atol=1e-6))


@contextmanager
def _recording(lm: Any, seen: list[tuple[str, Tensor, Tensor]], last: list[Tensor]) -> Iterator[None]:
    """What modules without others in them read and write of one vector for each text, and the last hidden states."""

    def keep(name: str, args: tuple, written: Any) -> None:
        vector = bool(args) and isinstance(args[0], Tensor) and isinstance(written, Tensor)
        if vector and args[0].dim() == written.dim() == 2:
            seen.append((name, args[0], written))

    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: keep(name, args, out))
        for name, module in lm.named_modules()
        if name and not any(True for _ in module.children())
    ]
    handles.append(lm.base_model.register_forward_hook(lambda m, args, out: last.append(out[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
