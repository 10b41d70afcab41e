"""trainer=fsdp on two CPU processes: the fit and the scores of one process; what it cannot do is said first."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from attribution.base import UserError
from callbacks.sharded import TARGET, blocks_of, refuse_what_needs_whole_blocks, shard
from tests.families import ALL_MODELS, tiny_backbone
from tests.running import CommandLine
from tests.test_processes import start

SIZES = ("data.n_train=60", "data.n_validation=10", "data.n_test=23", "data.n_twins=2", "trainer.max_epochs=1")
WHAT = ("method=[gradsim,influence]", "evaluation=accuracy", "trainer.accelerator=cpu", *SIZES)


def test_two_processes_with_half_of_each_layer_give_the_scores_of_one(command: CommandLine, repository: Path) -> None:
    one = command(*WHAT, "data.batch_size=8", "paths.store=whole", base=())
    assert one.code == 0, one.err
    several = start(
        repository, command.folder, *WHAT, "data.batch_size=4", "paths.store=sharded", "trainer=fsdp",
        "trainer.devices=2",
    )  # fmt: skip
    assert several.returncode == 0, several.stderr
    assert several.stdout.count("fit: computed") == 1
    folders = [command.folder / out.strip().splitlines()[-1] for out in (one.out, several.stdout)]
    whole, sharded = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert whole.keys() == sharded.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(sharded[name], weights, rtol=1e-5, atol=1e-5)
    for name in ("gradsim", "influence"):
        expected, got = (
            datasets.load_from_disk(str(folder / "scores" / name / "test")).with_format("numpy") for folder in folders
        )
        largest = np.abs(expected["top_score"][:]).max()
        np.testing.assert_allclose(got["top_score"][:], expected["top_score"][:], rtol=1e-5, atol=1e-5 * largest)


def test_methods_that_read_layers_are_refused_first(command: CommandLine) -> None:
    finished = command("trainer=fsdp", "trainer.devices=2", "method=[ig,gradsim,tracin]", base=())
    assert finished.code == 2
    assert "method=ig,tracin" in finished.err
    assert "trainer=ddp" in finished.err
    refuse_what_needs_whole_blocks({"ig": object()}, {"strategy": "ddp"})


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
        shard(Tied(), None, with_head=True)
    assert TARGET.endswith(".ShardedStrategy")
