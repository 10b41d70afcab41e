"""Example of a `ResidualModel`: a small language model whose residual stream is taken apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu

from twinlens.attribution.example_models.decoder import ExampleDecoder, answer_position, root_mean_square
from twinlens.attribution.protocols import Batch, SequenceEdit
from twinlens.attribution.residual_protocol import LayerStates, ResidualStates, ScaledUnits


class ExampleResidualModel:
    """A `ResidualModel` over `ExampleDecoder`, with a vocabulary of 6 tokens.

    Its blocks have no norm, so that the statistics before attention and MLP are 1 and keys are plain columns of the
    projections.

    Example:
        >>> from twinlens.attribution.example_models import ExampleResidualModel, example_batch
        >>> from twinlens.attribution.residual_protocol import ResidualModel
        >>> model = ExampleResidualModel()
        >>> isinstance(model, ResidualModel)
        True
        >>> states = model.states(example_batch())
        >>> parts = states.residual[:, 0] + states.attention_output.sum(1) + states.mlp_output.sum(1)
        >>> bool((parts - states.residual[:, -1]).abs().max() < 1e-5)  # the stream is the sum of what is added to it
        True
    """

    family = "example"
    gated = False
    parallel = False
    vocabulary = True
    output_bias: Tensor | None = None
    final_bias: Tensor | None = None
    norms_behind = False
    experts = None

    def __init__(self) -> None:
        self.decoder = ExampleDecoder(ExampleDecoder.n_tokens)
        self.n_layers, self.n_neurons = self.decoder.n_layers, self.decoder.n_neurons
        self.n_heads = self.n_key_heads = self.decoder.n_heads
        self.head_dim, self.hidden_size = self.decoder.head_dim, self.decoder.hidden
        self.output_weight: Tensor | None = self.decoder.head

    def states(self, batch: Batch, attention: bool = True) -> ResidualStates:
        """See `ResidualModel`."""
        blocks, last = self.decoder.run(self.decoder.embedding[batch["input_ids"]], batch["attention_mask"])
        position = answer_position(batch["attention_mask"])
        at = torch.arange(len(last)), position
        return ResidualStates(
            residual=torch.stack([*(block.residual[at] for block in blocks), last[at]], 1),
            attention_output=torch.stack([block.attention_output[at] for block in blocks], 1),
            mlp_output=torch.stack([block.mlp_output[at] for block in blocks], 1),
            activation=torch.stack([block.activation[at] for block in blocks], 1),
            attention=torch.stack([block.weights[at[0], :, position] for block in blocks], 1) if attention else None,
            value=torch.stack([block.value for block in blocks], 1) if attention else None,
            statistic=root_mean_square(last[at]),
            scores=self.decoder.scores(last[at]),
            position=position,
        )

    def stream(self, batch: Batch, visit: Callable[[LayerStates], None]) -> None:
        """See `ResidualModel`."""
        blocks, _ = self.decoder.run(self.decoder.embedding[batch["input_ids"]], batch["attention_mask"])
        for layer, block in enumerate(blocks):
            visit(LayerStates(layer, block.residual, block.attention_output, block.mlp_output, block.activation))

    def head(self, features: Tensor) -> Tensor:
        """See `ResidualModel`."""
        return features @ self.decoder.head.T

    def final_direction(self, vectors: Tensor) -> Tensor:
        """See `ResidualModel`: the norm has neither scale nor centring."""
        return vectors

    def values(self, layer: int) -> Tensor:
        """See `ResidualModel`."""
        return self.decoder.down[layer]

    def attention_values(self, layer: int) -> Tensor:
        """See `ResidualModel`."""
        return self.decoder.output[layer]

    def mlp_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """See `ResidualModel`: columns of the up-projection, one factor, no constant."""
        return self.decoder.up[layer].T[units][:, None], torch.zeros(len(units), 1)

    def activate(self, layer: int, values: Tensor) -> Tensor:
        """See `ResidualModel`."""
        return gelu(values)

    def attention_keys(self, layer: int, units: Tensor, corrected: bool = True) -> tuple[Tensor, Tensor]:
        """See `ResidualModel`: columns of the value projection."""
        return self.decoder.attention[layer, 2].T[units][:, None], torch.zeros(len(units), 1)

    def mlp_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """See `ResidualModel`: 1, as there is no norm."""
        return torch.ones_like(residual[..., 0])

    def attention_statistic(self, layer: int, residual: Tensor) -> Tensor:
        """See `ResidualModel`: 1, as there is no norm."""
        return torch.ones_like(residual[..., 0])

    def zeroed_scores(self, batch: Batch, ffn: Tensor | None, attention: Tensor | None) -> Tensor:
        """See `ResidualModel`."""

        def without(zeroed: Tensor | None, layer: int, values: Tensor) -> Tensor:
            return values if zeroed is None else values * ~zeroed[:, layer, None]

        return self._edited_scores(
            batch,
            lambda layer, values: without(ffn, layer, values),
            lambda layer, values: without(attention, layer, values),
        )

    def scaled_scores(self, batch: Batch, units: ScaledUnits) -> Tensor:
        """See `ResidualModel`."""
        return self._edited_scores(
            batch,
            lambda layer, values: units.scaled(values, layer, attention=False),
            lambda layer, values: units.scaled(values, layer, attention=True),
        )

    def _edited_scores(self, batch: Batch, ffn: SequenceEdit, attention: SequenceEdit) -> Tensor:
        mask = batch["attention_mask"]
        embedded = self.decoder.embedding[batch["input_ids"]]
        _, last = self.decoder.run(embedded, mask, edit=ffn, attention_edit=attention)
        return self.decoder.scores(last[torch.arange(len(last)), answer_position(mask)])

    def mlp_gradient(self, batch: Batch, cotangent: Tensor) -> Tensor:
        """See `ResidualModel`: by autograd, from every layer's MLP output at the answer position on."""
        mask = batch["attention_mask"]
        at = torch.arange(len(mask)), answer_position(mask)
        blocks, last = self.decoder.run(self.decoder.embedding[batch["input_ids"]], mask)
        found = []
        for layer, behind in enumerate([*(block.residual for block in blocks[1:]), last]):
            with torch.enable_grad():
                leaf = behind.detach().clone().requires_grad_()
                final = self.decoder.run(leaf, mask, layer + 1)[1]
                value = (self.decoder.scores(final[at]) * cotangent).sum()
                found.append(torch.autograd.grad(value, leaf)[0][at])
        return torch.stack(found, 1)

    def bytes_per_example(self, tokens: int, attention: bool = True) -> int:
        """A rough count: examples fit any budget."""
        return 4 * tokens * self.n_layers * (8 * self.hidden_size + self.n_heads * tokens)

    def bytes_per_gradient(self, tokens: int) -> int:
        """See `bytes_per_example`."""
        return 2 * self.bytes_per_example(tokens)
