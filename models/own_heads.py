"""Classification heads for decoder types of which transformers has the decoder, but no classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from twinlens.attribution.errors import UserError
from twinlens.models.encoders import attach_head, is_encoder, refuse_other_head
from twinlens.models.given_models import fresh_buffers, put_computed
from twinlens.models.heads import MlpHead


class OwnHead:
    """A decoder with a linear map without bias on the last token that is no padding, mixed into its type's base class.

    Args:
        config: of the decoder, with `num_labels`.
    """

    base_model_prefix: str
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]  # of transformers' base class, which comes next
        text = config.get_text_config()
        text.pad_token_id = getattr(text, "pad_token_id", None)
        setattr(self, self.base_model_prefix, AutoModel.from_config(config))
        self.score = nn.Linear(text.hidden_size, config.num_labels, bias=False)
        self.post_init()  # type: ignore[attr-defined]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutput:
        """Logits [batch, labels] at the last token that is not the padding id."""
        decoder = getattr(self, self.base_model_prefix)
        hidden = decoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        pad = self.config.get_text_config().pad_token_id
        last = (columns * (input_ids != (-1 if pad is None else pad))).argmax(-1)
        return SequenceClassifierOutput(logits=self.score(hidden)[torch.arange(len(last), device=last.device), last])


def serve_type(config: PretrainedConfig) -> None:
    """Let transformers build a classifier of a configuration's type: its decoder with an `OwnHead`.

    Nothing is done where it has one of its own, or where the type's model is no decoder alone.
    """
    kind = type(config)
    if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or kind not in MODEL_MAPPING:
        return
    if getattr(config, "is_encoder_decoder", False) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return
    found: Any = MODEL_MAPPING[kind]
    decoder: Any = found[0] if isinstance(found, tuple) else found
    base: Any = next((part for part in decoder.__mro__ if part.__name__.endswith("PreTrainedModel")), None)
    if base is None:
        return
    name = f"{base.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    # weights of the decoder keep the names that they have below the type's language model
    own = {"base_model_prefix": base.base_model_prefix or "model", "config_class": kind, "__module__": __name__}
    # without exist_ok nothing would be registered for a configuration of transformers itself
    AutoModelForSequenceClassification.register(kind, type(name, (OwnHead, base), own), exist_ok=True)


def mend_buffers(lm: Any) -> None:
    """Put the buffers that a decoder computes, and no checkpoint holds, into a loaded `OwnHead`.

    Below a head that transformers does not know, they may be left as memory happened to be (Falcon-H1's multipliers).
    """
    if not isinstance(lm, OwnHead):
        return
    model: Any = lm
    put_computed(model.base_model, fresh_buffers(lambda: AutoModel.from_config(model.config)))


def require_score(lm: Any, path: str | None) -> None:
    """Refuse a classifier whose head is neither `score` on the last token nor an encoder's on the first, which becomes
    its `score`."""
    if hasattr(lm, "score"):
        return
    if is_encoder(lm.config):
        attach_head(lm, path)
        return
    causal = type(lm.config) in MODEL_FOR_CAUSAL_LM_MAPPING
    raise UserError(
        f"model.path={path} is of type {lm.config.model_type}, which has no `score` head on the last token; expected a "
        "causal model such as gpt2, llama, qwen3, gemma3_text or phi3 (docs/models.md lists them): choose one"
        f"{', or ask the language model for its next token (data=knowledge), which needs no head' if causal else ''}."
    )


def put_mlp_head(lm: Any, n_outputs: int, path: str | None) -> None:
    """Put a new head of two layers in the place of a linear one.

    Raises:
        UserError: an encoder, which brings its own.
    """
    refuse_other_head(lm, path)
    lm.score = MlpHead(lm.score.in_features, n_outputs)
