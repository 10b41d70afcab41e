"""The benchmarks run at a tiny size, compare equal results and leave their record; no time is asserted."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config

from benchmarks import ig, large_model, on_gpu, pairs, second_paper
from benchmarks.device import Operations
from benchmarks.measured import TINY, is_installed
from benchmarks.pairs import Comparison, Timed, compare, timed, use_clock
from benchmarks.run import main
from benchmarks.scaling import fitted_exponent

RATIOS = [
    "ig_vs_loop_T16",
    "faithfulness_vs_prefix_T16",
    "ig_gauss8_vs_riemann20_T16",
    "ig_in_floors_T16",
    "ig_in_floors_bloom_T16",
    "ig_pythia410m_vs_loop_T16",
    "gradsim_vs_autograd_loop",
    "rows_vs_plain_product",
    "query_vs_row_pass",
    "dcns_vs_double_loop",
    "lpi_topk_vs_dense",
    "lpi_dense_vs_loop",
    "table2_cost_inverse_rank",
    "table2_cost_log_prob",
    "ranks_vs_by_prompt",
    "increase_sums_attention_vs_dense",
    "evaluations_together_vs_alone",
    "sums_at_once_vs_batches",
    "increase_sums_ffn_vs_dense",
    "misspelt_vs_import_hydra",
]
NEEDS_CAPTUM = pytest.mark.skipif(not is_installed("captum"), reason="needs captum (extra bench)")


@dataclass(frozen=True)
class Finished:
    """A run at tiny size: exit code, what it printed, its record and its table."""

    code: int
    printed: str
    record: dict
    table: str


def smoke(folder: Path, *arguments: str) -> Finished:
    """Run at tiny size."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["--smoke", *arguments, "--output", str(folder)])
    (file,) = folder.glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    return Finished(code, printed.getvalue(), record, file.with_suffix(".md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All groups, once for the tests that read what is there."""
    return smoke(tmp_path_factory.mktemp("results"))


@pytest.mark.long  # one reduced run of all benchmarks is shared by these
def test_every_ratio_is_printed_and_recorded(everything: Finished) -> None:
    lines = dict(line.split(" ", 1) for line in everything.printed.splitlines())
    record = everything.record
    assert everything.code == 0
    for name in RATIOS:
        assert float(lines[name]) > 0
        found = record["comparisons"][name]
        assert len(found["ours_seconds"]) == len(found["peer_seconds"]) == len(found["ratios"]) == 1
        assert found["ratio"] == pytest.approx(found["peer_seconds"][0] / found["ours_seconds"][0])
    assert "ig_vs_captum_T16" in lines
    assert record["command"] == "python -m benchmarks.run --smoke"
    assert record["machine"]["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", record["date"])
    assert all(f"| {name} |" in everything.table for name in RATIOS)


@pytest.mark.long  # one reduced run of all benchmarks is shared by these
def test_results_agree_and_gauss_needs_fewer_steps(everything: Finished) -> None:
    found = everything.record["comparisons"]
    assert 0 < found["ig_vs_loop_T16"]["relative_difference"] < 1e-5
    for name in ("gradsim_vs_autograd_loop", "rows_vs_plain_product", "lpi_topk_vs_dense"):
        assert found[name]["relative_difference"] < 1e-5
    assert found["lpi_dense_vs_loop"]["relative_difference"] < 1e-3
    values = everything.record["values"]
    assert values["ig_gauss8_error_T16"] < values["ig_riemann20_error_T16"] / 10


@pytest.mark.long  # one reduced run of all benchmarks is shared by these
def test_checking_the_store_is_a_small_share_of_the_demo(everything: Finished) -> None:
    values = everything.record["values"]
    assert 0 < values["store_check_share_of_demo"] < 0.1
    assert values["store_check_mb_of_demo"] > 0.1
    assert values["store_check_gb_per_second"] > 0.05


@pytest.mark.long  # one reduced run of all benchmarks is shared by these
@NEEDS_CAPTUM
def test_captum_agrees(everything: Finished) -> None:
    found = everything.record["comparisons"]
    assert 0 < found["ig_vs_captum_T16"]["relative_difference"] < 1e-5
    assert found["gradsim_trained_head_vs_captum"]["relative_difference"] < 1e-5
    assert 0 < found["gradsim_from_texts_vs_captum"]["relative_difference"] < 1e-4
    assert "ig_vs_captum_T16" not in everything.record["skipped"]


def test_absent_captum_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    done = smoke(tmp_path, "--only", "ig,head_peers,trained")
    assert done.code == 0
    assert "ig_vs_captum_T16 skipped: needs pip install twinlens[bench]\n" in done.printed
    assert {name for name in done.record["skipped"] if "captum" in name} == {
        "ig_vs_captum_T16",
        "gradsim_head_vs_captum",
        "gradsim_trained_head_vs_captum",
        "gradsim_from_texts_vs_captum",
    }


def test_differing_results_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ig.plain_loop

    def wrong(subject: ig.Subject, layers: list[int]) -> Timed[torch.Tensor]:
        run = honest(subject, layers)
        return Timed(run.seconds, run.result * 1.001, run.parts)

    monkeypatch.setattr(ig, "plain_loop", wrong)
    done = smoke(tmp_path, "--only", "ig")
    assert done.code == 1
    assert done.record["comparisons"]["ig_vs_loop_T16"]["relative_difference"] > 1e-5


def test_nan_never_agrees() -> None:
    values = iter([math.nan, 0.0])
    sides = [lambda: Timed(1.0, 0.0), lambda: Timed(3.0, 0.0)]
    comparison = compare("name", *sides, 2, lambda left, right: next(values), 1e-5, "")
    assert not comparison.agrees
    assert comparison.ratio == 3.0


def test_the_clock_may_be_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([1.0, 4.0])
    monkeypatch.setitem(pairs.CLOCKS, "processor", lambda: next(ticks))
    use_clock("processor")
    try:
        assert timed(lambda: "done").seconds == 3.0
    finally:
        use_clock("wall")


@pytest.mark.long
def test_all_tables_of_the_second_paper_are_made_and_every_prompt_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["second_paper", "--smoke", "--threads", "1"])
    second_paper.main()
    printed = capsys.readouterr()
    assert "known: 8 of 8 test prompts kept" in printed.err
    of_maps = {"head_importance", "segments"}  # whose rows are for results.csv and figures, not for a terminal
    assert all(f"\n{name}\n" in printed.err for name in second_paper.EVALUATIONS if name not in of_maps)
    assert "more rows, of lists, maps" in printed.err
    said = dict(line.split(" ", 1) for line in printed.out.splitlines())
    assert said["second_paper_prompts"] == "8"
    assert float(said["second_paper_wall_seconds"]) > 0


def test_ratio_is_the_median_of_the_pairs_and_not_a_ratio_of_medians() -> None:
    comparison = Comparison("name", [1.0, 2.0, 4.0], [10.0, 4.0, 8.0], None, None, "")
    assert comparison.ratios == [10.0, 2.0, 2.0]
    assert comparison.ratio == 2.0


@pytest.mark.parametrize(
    ("n_layers", "count", "layers"),
    [(12, 3, [0, 6, 11]), (12, 12, list(range(12))), (2, 3, [0, 1]), (12, 1, [11]), (4, 2, [0, 3])],
)
def test_timed_layers(n_layers: int, count: int, layers: list[int]) -> None:
    assert ig.chosen_layers(n_layers, count) == layers


def test_scaling_to_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two layers timed: whole = clean forward + 2 × that layer."""
    subject = ig.build_subject(GPT2Config(**TINY), 8, 2)
    clock = iter([0.0, 1.0, 10.0, 15.0])
    monkeypatch.setitem(pairs.CLOCKS, "wall", lambda: next(clock))
    found = ig.plain_loop(subject, [1])
    assert found.seconds == 1.0 + 2 * 5.0
    assert found.parts == [5.0]


def test_operations_are_those_of_products_forward_and_backward() -> None:
    left = torch.randn(2, 3, requires_grad=True)
    with Operations() as counted:
        torch.autograd.grad((left @ torch.randn(3, 4)).sum(), left)
    assert counted.total == 2 * (2 * 2 * 3 * 4)  # the product, and its gradient at one side


def test_the_exponent_is_a_slope() -> None:
    assert fitted_exponent([1, 10, 100], [2.0, 20.0, 200.0]) == pytest.approx(1.0)
    assert fitted_exponent([1, 10, 100], [3.0, 300.0, 30000.0]) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "arguments", [["--only", "ig,speed"], ["--pairs", "0"], ["--lengths", "128,x"], ["--lengths", "2048"]]
)
def test_impossible_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.long  # a process for each step
def test_every_step_of_the_gpu_script_runs_on_a_cpu_and_is_recorded(tmp_path: Path) -> None:
    assert on_gpu.main(["--device", "cpu", "--smoke", "--folder", str(tmp_path)]) == 0
    (file,) = tmp_path.glob("*.json")
    steps = json.loads(file.read_text(encoding="utf-8"))["steps"]
    assert list(steps) == list(on_gpu.STEPS)
    assert {name: step["error"] for name, step in steps.items()} == dict.fromkeys(steps)
    assert steps["ig_bf16"]["found"]["correlation_with_loop"] > 0.99
    assert steps["out_of_memory"]["found"]["halved"] > 0
    planned = {name: each["planned"] for name, each in steps["plan_against_measured"]["found"].items()}
    assert planned["ig, float32"] == 2 * planned["ig, bfloat16"]


@pytest.mark.long  # a process of its own
def test_a_step_that_fails_or_takes_too_long_is_recorded_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = on_gpu.run_step("out_of_memory", "cpu", True, 0.2)
    assert ended.error == "took more than its 0.2 s"
    monkeypatch.setattr(sys, "executable", "/bin/false")
    arguments = ["--device", "cpu", "--smoke", "--folder", str(tmp_path), "--steps", "ig_bf16", "ekfac_rows"]
    assert on_gpu.main(arguments) == 1
    (file,) = tmp_path.glob("*.json")
    steps = json.loads(file.read_text(encoding="utf-8"))["steps"]
    assert [step["found"] for step in steps.values()] == [None, None]
    assert [step["error"] for step in steps.values()] == ["exit code 1"] * 2


def test_without_a_gpu_the_script_says_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is at hand")
    assert on_gpu.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("no CUDA device here")
    assert all(f"  {name} (at most " in said for name in on_gpu.STEPS)
    assert sum(step.limit for step in on_gpu.STEPS.values()) <= on_gpu.AT_MOST == 480
    script = Path(on_gpu.__file__).with_suffix(".sh").read_text(encoding="utf-8")
    assert 'exec "$python" -m benchmarks.on_gpu "$@"' in script


@pytest.mark.long  # processes of their own
def test_a_large_model_is_read_in_either_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert large_model.main(["--smoke", "--prompts", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["types"]["bfloat16"]["weights"] * 2 == found["types"]["float32"]["weights"]
    assert all(share >= 0.7 for share in found["share_of_first_10"].values())
    assert large_model.share_of_first([[(0, 1), (0, 2)]], [[(0, 2), (1, 1)]]) == 0.5
