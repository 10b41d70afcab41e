"""Decoder that hands numbers through: token s of a text is number s of its state, for logistic regression on features.

A frozen map without anything to learn, so that a classifier over it is a linear one over the numbers of its texts. With
it, settings of the literature that have no language model at all run through the same stages as any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from twinlens.models.module import TextClassifier
from twinlens.models.own_heads import OwnHead

MODEL_TYPE = "pixel_sums"


class PixelSumsConfig(PretrainedConfig):
    """Sizes of the decoder.

    Args:
        n_numbers: of a text; further tokens count for none.
        largest: value of the last token of the vocabulary, which stands for 1.
    """

    model_type = MODEL_TYPE

    def __init__(self, n_numbers: int = 64, largest: int = 16, **more: Any) -> None:
        self.n_numbers = n_numbers
        self.largest = largest
        self.hidden_size = n_numbers + 1
        self.num_hidden_layers = 1
        self.num_attention_heads = 1
        self.intermediate_size = 1
        more.setdefault("vocab_size", largest + 2)
        more.setdefault("pad_token_id", largest + 1)
        super().__init__(**more)
        self.vocab_size = more["vocab_size"]


class PixelSumsModel(PreTrainedModel):
    """State of token t: the values of tokens up to t at their places, and a 1 behind them for the bias.

    Example:
        >>> import torch
        >>> from twinlens.models.pixel_sums import PixelSumsConfig, PixelSumsModel
        >>> model = PixelSumsModel(PixelSumsConfig(n_numbers=3, largest=4))
        >>> ids = torch.tensor([[4, 0, 2]])  # the token of a number has its id
        >>> model(ids, torch.ones_like(ids)).last_hidden_state[0, -1]
        tensor([1.0000, 0.0000, 0.5000, 1.0000])
    """

    config_class = PixelSumsConfig
    base_model_prefix = "decoder"
    _supports_sdpa = True

    def __init__(self, config: PixelSumsConfig) -> None:
        super().__init__(config)
        self.values = nn.Embedding(config.vocab_size, 1)
        self.values.requires_grad_(False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        _set_weights(self.config, module)

    def get_input_embeddings(self) -> nn.Embedding:
        """The values."""
        return self.values

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """States [batch, tokens, n_numbers + 1]."""
        width = self.config.n_numbers
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = mask.cumsum(1) - 1 if position_ids is None else position_ids
        known = nn.functional.embedding(input_ids, self.values.weight.detach())  # loading forgets that it is frozen
        value = known * (mask.bool() & (places < width))[..., None]
        at_places = value * nn.functional.one_hot(places.clamp(0, width - 1), width)
        states = torch.cat([at_places.cumsum(1), torch.ones_like(value)], 2)
        return BaseModelOutputWithPast(last_hidden_state=states)


class PixelSumsForSequenceClassification(OwnHead, PreTrainedModel):
    """The decoder with a linear map, whose last column is the bias."""

    config_class = PixelSumsConfig
    base_model_prefix = "decoder"
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        _set_weights(self.config, module)


def _set_weights(config: Any, module: nn.Module) -> None:
    """Values in proportion to the tokens' ids; zeros in the head, whose loss is convex, so that nothing is drawn."""
    with torch.no_grad():
        if isinstance(module, nn.Embedding):
            module.weight.copy_(torch.arange(len(module.weight))[:, None] / config.largest)
        elif isinstance(module, nn.Linear):
            module.weight.zero_()


AutoConfig.register(MODEL_TYPE, PixelSumsConfig, exist_ok=True)
AutoModel.register(PixelSumsConfig, PixelSumsModel, exist_ok=True)
AutoModelForSequenceClassification.register(PixelSumsConfig, PixelSumsForSequenceClassification, exist_ok=True)


class PixelClassifier(TextClassifier):
    """Logistic regression on the numbers of a text; a class of its own so that transformers knows its decoder."""
