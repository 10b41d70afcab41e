"""Parts behind the FFN neurons of a block, of decoders and encoders alike, where an anatomy has found them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN

from twinlens.models.discovery import Mlp

STILL = "what needs no neurons still works (method=gradsim, also with params=all)"


class NeuronParts:
    """What an anatomy's `_mlp` says of a block, as modules and functions."""

    def _mlp(self, block: Any) -> Mlp:
        raise NotImplementedError

    def up_projection(self, block: Any) -> nn.Module:
        """The linear map that makes the FFN neurons."""
        return block.get_submodule(self._mlp(block).up.module)

    def pre_activation(self, block: Any, projected: Tensor) -> Tensor:
        """What the non-linearity reads in the up-projection's output, [..., outputs] → [..., neurons]."""
        return self._mlp(block).up.of(projected)

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        """The non-linearity of the FFN neurons."""
        name = self._mlp(block).activation
        return ACT2FN[name] if name in ACT2FN else block.get_submodule(name)
