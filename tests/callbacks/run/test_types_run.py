"""Runs with `model.dtype=bfloat16`: both lenses, a fit of the head alone, matrices beside the weights, the plan."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.precision import agreement, rankings
from tests.adapters import needs_peft
from tests.faults.starting import SECONDS, start
from tests.running import SMALL_DEMO, CommandLine, Finished

LOCAL = ("model=local", "evaluation=accuracy")
METHODS = ["ig", "logprob_increase", "gradsim", "influence"]
BF16 = "model.dtype=bfloat16"


def probabilities(run: Finished) -> torch.Tensor:
    return torch.tensor(datasets.load_from_disk(str(run.folder / "examples" / "test"))["prob"][:])


@pytest.mark.long
@pytest.mark.parametrize("methods", [["ig", "gradsim"], METHODS])
def test_both_lenses_over_bfloat16(command: CommandLine, trained: Path, methods: list[str]) -> None:
    """A trained classifier as it is: lists near those of float32, under keys of their own."""
    given = (*LOCAL, f"method=[{','.join(methods)}]", f"model.path={trained / 'model'}", "fit=false")
    wide, narrow = command(*given), command(*given, BF16)
    assert [wide.code, narrow.code] == [0, 0], narrow.err
    torch.testing.assert_close(probabilities(narrow), probabilities(wide), rtol=0, atol=0.05)
    assert not torch.equal(probabilities(narrow), probabilities(wide))
    for method in methods:
        pairs = zip(rankings(wide.folder, method), rankings(narrow.folder, method), strict=True)
        assert np.mean([agreement(*pair)["top10"] for pair in pairs]) >= 0.7, method
    if methods == METHODS:
        again = command(*given, BF16)
        assert torch.equal(probabilities(again), probabilities(narrow))
        assert "computed" not in again.out


@pytest.mark.long
def test_a_fit_trains_the_head_alone_and_keeps_the_types(command: CommandLine, trained: Path) -> None:
    given = ("model=local", f"model.path={trained / 'model'}", "method=[gradsim,ig]", "evaluation=accuracy", BF16)
    run = command(*given, "method.gradsim.params=all", "method.gradsim.projection=random")
    assert run.code == 0, run.err
    assert "its head alone is trained, in float32" in run.out
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (trained, run.folder))
    head = {name for name in after if name.startswith("score")}
    assert {after[name].dtype for name in head} == {torch.float32}
    assert all(not torch.equal(after[name], before[name]) for name in head)
    rest = {name: value for name, value in after.items() if name not in head}
    assert all(torch.equal(value, before[name].bfloat16()) for name, value in rest.items())


def test_a_plan_counts_two_bytes_a_weight(command: CommandLine, trained: Path) -> None:
    given = ("model=local", f"model.path={trained / 'model'}", "fit=false", "method=gradsim", "plan=true")
    wide, narrow = command(*given), command(*given, BF16)
    assert [wide.code, narrow.code] == [0, 0], narrow.err

    def model_alone(run: Finished) -> float:
        line = next(line for line in run.out.splitlines() if line.startswith("predict test"))
        sizes = [float(size) * {"KiB": 1, "MiB": 1024}[unit] for size, unit in re.findall(r"([\d.]+) (KiB|MiB)", line)]
        return sizes[-1] - sizes[-2]  # peak with model, less working memory

    assert model_alone(narrow) == pytest.approx(model_alone(wide) / 2, rel=0.05)


@pytest.mark.long
@needs_peft
def test_matrices_beside_bfloat16_are_trained_in_float32(command: CommandLine, trained: Path) -> None:
    given = ("model=local", f"model.path={trained / 'model'}", "model.adapter=lora", BF16)
    run = command(*given, "method=[gradsim,ig]", "method.gradsim.params='*lora*'", "evaluation=accuracy")
    assert run.code == 0, run.err
    matrices = load_file(run.folder / "model" / "adapter_model.safetensors")
    assert {value.dtype for value in matrices.values()} == {torch.float32}
    base = load_file(run.folder / "model" / "base" / "model.safetensors")
    assert {value.dtype for name, value in base.items() if not name.startswith("score")} == {torch.bfloat16}
    again = command("model=local", f"model.path={run.folder / 'model'}", BF16, "fit=false", "method=ig",
                    "evaluation=accuracy")  # fmt: skip
    assert again.code == 0, again.err
    torch.testing.assert_close(probabilities(again), probabilities(run), rtol=0, atol=1e-5)


@pytest.mark.long
def test_auto_and_whole_bf16_run_alike(command: CommandLine, trained: Path) -> None:
    """`bf16-true` casts the head too; `auto` of a float32 checkpoint is float32, and says so."""
    given = ("model=local", f"model.path={trained / 'model'}", "fit=false", "method=ig", "evaluation=accuracy")
    whole, auto = command(*given, BF16, "trainer.precision=bf16-true"), command(*given, "model.dtype=auto")
    assert [whole.code, auto.code] == [0, 0], whole.err
    assert "read in float32, the checkpoint's own type" in auto.out
    torch.testing.assert_close(probabilities(whole), probabilities(auto), rtol=0, atol=0.05)


@pytest.mark.long
@pytest.mark.parametrize("trainer", ["ddp_cpu", "fsdp"])
def test_several_processes_say_the_same(command: CommandLine, trained: Path, trainer: str) -> None:
    given = (*LOCAL, "method=[ig,gradsim]", f"model.path={trained / 'model'}", "fit=false", BF16, *SMALL_DEMO[1:-1])
    one = command(*given, "paths.store=store1")
    assert one.code == 0, one.err
    two = (f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=2", "paths.store=store2")
    run = start(command.folder, *given, *two, "hydra.run.dir=two")
    assert run.wait(timeout=SECONDS) == 0, (command.folder / "err").read_text()
    several = Finished(0, str(command.folder / "two"), "")
    torch.testing.assert_close(probabilities(several), probabilities(one), rtol=0, atol=1e-3)


@pytest.mark.long
def test_two_processes_train_the_head_alone(command: CommandLine, trained: Path) -> None:
    given = ("model=local", f"model.path={trained / 'model'}", "method=gradsim", "evaluation=accuracy", BF16)
    two = ("trainer=ddp_cpu", "trainer.devices=2", *SMALL_DEMO[1:-1], "trainer.max_epochs=1")
    run = start(command.folder, *given, *two, "hydra.run.dir=two")
    assert run.wait(timeout=SECONDS) == 0, (command.folder / "err").read_text()
    weights = load_file(command.folder / "two" / "model" / "model.safetensors")
    types = {name: value.dtype for name, value in weights.items()}
    assert {name for name, dtype in types.items() if dtype == torch.float32} == {"score.weight"}
    assert {dtype for name, dtype in types.items() if name != "score.weight"} == {torch.bfloat16}
