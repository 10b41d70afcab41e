"""Stored gradients of texts without a run around them: a small Llama, a plan of its layers, rows on disk, scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM

from twinlens.attribution.gradients.projection import Projection
from twinlens.attribution.gradients.row_forms import RowForm
from twinlens.attribution.gradients.row_pass import RowPass
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.tape import recording
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.instance.stream import stream_scores
from twinlens.callbacks.store.row_files import RowFiles
from twinlens.models.linear_layers import linear_layers

BUDGET = 2**28
TOKENS_AT_ONCE = 4096
OF_2048 = "*.layers.4.*,*.layers.3.mlp.down_proj"
"""Eight layers of the small Llama: 2048 numbers with 16 × 16 of each."""
VOCABULARY = 512
SEED = 0


def small_llama() -> LlamaForCausalLM:
    """The shape of the 260 K stories model with random weights."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=4,
        vocab_size=VOCABULARY, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def plan_of(lm: Any, params: str, dim: int) -> RowPass:
    """Layers and their random projections; `dim` 0: gradients as they are."""
    layers = linear_layers(lm, lm.get_output_embeddings(), params)
    projection = Projection("random" if dim else "none", max(1, dim), seed=SEED)
    return RowPass(layers, [projection.random(layer) for layer in layers], [projection.sides(one) for one in layers])


def batches_of(documents: Sequence[Tensor]) -> list[range]:
    """Consecutive documents of up to `TOKENS_AT_ONCE` tokens with their padding."""
    found, start, longest = [], 0, 0
    for row, ids in enumerate(documents):
        longest = max(longest, len(ids))
        if row > start and longest * (row + 1 - start) > TOKENS_AT_ONCE:
            found.append(range(start, row))
            start, longest = row, len(ids)
    return [*found, range(start, len(documents))]


def gradients(lm: Any, plan: RowPass, documents: Sequence[Tensor]) -> list[Tensor]:
    """Of each document's summed loss, [documents, width] per group of layers."""
    mask = pad_sequence([torch.ones_like(ids) for ids in documents], batch_first=True)
    ids = pad_sequence(list(documents), batch_first=True)
    with recording(plan.layers) as tape:
        logits = lm(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
        return plan.of_batch(tape, (losses * mask[:, 1:]).sum(1), torch.ones(1, len(ids)), mask)[0]


def stored(lm: Any, plan: RowPass, documents: Sequence[Tensor], form: RowForm, folder: Path) -> GradientRows:
    """Rows in a folder, written as the stage writes them."""
    folder.mkdir()
    widths, dtypes = zip(*form.arrays(plan.layout), strict=True)
    files = RowFiles.create(folder, len(documents), widths, {}, [str(dtype).split(".")[1] for dtype in dtypes])
    for rows in batches_of(documents):
        found = gradients(lm, plan, [documents[row] for row in rows])
        files.write(rows, form.encode(plan.layout, found))
    return GradientRows(plan.layout, files.map(), form=form)


def scored(train: GradientRows, test: GradientRows, top_k: int, budget: int) -> InstanceScores:
    """The best and the worst of every query by gradient similarity, streamed."""
    scorer = GradientSimilarity(params="all", projection="random").prepare(train, budget)
    return stream_scores(scorer, test, torch.arange(len(test)), top_k, budget)[0]


def all_scores(train: GradientRows, test: GradientRows) -> Tensor:
    """Gradient similarity of every query with every document, [queries, documents], float32."""
    scorer = GradientSimilarity(params="all", projection="random").prepare(train, BUDGET)
    return scorer.scores(scorer.query(test, torch.arange(len(test))), 0, len(train))


def random_documents(count: int, shortest: int, longest: int, seed: int) -> list[Tensor]:
    """Token ids drawn evenly, of lengths drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator)
    return list(torch.randint(3, VOCABULARY, (int(lengths.sum()),), generator=generator).split(lengths.tolist()))
