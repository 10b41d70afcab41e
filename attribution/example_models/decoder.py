"""Decoder of the examples in docstrings: two causal blocks with fixed random weights, written out in tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu

from twinlens.attribution.protocols import SequenceEdit


@dataclass(frozen=True)
class Block:
    """Tensors of one block of `ExampleDecoder`, at every token of every sequence.

    Attributes:
        residual: what enters the block, [sequences, tokens, hidden].
        weights: attention weights, [sequences, heads, tokens, tokens].
        value: value vectors, [sequences, heads, tokens, head_dim].
        attention: input of the attention's output projection, [sequences, tokens, heads · head_dim].
        attention_output, mlp_output: what the block adds, [sequences, tokens, hidden].
        pre_activation, activation: of the MLP's neurons, [sequences, tokens, neurons].

    Example:
        >>> from twinlens.attribution.example_models import ExampleDecoder, example_batch
        >>> batch = example_batch()
        >>> decoder = ExampleDecoder()
        >>> blocks, last = decoder.run(decoder.embedding[batch["input_ids"]], batch["attention_mask"])
        >>> blocks[1].activation.shape
        torch.Size([2, 4, 5])
    """

    residual: Tensor
    weights: Tensor
    value: Tensor
    attention: Tensor
    attention_output: Tensor
    pre_activation: Tensor
    activation: Tensor
    mlp_output: Tensor


class ExampleDecoder:
    """Two causal blocks without norms, 2 heads of 2, 5 neurons, and a final norm that divides by the root mean square.

    Args:
        n_outputs: classes, or tokens of the vocabulary.

    Example:
        >>> from twinlens.attribution.example_models import ExampleDecoder, example_batch
        >>> batch = example_batch()
        >>> decoder = ExampleDecoder(n_outputs=6)
        >>> blocks, last = decoder.run(decoder.embedding[batch["input_ids"]], batch["attention_mask"])
        >>> len(blocks), decoder.scores(last[:, -1]).shape
        (2, torch.Size([2, 6]))
    """

    n_layers, n_heads, head_dim, hidden, n_neurons, n_tokens = 2, 2, 2, 4, 5, 6

    def __init__(self, n_outputs: int = 2) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        layers, hidden = self.n_layers, self.hidden
        self.embedding = drawn(self.n_tokens, hidden)
        self.attention = drawn(layers, 3, hidden, hidden) / 2  # query, key and value projections
        self.output = drawn(layers, hidden, hidden) / 2
        self.up = drawn(layers, hidden, self.n_neurons) / 2
        self.down = drawn(layers, self.n_neurons, hidden)
        self.head = drawn(n_outputs, hidden)

    def run(
        self,
        residual: Tensor,
        mask: Tensor,
        first: int = 0,
        edit: SequenceEdit | None = None,
        attention_edit: SequenceEdit | None = None,
        pre_edit: SequenceEdit | None = None,
        attended: SequenceEdit | None = None,
    ) -> tuple[list[Block], Tensor]:
        """Blocks from number `first` on, and the residual stream behind the last one, [sequences, tokens, hidden].

        Args:
            residual: what enters block `first`, [sequences, tokens, hidden].
            mask: attention mask, [sequences, tokens].
            edit, attention_edit, pre_edit: change the down-projection's input, the output projection's input, the
                up-projection's output.
            attended: changes what the attention puts out.
        """
        tokens = mask.shape[1]
        sees = torch.ones(tokens, tokens, dtype=torch.bool).tril() & mask.bool()[:, None, None]
        blocks = []
        for layer in range(first, self.n_layers):
            query, key, value = (
                (residual @ weight).unflatten(2, (self.n_heads, self.head_dim)).transpose(1, 2)
                for weight in self.attention[layer]
            )
            # a padding token sees nothing, so its row is all −inf: it is set to 0 instead of NaN
            weights = (query @ key.mT).masked_fill(~sees, -torch.inf).softmax(-1).nan_to_num()
            read = (weights @ value).transpose(1, 2).flatten(2)
            read = read if attention_edit is None else attention_edit(layer, read)
            attention_output = read @ self.output[layer]
            attention_output = attention_output if attended is None else attended(layer, attention_output)
            pre_activation = (residual + attention_output) @ self.up[layer]
            pre_activation = pre_activation if pre_edit is None else pre_edit(layer, pre_activation)
            activation = gelu(pre_activation)
            activation = activation if edit is None else edit(layer, activation)
            mlp_output = activation @ self.down[layer]
            blocks.append(
                Block(residual, weights, value, read, attention_output, pre_activation, activation, mlp_output)
            )
            residual = residual + attention_output + mlp_output
        return blocks, residual

    def scores(self, residual: Tensor) -> Tensor:
        """Readout scores of the residual stream behind the last block, [..., hidden] → [..., outputs]."""
        return (residual / root_mean_square(residual)[..., None]) @ self.head.T


def root_mean_square(vectors: Tensor) -> Tensor:
    """Divisor of the final norm, vectors [..., hidden] → [...]."""
    return vectors.square().mean(-1).sqrt()


def answer_position(mask: Tensor) -> Tensor:
    """Last column that is no padding, [sequences], of a mask [sequences, tokens]."""
    return mask.shape[1] - 1 - mask.flip(1).argmax(1)
