"""Completions that the model itself goes on with, greedily, for queries that name none: generated once and kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.completions import padded
from twinlens.attribution.engine_sizes import Sequences
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch
from twinlens.callbacks.passes.costs import prediction_need
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish
from twinlens.data.data_report import quoted
from twinlens.data.texts import with_labels
from twinlens.models.footprint import Footprint

NO_TOKEN = -1
"""Behind the end of a generated completion."""


def generates(session: Session, split: str) -> bool:
    """Whether a split has queries that the model is to go on from."""
    if not getattr(session.data, "generate", 0) or split not in session.data.splits:
        return False
    rows = session.data.splits[split]
    return "answer_ids" in rows.column_names and not all(rows["answer_ids"][:])


def generate_stage(session: Session, split: str) -> None:
    """Give every query without a completion the tokens that the model finds the likeliest, one after the other.

    They end behind `data.generate` tokens or before the end-of-sequence token, which is kept where it comes first.

    Args:
        session: its data's split is replaced by one with all completions.
    """
    inputs = generate_inputs(session, split)
    labels = session.labels(split=split)
    entry = session.store.get("generated", inputs, partial(_generate, session, split), labels, f"generate {split}")
    rows = session.data.splits[split]
    ids = put_generated(session, split, entry.path, session.readable.tokenizer)
    made = [number for number, given in enumerate(rows["answer_ids"][:]) if not given]
    shown = session.data.splits[split]["completion"][made[0]]
    print(
        f"generated: completions of {len(made)} of {len(rows)} {split} queries, at most {ids.shape[1]} tokens each; "
        f"the first is {quoted(shown)}",
        flush=True,
    )


def generate_inputs(session: Session, split: str) -> dict[str, Any]:
    """Everything that generated completions depend on."""
    return {
        "weights": session.weights,
        "split": session.data.fingerprint(split),
        "precision": session.trainers.numbers,
        "code": code_of(__name__, session.data, {"_target_": session.model_target}),
    }


def put_generated(session: Session, split: str, folder: Path, tokenizer: Any) -> Tensor:
    """Take stored completions into a session's split; their tokens, [rows, tokens]."""
    ids = load_file(folder / "tokens.safetensors")["tokens"]
    session.data.splits[split] = with_generated(session.data.splits[split], ids, tokenizer)
    return ids


def generate_need(footprint: Footprint, sequences: Sequences, n_tokens: int) -> Need:
    """Memory of a batch whose completions are generated."""
    return prediction_need(footprint, sequences).lengthened(lambda columns: columns + n_tokens)


def with_generated(rows: datasets.Dataset, tokens: Tensor, tokenizer: Any) -> datasets.Dataset:
    """Queries with generated completions where they have none of their own.

    Args:
        tokens: of each row, `NO_TOKEN` behind the end, [rows, tokens].
    """
    table = rows.with_format("arrow")[:]
    given, texts = rows["answer_ids"][:], list(rows["completion"][:])
    said = [[token for token in row if token != NO_TOKEN] for row in tokens.tolist()]
    for number, ids in enumerate(given):
        if not ids:  # what it adds to the prompt's text, its first space among it
            prompt = list(rows[number]["input_ids"])
            texts[number] = tokenizer.decode(prompt + said[number])[len(tokenizer.decode(prompt)) :]
    answers = [list(ids) or said[number] for number, ids in enumerate(given)]
    for name, values in (("answer_ids", answers), ("completion", texts)):
        place = table.column_names.index(name)
        table = table.set_column(place, name, pyarrow.array(values, table.schema.field(name).type))
    return with_labels(table)


def _generate(session: Session, split: str, folder: Path) -> Finish:
    model: Any = session.readable
    n_tokens = int(getattr(session.data, "generate", 0))
    given = session.data.splits[split]["answer_ids"][:]

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        asked = [place for place, row in enumerate(batch["index"].tolist()) if not given[row]]
        tokens = torch.full((len(batch["index"]), n_tokens), NO_TOKEN)
        if asked:
            tokens[asked] = greedy(model, {name: tensor[asked] for name, tensor in batch.items()}, n_tokens)
        return {"index": batch["index"], "tokens": tokens}

    longer = generate_need(session.footprint, session.sequences, n_tokens)
    title = f"generate on {split}"
    cut = WithinMemory(title, compute, session.memory_budget, longer)
    shards, loader = session.shards(split), session.loader(split)
    result = run_pass(title, model, cut, shards, loader, folder / "shards", session.trainers)
    return lambda: save_file({"tokens": result.rows["tokens"].contiguous()}, folder / "tokens.safetensors")


@torch.no_grad()
def greedy(model: Any, batch: Batch, n_tokens: int) -> Tensor:
    """The likeliest next tokens, one after the other, of a language model, [batch, n_tokens] on the host.

    Args:
        model: gives scores of the next token, [batch, vocabulary].
        batch: prompts.
        n_tokens: at most; a row ends before the tokenizer's end-of-sequence token, which is kept where it comes first.
    """
    ids, mask = batch["input_ids"].cpu(), batch["attention_mask"].cpu().bool()
    texts = [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
    said: list[list[int]] = [[] for _ in texts]
    going = list(range(len(texts)))
    for _ in range(n_tokens):
        read, attended = padded([texts[row] + said[row] for row in going])
        device = batch["input_ids"].device
        scores = model({"input_ids": read.to(device), "attention_mask": attended.to(device)})
        tokens = scores.argmax(-1).tolist()
        ended = {row for row, token in zip(going, tokens, strict=True) if token == model.tokenizer.eos_token_id}
        for row, token in zip(going, tokens, strict=True):
            if row not in ended or not said[row]:
                said[row].append(token)
        going = [row for row in going if row not in ended]
        if not going:
            break
    return torch.tensor([row + [NO_TOKEN] * (n_tokens - len(row)) for row in said])
