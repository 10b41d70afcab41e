"""Bytes and rank agreement of the forms of stored rows on a language model: `python -m benchmarks.storages`.

Documents are the rows of a JSON list of texts; of its last ones the first tokens are the queries. Agreement is the
Spearman correlation of a query's scores of all documents with those over dense rows, the mean and the least over
queries.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.pairs import progress
from benchmarks.text_rows import plan_of, stored
from twinlens.attribution.evaluation.ground_truth.correlation import spearman
from twinlens.attribution.gradients.row_forms import DENSE, Storage
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.gradients.storage import bytes_per_row, form_of, kept_of
from twinlens.attribution.instance.gradsim import GradientSimilarity, Similarity

QUERY_TOKENS = 40
BUDGET = 2**28
FORMS: list[tuple[Storage, int]] = [("dense", 3), ("half", 3), ("factored", 4), ("factored", 3), ("factored", 2),
                                    ("factored", 1)]  # fmt: skip
SIMILARITIES: tuple[Similarity, ...] = ("dot", "cosine")


def scores(train: GradientRows, test: GradientRows, similarity: Similarity) -> Tensor:
    """[queries, documents]."""
    scorer = GradientSimilarity(similarity, params="all", projection="random").prepare(train, BUDGET)
    return scorer.scores(scorer.query(test, torch.arange(len(test))), 0, len(train))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of docs/scaling.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storages", description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--texts", required=True, type=Path, help="JSON list of texts")
    parser.add_argument("--documents", type=int, default=300, help="(300)")
    parser.add_argument("--queries", type=int, default=30, help="(30)")
    parser.add_argument("--longest", type=int, default=512, help="tokens of a document at most (512)")
    parser.add_argument("--dim", type=int, default=16, help="projection_dim (16, the methods' default)")
    parsed = parser.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(parsed.model)
    lm = AutoModelForCausalLM.from_pretrained(parsed.model, dtype=torch.float32).eval().requires_grad_(False)
    texts = json.loads(parsed.texts.read_text(encoding="utf-8"))
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = [
        torch.tensor((start + tokenizer(text, add_special_tokens=False)["input_ids"])[: parsed.longest])
        for text in [*texts[: parsed.documents], *texts[-parsed.queries :]]
    ]
    documents, queries = ids[: parsed.documents], [one[:QUERY_TOKENS] for one in ids[parsed.documents :]]
    documents.sort(key=len)
    plan = plan_of(lm, "all", parsed.dim)
    with tempfile.TemporaryDirectory() as folder:
        dense = stored(lm, plan, documents, DENSE, Path(folder) / "train")
        test = stored(lm, plan, queries, DENSE, Path(folder) / "test")
        progress(f"{len(documents)} documents, {len(queries)} queries, {plan.layout.n_numbers} numbers a row")
        print("| storage | bytes a row | of dense | kept | dot product | cosine |\n|---|---:|---:|---:|---|---|")
        whole = {similarity: scores(dense, test, similarity) for similarity in SIMILARITIES}
        for storage, rank in FORMS:
            form = form_of(storage, rank)
            arrays = form.encode(plan.layout, dense.groups)
            small = GradientRows(plan.layout, tuple(arrays), form=form)
            size, of_dense = bytes_per_row(form, plan.layout), bytes_per_row(DENSE, plan.layout)
            share = 1.0 if form.exact else kept_of(form, plan.layout, dense.groups, arrays).share
            said = [spearman(scores(small, test, similarity), whole[similarity]) for similarity in SIMILARITIES]
            agreement = " | ".join(f"{found.mean():.4f} (least {found.min():.4f})" for found in said)
            name = storage if storage != "factored" else f"factored, rank {rank}"
            print(f"| {name} | {size} | {size / of_dense:.3f} | {share:.4f} | {agreement} |", flush=True)


if __name__ == "__main__":
    main()
