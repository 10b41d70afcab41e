"""trainer=fsdp on two CPU processes: the fit and the scores of one process, of either lens."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.families import ALL_MODELS, tiny_backbone
from tests.running import CommandLine
from tests.test_processes import start
from twinlens.attribution.errors import UserError
from twinlens.callbacks.processes.fsdp import shard
from twinlens.models.twin import longest_list

TIMEOUT = 900
SIZES = ("data.n_train=32", "data.n_validation=8", "data.n_test=9", "data.n_twins=2", "trainer.max_epochs=1")
SCORES = {
    "ig": "score",
    "logprob_increase": "score",
    "gradsim": "top_score",
    "gradsim_cosine": "top_score",
    "tracin": "top_score",
    "influence": "top_score",
    "influence_ekfac": "top_score",
    "na_instances": "top_score",
}
"""Both lenses, their bridge, epochs, stored rows (gradsim_cosine), whole gradients and factors of all layers."""
WHAT = (
    f"method=[{','.join(SCORES)}]", "method.gradsim.params=all", "method.gradsim_cosine.params=all",
    "method.gradsim_cosine.projection=random", "method.gradsim_cosine.projection_dim=4",
    "method.influence_ekfac.params=all", "method.ig.n_steps=4", "evaluation=[accuracy,faithfulness]",
    "trainer.accelerator=cpu", *SIZES,
)  # fmt: skip
TWO = ("trainer=fsdp", "trainer.devices=2", "paths.store=sharded")


@pytest.mark.long
def test_two_processes_with_half_of_each_layer_give_the_scores_of_one(command: CommandLine, repository: Path) -> None:
    """Scores are compared at the same weights: one process reads the fit, with its epochs, that two have stored."""
    several = start(repository, command.folder, *WHAT, "data.batch_size=4", *TWO, timeout=TIMEOUT)
    assert several.returncode == 0, several.stderr
    assert several.stdout.count("fit: computed") == 1
    shutil.copytree(command.folder / "sharded" / "fit", command.folder / "whole" / "fit")
    one = command(*WHAT, "data.batch_size=8", "paths.store=whole", base=())
    assert one.code == 0, one.err
    assert "fit: read from the store" in one.out
    folders = [one.folder, command.folder / several.stdout.strip().splitlines()[-1]]
    for name, column in SCORES.items():
        expected, got = (
            np.concatenate(list(datasets.load_from_disk(str(folder / "scores" / name / "test"))[column][:]))
            for folder in folders
        )
        largest = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * largest, err_msg=name)
    expected, got = (
        [float(row["value"]) for row in csv.DictReader((folder / "results.csv").open()) if row["value"]]
        for folder in folders
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    fitted = command(
        "method=gradsim", "evaluation=accuracy", "trainer.accelerator=cpu", *SIZES, "data.batch_size=8",
        "paths.store=fitted", base=(),
    )  # fmt: skip
    assert "fit: computed" in fitted.out, fitted.err
    folders[0] = fitted.folder
    whole, sharded = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert whole.keys() == sharded.keys()
    for name, weights in whole.items():
        # AdamW magnifies rounding where gradients vanish
        torch.testing.assert_close(sharded[name], weights, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ALL_MODELS)
def test_blocks_are_found_in_every_family(name: str) -> None:
    backbone = tiny_backbone(name)
    blocks = longest_list(backbone)
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
