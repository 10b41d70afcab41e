"""Memory of a decoder's passes by counting what each one keeps, from shapes alone: no weights, no device.

Every number is of one example unless stated otherwise, in bytes, beside the weights. What a block keeps was read off
the implementations in transformers: an activation such as `gelu_new`, written out in tensor operations, keeps each of
its intermediate results, one with a kernel of its own keeps its input.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import ExpertPlaces
from twinlens.models.anatomy import Anatomy
from twinlens.models.linear_layers import is_plain, projection_shape
from twinlens.models.twin import longest_list

WRITTEN_OUT = ("gelu_new", "gelu_fast", "gelu_bloom", "quick_gelu")
"""Activations made of several tensor operations."""


@dataclass(frozen=True)
class Footprint:
    """Shapes of a decoder that decide what its passes need.

    Attributes:
        family: transformers' model type.
        n_layers, hidden_size, n_neurons: of the decoder; neurons of one layer.
        gated: whether the MLP multiplies a gate with its up-projection.
        n_heads: attention heads.
        key_width, query_width: key heads · head size, and attention heads · head size.
        eager: whether attention weights are written out instead of computed in one kernel.
        written_out: whether the activation is a chain of tensor operations.
        element_size: bytes of a number.
        n_outputs: tokens of a vocabulary readout, whose scores are wider than a block; 0: a few classes.
        experts: where experts' units lie among the neurons; None: there are no experts.
        chosen: routed experts that a token goes through.
    """

    family: str
    n_layers: int
    hidden_size: int
    n_neurons: int
    gated: bool
    n_heads: int
    key_width: int
    query_width: int
    eager: bool
    written_out: bool
    element_size: int = 4
    n_outputs: int = 0
    experts: ExpertPlaces | None = None
    chosen: int = 0

    # -- parts of a block ----------------------------------------------------------------------------------------

    @property
    def busy_neurons(self) -> int:
        """Neurons of a layer that a token goes through: of experts the chosen ones' and the shared ones'."""
        if self.experts is None:
            return self.n_neurons
        return min(self.n_neurons, self.chosen * self.experts.units + self.experts.shared)

    @property
    def live_neurons(self) -> int:
        """Vectors of n_neurons that stand side by side in one MLP without gradients."""
        return 4 if self.written_out else 3 if self.gated else 2

    @property
    def saved_neurons(self) -> int:
        """Vectors of n_neurons that backward needs of one MLP."""
        return (4 if self.written_out else 1) + 2 * self.gated

    @property
    def saved_hidden(self) -> int:
        """Vectors of hidden_size that backward needs of one block: norms, projections, residuals.

        RMS norms, which gated families have, are chains of tensor operations and keep more.
        """
        return 12 if self.gated else 8

    def _attention(self, columns: int) -> int:
        """Numbers of one token's attention: the mask's row, and scores and weights of every head if written out."""
        return columns * (1 + 3 * self.n_heads * self.eager)

    # -- the forward over the whole sequence ---------------------------------------------------------------------

    def forward(self, tokens: int) -> int:
        """Peak of a gradient-free forward: the largest block, hidden states around it."""
        per_token = self.live_neurons * self.busy_neurons + 5 * self.hidden_size + self._attention(tokens)
        # scores of the last token, their float32 copy and its softmax
        return (tokens * per_token + 3 * self.n_outputs) * self.element_size

    def kept(self, tokens: int) -> int:
        """What `states` leaves: keys and values of the prefix, and every layer's vectors at the answer position."""
        cache = 2 * self.n_layers * self.key_width * tokens
        neurons = (1 if self.gated else 2) * self.n_neurons + self.query_width
        answer = self.n_layers * (neurons + 2 * self.hidden_size)
        return (cache + answer) * self.element_size

    def states(self, tokens: int) -> int:
        """Peak of `states`: the forward's last block beside all that is kept."""
        # every expert's coefficients of one layer's tokens, and a copy that is cut at the answer
        every = 0 if self.experts is None else 3 * tokens * self.n_neurons * self.element_size
        return self.kept(tokens) + self.forward(tokens) + every

    def sequence(self, tokens: int) -> int:
        """A full forward with all that backward keeps, and the gradients of one block: what fitting takes."""
        blocks = tokens * (self.n_layers * self._saved(tokens) + 3 * self.busy_neurons)
        return (blocks + 6 * self.n_outputs) * self.element_size

    def sequence_above(self, tokens: int) -> int:
        """A full forward edited in one layer, with gradients of that layer's neurons: the first layer takes most.

        Backward keeps nothing below the edit, and of its own block the neurons, once as they are and once edited.
        """
        kept = (self.n_layers - 1) * self._saved(tokens) + 2 * self.n_neurons
        return (tokens * (kept + 3 * self.n_neurons) + 6 * self.n_outputs) * self.element_size

    # -- variant rows of the answer token ------------------------------------------------------------------------

    def _saved(self, columns: int) -> int:
        return self.saved_neurons * self.busy_neurons + self.saved_hidden * self.hidden_size + self._attention(columns)

    def prefix_copy(self, tokens: int) -> int:
        """Keys and values of one layer, put beside those of the rows; repeated for grouped queries."""
        repeated = self.query_width if self.query_width != self.key_width else 0
        return 2 * (self.key_width + repeated) * tokens * self.element_size

    def chunk(self, tokens: int, layer: int) -> int:
        """What any number of rows that enter at block `layer` need together, with gradients."""
        return (self.n_layers - layer) * self.prefix_copy(tokens)

    def row(self, tokens: int, layer: int) -> int:
        """One row that enters at block `layer`, with what backward keeps and the gradients of one block."""
        above = self.n_layers - layer
        kept = above * self._saved(tokens) + 3 * self.busy_neurons * (above > 0)
        # scores and softmax with their gradients
        return (kept + 3 * self.hidden_size + 6 * self.n_outputs) * self.element_size

    def edited_row(self, tokens: int) -> int:
        """One edited copy of the answer token without gradients: its largest block, and which neurons are edited.

        The edit's two masks (one per question, and all stacked) take a byte per neuron of every layer.
        """
        per_row = self.live_neurons * self.n_neurons + 5 * self.hidden_size + self._attention(tokens)
        return (per_row + 3 * self.n_outputs) * self.element_size + 2 * self.n_layers * (
            self.n_neurons + self.query_width
        )

    def edited_sequence(self, tokens: int) -> int:
        """One full forward edited in all layers: its largest block, the edited copy, and which neurons are edited."""
        edited = tokens * self.n_neurons * self.element_size
        return self.forward(tokens) + edited + 2 * self.n_layers * (self.n_neurons + self.query_width)

    # -- lists -----------------------------------------------------------------------------------------------------

    def units(self, site: str) -> int:
        """Neurons of a layer of a site: `ffn`, `attn` or `both`."""
        return self.n_neurons * (site != "attn") + self.query_width * (site != "ffn")

    def ranking(self, site: str = "ffn") -> int:
        """Dense scores, their stack and their sorted copy with 8-byte positions."""
        return self.n_layers * self.units(site) * 28

    def random_ranking(self, site: str = "ffn") -> int:
        """Hashes in 8-byte numbers, beside a ranking."""
        return self.n_layers * self.units(site) * (5 * 8 + 20)


def footprint_of(backbone: Any, n_outputs: int = 0) -> Footprint:
    """The footprint of a decoder, with or without values in its weights (on the meta device).

    A model whose parts are not found, or not yet as it has no values, is described by its configuration.

    Args:
        n_outputs: tokens of a vocabulary readout; 0: a few classes.
    """
    try:
        anatomy = Anatomy(backbone)
    except UserError:
        hidden = _setting(backbone.config, "hidden_size") or backbone.get_input_embeddings().embedding_dim
        neurons = _setting(backbone.config, "intermediate_size") or 4 * hidden
        n_layers = _setting(backbone.config, "num_hidden_layers") or len(longest_list(backbone))
        found = _from_config(backbone, n_layers, neurons, hidden, _looks_gated(backbone, neurons))
    else:
        found = _from_config(backbone, anatomy.n_layers, anatomy.n_neurons, anatomy.hidden_size, anatomy.gated)
        if anatomy.experts is not None:
            names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts", "moe_k")
            chosen = next((own for name in names if (own := _setting(backbone.config, name))), anatomy.experts.routed)
            found = replace(found, experts=anatomy.experts, chosen=chosen)
    return replace(found, n_outputs=n_outputs)


def _setting(config: Any, name: str) -> int | None:
    """A size that a configuration states; None: it has no such setting, or one for each of its blocks."""
    with suppress(Exception):  # transformers has errors of its own for what differs from block to block
        value = getattr(config.get_text_config(), name)
        return value if isinstance(value, int) else None
    return None


def _looks_gated(backbone: Any, neurons: int) -> bool:
    """Whether as many linear outputs as two of an MLP stand for each of its down-projections."""
    shapes = [projection_shape(part) for part in backbone.modules() if is_plain(part)]
    ups = sum(outputs for _, outputs in shapes if outputs in (neurons, 2 * neurons))
    return ups >= 2 * neurons * sum(inputs == neurons for inputs, _ in shapes) > 0


def _from_config(backbone: Any, n_layers: int, n_neurons: int, hidden_size: int, gated: bool) -> Footprint:
    config = backbone.config
    n_heads = _setting(config, "num_attention_heads") or 1
    head = _setting(config, "head_dim") or hidden_size // n_heads
    key_heads = _setting(config, "num_key_value_heads") or n_heads
    names = ("hidden_act", "activation_function", "hidden_activation")
    activation = next((value for name in names if (value := getattr(config, name, None))), "gelu_new")
    activation = "gelu_bloom" if config.model_type == "bloom" else activation
    return Footprint(
        family=config.model_type,
        n_layers=n_layers,
        hidden_size=hidden_size,
        n_neurons=n_neurons,
        gated=gated,
        n_heads=n_heads,
        key_width=key_heads * head,
        query_width=n_heads * head,
        eager=getattr(config, "_attn_implementation", "sdpa") == "eager",
        written_out=activation in WRITTEN_OUT,
        element_size=next(backbone.parameters()).element_size(),
    )
