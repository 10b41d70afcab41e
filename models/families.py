"""The architecture families, each as what differs from a Llama-shaped decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from twinlens.attribution.errors import UserError
from twinlens.models.anatomy import Anatomy


class Llama(Anatomy):
    """Llama, Mistral, Qwen2, Gemma: gated MLP, rotary positions, RMS norms."""

    model_types = ("llama", "mistral", "qwen2", "gemma")


class Gpt2(Anatomy):
    """GPT-2: fused q|k|v and MLP as Conv1D, learned positions."""

    model_types = ("gpt2",)
    gated = False

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.h

    def down_projection(self, block: Any) -> nn.Module:
        return block.mlp.c_proj

    def up_projection(self, block: Any) -> nn.Module:
        return block.mlp.c_fc

    def attention_output(self, block: Any) -> nn.Module:
        return block.attn.c_proj

    def attention(self, block: Any) -> nn.Module:
        return block.attn

    def value_projection(self, block: Any) -> nn.Module:
        return block.attn.c_attn

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        return projected.chunk(3, -1)[2].unflatten(-1, (self.n_heads, -1))

    def pre_attention_norm(self, block: Any) -> nn.Module:
        return block.ln_1

    def pre_mlp_norm(self, block: Any) -> nn.Module:
        return block.ln_2

    @property
    def last_norm(self) -> nn.Module:
        return self.backbone.ln_f

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        return block.mlp.act

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self.backbone.ln_f(hidden)


class Opt(Anatomy):
    """OPT: pre-norm decoder with learned positions; its MLP runs on flattened [batch·tokens, …] tensors."""

    model_types = ("opt",)
    gated = False

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.decoder.layers

    def down_projection(self, block: Any) -> nn.Module:
        return block.fc2

    def up_projection(self, block: Any) -> nn.Module:
        return block.fc1

    def attention_output(self, block: Any) -> nn.Module:
        return block.self_attn.out_proj

    def pre_attention_norm(self, block: Any) -> nn.Module:
        return block.self_attn_layer_norm

    def pre_mlp_norm(self, block: Any) -> nn.Module:
        return block.final_layer_norm  # the layer's own; the decoder's has the same name

    @property
    def last_norm(self) -> nn.Module | None:
        return self.backbone.decoder.final_layer_norm

    @property
    def last_projection(self) -> nn.Linear | None:
        return self.backbone.decoder.project_out

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        return block.activation_fn

    def final_norm(self, hidden: Tensor) -> Tensor:
        decoder = self.backbone.decoder
        if decoder.final_layer_norm is not None:
            hidden = decoder.final_layer_norm(hidden)
        return hidden if decoder.project_out is None else decoder.project_out(hidden)

    def refuse_unsupported(self) -> None:
        if not self.config.do_layer_norm_before:
            raise UserError(
                "this OPT model normalises after each residual addition (do_layer_norm_before=false, as opt-350m), so "
                "it has no additive residual stream to edit; expected a pre-norm OPT such as opt-125m: choose another "
                "model or only instance methods (method=gradsim)."
            )


class GptNeoX(Anatomy):
    """GPT-NeoX and Pythia: rotary positions, MLP parallel to attention or after it."""

    model_types = ("gpt_neox",)
    gated = False

    def down_projection(self, block: Any) -> nn.Module:
        return block.mlp.dense_4h_to_h

    def up_projection(self, block: Any) -> nn.Module:
        return block.mlp.dense_h_to_4h

    def attention_output(self, block: Any) -> nn.Module:
        return block.attention.dense

    def attention(self, block: Any) -> nn.Module:
        return block.attention

    def value_projection(self, block: Any) -> nn.Module:
        return block.attention.query_key_value

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        return interleaved_values(projected, self.n_heads)

    @property
    def last_norm(self) -> nn.Module:
        return self.backbone.final_layer_norm

    @property
    def parallel(self) -> bool:
        return self.config.use_parallel_residual

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        return block.mlp.act

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self.backbone.final_layer_norm(hidden)


class Bloom(Anatomy):
    """BLOOM: ALiBi positions; residual additions happen inside its attention and MLP modules."""

    model_types = ("bloom",)
    gated = False

    @property
    def blocks(self) -> nn.ModuleList:
        return self.backbone.h

    def down_projection(self, block: Any) -> nn.Module:
        return block.mlp.dense_4h_to_h

    def up_projection(self, block: Any) -> nn.Module:
        return block.mlp.dense_h_to_4h

    def attention_output(self, block: Any) -> nn.Module:
        return block.self_attention.dense

    def attention(self, block: Any) -> nn.Module:
        return block.self_attention

    def value_projection(self, block: Any) -> nn.Module:
        return block.self_attention.query_key_value

    def head_values(self, block: Any, projected: Tensor) -> Tensor:
        return interleaved_values(projected, self.n_heads)

    @property
    def n_heads(self) -> int:
        return self.config.n_head

    @property
    def last_norm(self) -> nn.Module:
        return self.backbone.ln_f

    def activation_function(self, block: Any) -> Callable[[Tensor], Tensor]:
        return block.mlp.gelu_impl

    def final_norm(self, hidden: Tensor) -> Tensor:
        return self.backbone.ln_f(hidden)

    def refuse_unsupported(self) -> None:
        if self.config.apply_residual_connection_post_layernorm:
            raise UserError(
                "this BLOOM model takes its residual after the layer norm "
                "(apply_residual_connection_post_layernorm=true), so it has no additive residual stream to edit; "
                "expected false, as in bloom-560m: choose another model or only instance methods (method=gradsim)."
            )


def interleaved_values(projected: Tensor, n_heads: int) -> Tensor:
    """The values where query, key and value of one head lie side by side: [..., 3·hidden] → [..., heads, head_dim]."""
    return projected.unflatten(-1, (n_heads, 3, -1))[..., 2, :]


FAMILIES: tuple[type[Anatomy], ...] = (Llama, Gpt2, Opt, GptNeoX, Bloom)
"""Every family; `twinlens.models.anatomy_check.anatomy_of` picks by transformers' model type."""
