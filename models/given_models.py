"""Models that a caller holds already, in place of a checkpoint's weights: twins over the same tensors.

A twin has modules of its own around the caller's weights: without hooks, with its own flags and gradients, and in
float32, as a checkpoint is read. Weights that are float32 already are shared and not copied. Whatever a run does to
the twin (modes, devices, hooks, frozen parameters), the caller's model stays as it is, to the bit.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.models.loaded_weights import refuse_odd_numbers

_GIVEN: dict[str, nn.Module] = {}
"""Folder with configuration and tokenizer → the model that stands for its weights."""
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)
"""What a module keeps of hooks."""
PROBED = 7
"""Tokens by which models with the same weights are told apart."""
HELD_BYTES = 2**26
"""Bytes of a weight that are hashed at a time."""


@contextmanager
def serving(folder: Path, model: nn.Module) -> Iterator[None]:
    """Let a model stand for the weights of a folder; inside, what loads the folder gets a twin of the model.

    Args:
        folder: with `config.json` and the tokenizer, no weights.
        model: of transformers; see `require_givable`.
    """
    key = str(folder.resolve())
    _GIVEN[key] = model
    try:
        yield
    finally:
        _GIVEN.pop(key, None)


def is_given(path: str) -> bool:
    """Whether a model stands for the weights of a folder."""
    return bool(_GIVEN) and str(Path(path).resolve()) in _GIVEN


def given_twin(path: str, attention: str, dtype: torch.dtype = torch.float32) -> Any:
    """The twin of the model that stands for the weights of a folder.

    Args:
        path: the folder.
        attention: implementation of transformers that the twin reads with.
        dtype: see `twin_of`.
    """
    model: Any = _GIVEN[str(Path(path).resolve())]
    twin = twin_of(model, dtype)
    if twin.config._attn_implementation != attention:
        twin.set_attn_implementation(attention)
    return twin


def given_hash(path: str) -> str:
    """sha256 of a given model's configuration, of its weights as its twin has them, and of what it computes: modules
    may have been replaced, or be of a class of one's own, under the same weights."""
    model: Any = _GIVEN[str(Path(path).resolve())]
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for name, part in model.named_modules():
        digest.update(f"{name}:{type(part).__module__}.{type(part).__qualname__}".encode())
    digest.update(_computed(twin_of(model)))
    for name, value in model.state_dict().items():
        digest.update(f"{name}:{list(value.shape)}".encode())
        flat = value.detach().reshape(-1)
        for part in flat.split(max(1, HELD_BYTES // max(1, flat.element_size()))):
            whole = part.float() if part.is_floating_point() else part
            digest.update(whole.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:24]


@torch.no_grad()
def _computed(twin: Any) -> bytes:
    """What a model says to a few tokens; nothing where it cannot read them alone."""
    first = next(twin.parameters())
    ids = torch.arange(PROBED, device=first.device)[None] % int(twin.config.get_text_config().vocab_size)
    try:
        scores = twin(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    except Exception:  # whatever the run itself will say about it
        return b""
    return scores.detach().float().cpu().contiguous().numpy().tobytes()


def require_givable(model: nn.Module) -> None:
    """Refuse a model whose weights are not all there, in one place and of one kind.

    Raises:
        UserError: no weights, weights without values (meta), on several devices or quantised, or a forward that was
            replaced.
    """
    named = list(model.named_parameters())
    if not named:
        raise UserError(
            "the model has no parameters, so that nothing of it can be explained; expected a model with weights: pass "
            "the model itself."
        )
    require_values("model", model)
    other = [(name, weight.dtype) for name, weight in named if not weight.is_floating_point()]
    if other or getattr(model, "is_quantized", False):
        said = f"{other[0][0]} is {other[0][1]}" if other else "it says so"
        raise UserError(
            f"the model's weights are quantised ({said}); expected floating-point numbers, of which gradients can be "
            "taken: load it without quantisation."
        )
    for name, module in model.named_modules():
        if "forward" in vars(module):
            raise UserError(
                f"the forward of {name or 'the model'} was replaced ({type(module).__name__}.forward is set on the "
                "object), so that the model computes something else than its class; expected a model as it was "
                "loaded: load it anew, or pass the checkpoint's folder."
            )


def require_values(what: str, model: nn.Module) -> None:
    """Refuse weights without values, with others than numbers, or in several places.

    Args:
        what: word for the model.
        model: any.

    Raises:
        UserError: naming the weight, or the devices.
    """
    named = list(model.named_parameters())
    empty = [name for name, weight in named if weight.is_meta]
    if empty:
        raise UserError(
            f"the {what}'s weight {empty[0]} has no values (it lies on the meta device, as {len(empty)} of "
            f"{len(named)} do); expected weights with values: load them, or pass the checkpoint's folder."
        )
    devices = sorted({str(weight.device) for _, weight in named})
    if len(devices) > 1:
        raise UserError(
            f"the {what}'s weights lie on {', '.join(devices)}; expected one device: move it with "
            f"{what}.to({devices[0]!r}), or pass the checkpoint's folder."
        )
    refuse_odd_numbers(named, f"the {what}")


def twin_of(model: nn.Module, dtype: torch.dtype | None = torch.float32) -> Any:
    """A model with modules of its own around the same weights; no hook, in eval mode, no gradients.

    Args:
        model: any; nothing of it is changed.
        dtype: of the twin's floating-point numbers; weights that have it are shared, others converted. None: as they
            are.

    Raises:
        UserError: a part that cannot be copied.
    """

    def of_type(value: Tensor) -> Tensor:
        value = value.detach()
        value = value.clone() if value.is_inference() else value  # of one made in inference mode nothing can be taken
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    memo: dict[int, Any] = {}
    for weight in model.parameters():
        memo[id(weight)] = nn.Parameter(of_type(weight), requires_grad=weight.requires_grad)
    lowered = False
    for buffer in model.buffers():
        lowered |= buffer.is_floating_point() and buffer.dtype not in (torch.float32, torch.float64)
        memo[id(buffer)] = of_type(buffer).clone()
    for module in model.modules():
        for name in HOOKS:
            if name in vars(module):
                memo[id(vars(module)[name])] = OrderedDict()
    try:
        twin: Any = copy.deepcopy(model, memo)
    except Exception as error:  # whatever somebody's own parts raise
        raise UserError(
            f"the model cannot be copied around its weights ({type(error).__name__}: {' '.join(str(error).split()):.99}"
            "); expected parts that copy.deepcopy can copy: take off what was added to it, or pass the checkpoint's "
            "folder."
        ) from error
    if lowered and dtype is not None and hasattr(model, "config"):
        kind: Any = type(model)
        put_computed(twin, fresh_buffers(lambda: kind(copy.deepcopy(twin.config))))
    return twin.eval()


def fresh_buffers(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Buffers as a model computes them when it is made; its parameters get no memory.

    Args:
        make: makes the model.
    """
    every: Any = nn.Module
    usual = every.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        usual(module, name, None if parameter is None else nn.Parameter(parameter.to("meta"), parameter.requires_grad))

    every.register_parameter = register
    try:
        return dict(make().named_buffers())
    finally:
        every.register_parameter = usual


def put_computed(model: nn.Module, fresh: dict[str, Tensor]) -> None:
    """Put buffers that a model computes, and no checkpoint holds, into it.

    Args:
        model: the model, or the part of it that `fresh` names the buffers of.
        fresh: see `fresh_buffers`; those without values, or of other shapes, are left out.
    """
    held = set(model.state_dict())
    for name, buffer in model.named_buffers():
        if name not in held and name in fresh and not fresh[name].is_meta and fresh[name].shape == buffer.shape:
            buffer.copy_(fresh[name])
