"""Linear layers of any module by name: linear maps, and convolutions as linear maps of the patches that they read."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import LinearLayer
from twinlens.models.linear_layers import block_of, is_plain, projection_shape


def module_layers(module: nn.Module, modules: Sequence[str] | None = None) -> list[LinearLayer]:
    """The layers of a module whose parameters are differentiated, in its own order.

    Args:
        module: any; its layers read examples along their first axis.
        modules: names of layers, or glob patterns over them (`features.*`); None: all.

    Raises:
        UserError: a name that no linear layer has, with those that there are.
    """
    found = [layer for name, part in module.named_modules() if (layer := layer_of(name, part)) is not None]
    if modules is None:
        if found:
            return found
        raise UserError(
            f"the module {type(module).__name__} has no linear layer and no convolution; expected one at least, whose "
            "gradients are taken: pass a model with nn.Linear, nn.Conv1d or nn.Conv2d in it, whose weights are "
            "parameters."
        )
    if isinstance(modules, str):
        modules = [modules]
    there = ", ".join(layer.name for layer in found) or "none"
    if not modules or not all(isinstance(pattern, str) for pattern in modules):
        raise UserError(
            f"modules={list(modules)!r:.80} names no layer; expected names of linear layers or patterns over them, of "
            f"{there}: write modules=[{there.partition(',')[0]!r}], or leave it out for all."
        )
    for pattern in modules:
        if not any(fnmatchcase(layer.name, pattern) for layer in found):
            raise UserError(
                f"modules names {pattern}, which is no linear layer or convolution of {type(module).__name__}; "
                f"expected some of {there}: correct the name. Grouped convolutions, norms and "
                "layers whose weight is made of other parameters (weight norm) are none."
            )
    return [layer for layer in found if any(fnmatchcase(layer.name, pattern) for pattern in modules)]


def layer_of(name: str, module: Any) -> LinearLayer | None:
    """A module as a linear layer; None: it is none, or its weight is made of other parameters (weight norm)."""
    if "weight" not in getattr(module, "_parameters", ()):  # not read: reading one that is made may change it
        return None
    if is_plain(module):
        d_in, d_out = projection_shape(module)
        return LinearLayer(name, module, d_in, d_out, module.bias is not None, block_of(name))
    if type(module) in (nn.Conv1d, nn.Conv2d) and module.groups == 1:
        d_in = module.weight[0].numel()
        patches, places = partial(patches_of, module), partial(places_of, module)
        has_bias = module.bias is not None
        return LinearLayer(name, module, d_in, module.out_channels, has_bias, block_of(name), patches, places)
    return None


def patches_of(module: Any, inputs: Tensor) -> Tensor:
    """What a convolution multiplies its weight with at every place, [examples, places, channels · kernel].

    Args:
        inputs: [examples, channels, length] or [examples, channels, height, width].
    """
    if module.padding_mode == "zeros":
        padded = F.pad(inputs, module._reversed_padding_repeated_twice)
    else:
        padded = F.pad(inputs, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if isinstance(module, nn.Conv1d):
        padded, kernel, dilation, stride = padded[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    return F.unfold(padded, kernel, dilation=dilation, stride=stride).mT


def places_of(module: Any, outputs: Tensor) -> Tensor:
    """[examples, places, channels] from what a convolution gives, [examples, channels, …]."""
    return outputs.flatten(2).mT
