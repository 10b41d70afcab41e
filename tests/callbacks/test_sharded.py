"""trainer=fsdp on two CPU processes: the fit of one process, and what one process finds through both lenses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from attribution.base import UserError
from callbacks.sharded import blocks_of, shard
from tests.families import ALL_MODELS, tiny_backbone
from tests.running import CommandLine
from tests.test_processes import start

TIMEOUT = 900
"""Seconds until processes that wait for each other count as hanging."""
SIZES = ("data.n_train=60", "data.n_validation=10", "data.n_test=23", "data.n_twins=2", "trainer.max_epochs=1")
ONE = ("trainer.accelerator=cpu", "data.batch_size=8")
FSDP = ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4")
SCORES = {
    "ig": "score",
    "logprob_increase": "score",
    "gradsim": "top_score",
    "gradsim_cosine": "top_score",
    "influence": "top_score",
    "influence_ekfac": "top_score",
    "tracin": "top_score",
    "na_instances": "top_score",
}
WHAT = (
    f"method=[{','.join(SCORES)}]",
    "evaluation=[accuracy,faithfulness]",
    "method.ig.n_steps=5",
    "method.gradsim_cosine.params=all",
    "method.gradsim_cosine.projection=random",
    "method.gradsim_cosine.projection_dim=4",
    "method.influence_ekfac.params=all",
    *SIZES,
)
"""Head and all layers, stored rows and whole gradients with factors, weights of epochs, neurons, a bridge, edits."""


def test_two_processes_with_half_of_each_block_find_what_one_finds(command: CommandLine, repository: Path) -> None:
    several = start(repository, command.folder, *WHAT, *FSDP, "paths.store=sharded", timeout=TIMEOUT)
    assert several.returncode == 0, several.stderr
    assert several.stdout.count("fit: computed") == 1
    shutil.copytree(command.folder / "sharded" / "fit", command.folder / "same_fit" / "fit", symlinks=True)
    one = command(*WHAT, *ONE, "paths.store=same_fit", base=())
    assert one.code == 0, one.err
    assert "fit: read from the store" in one.out
    assert "tracin: computed" in one.out
    folders = [command.folder / out.strip().splitlines()[-1] for out in (one.out, several.stdout)]
    for name, column in SCORES.items():
        expected, got = (
            datasets.load_from_disk(str(folder / "scores" / name / "test")).with_format("numpy")[column][:]
            for folder in folders
        )
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)
    metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    found = [{key: value for key, value in one.items() if not key.startswith("time/")} for one in metrics]
    assert any("faithfulness" in key or "comprehensiveness" in key for key in found[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5, abs=1e-5)
    # AdamW moves a weight without gradient by the sign of a rounding error
    alone = command("method=gradsim", "evaluation=accuracy", *SIZES, *ONE, "paths.store=whole", base=())
    assert "fit: computed" in alone.out
    whole, sharded = (load_file(run / "model" / "model.safetensors") for run in (alone.folder, folders[1]))
    assert whole.keys() == sharded.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(sharded[name], weights, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ALL_MODELS)
def test_blocks_are_found_in_every_family(name: str) -> None:
    backbone = tiny_backbone(name)
    blocks = blocks_of(backbone)
    assert len(blocks) == backbone.config.num_hidden_layers
    inside = sum(parameter.numel() for parameter in blocks.parameters())
    assert inside > 0


def test_a_head_tied_to_the_embeddings_cannot_be_trained() -> None:
    class Tied(nn.Module):
        name = "tied"

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Embedding(4, 3)
            self.head = nn.Linear(3, 4, bias=False)
            self.head.weight = self.backbone.weight

    with pytest.raises(UserError, match=r"model=tied.*trainer=ddp"):
        shard(Tied(), None)
