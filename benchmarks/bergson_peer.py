"""bergson's gradient index of documents and its scores of queries; a script of its own, for an environment of its own.

`PYTHON benchmarks/bergson_peer.py FOLDER DIM`, PYTHON of an environment that has bergson. FOLDER holds `model/`,
`train.pt` and `test.pt` (token ids, [documents, tokens]). Writes `FOLDER/bergson.pt`: the scores, [queries, documents],
and the seconds of rows and scores together and of the scores alone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor

BATCH_TOKENS = 4096
"""As twinlens' side of the comparison."""


def rows(model: object, ids: Tensor, dim: int, folder: Path) -> Tensor:
    """Gradients of summed losses, [documents, numbers], written to an index on disk and mapped."""
    import datasets
    from bergson import GradientProcessor, IndexConfig, collect_gradients, load_gradients

    data = datasets.Dataset.from_dict({"input_ids": ids.tolist(), "length": [ids.shape[1]] * len(ids)})
    config = IndexConfig(
        run_path=str(folder), projection_dim=dim, loss_reduction="sum", token_batch_size=BATCH_TOKENS,
    )  # fmt: skip
    config.partial_run_path.mkdir(parents=True)
    size = max(1, BATCH_TOKENS // ids.shape[1])
    batches = [list(range(start, min(start + size, len(ids)))) for start in range(0, len(ids), size)]
    processor = GradientProcessor(projection_dim=dim or None, projection_seed=0)
    collect_gradients(model, data, processor, config, batches=batches)
    return torch.from_numpy(load_gradients(config.partial_run_path))


def main(folder: Path, dim: int) -> None:
    """Rows of documents and queries, then inner products as bergson's `Attributor` takes them."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval().requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)  # as its own set-up: enough for a backward to reach every layer
    train, test = torch.load(folder / "train.pt"), torch.load(folder / "test.pt")
    rows(model, test, dim, folder / "index_before")  # outside the clock: what is imported and made once
    began = time.perf_counter(), time.process_time()
    found, asked = (rows(model, ids, dim, folder / f"index_{name}") for name, ids in (("train", train), ("test", test)))
    ready = time.perf_counter(), time.process_time()
    scores = asked @ found.T
    ended = time.perf_counter(), time.process_time()
    seconds = {
        clock: (ended[place] - began[place], ended[place] - ready[place])
        for place, clock in enumerate(("wall", "processor"))
    }
    torch.save({"scores": scores, "seconds": seconds}, folder / "bergson.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
