"""`plan=true` says what a run would take without reading weights or writing anything, and knows what the store has."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaConfig

from tests.decoders import tiny_decoder
from tests.families import ALL_MODELS, tiny_backbone
from tests.running import SMALL_DEMO, CommandLine
from twinlens.attribution.engine_sizes import ONE, EngineSizes
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.callbacks.attribute.whole_gradient_costs import WholeWork
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.plan.device_rate import parts_told
from twinlens.callbacks.plan.fits import fit_memory, padded_operations
from twinlens.callbacks.plan.machines import SHARE, machine_of, machines
from twinlens.callbacks.plan.probe import TrainingRates, shortened
from twinlens.callbacks.plan.table import Line, bytes_in_words, format_plan, time_in_words
from twinlens.callbacks.plan.times import Times
from twinlens.models.anatomy import Anatomy
from twinlens.models.backbone import architecture_of, load_tokenizer

REPOSITORY = Path(__file__).resolve().parents[3]


def in_store(out: str) -> dict[str, str]:
    """The column "in store" by pass."""
    rows = [line for line in out.splitlines() if " KiB" in line or " MiB" in line or " B " in line]
    return {row.split("  ")[0]: ("yes" if " yes " in row else "no") for row in rows if not row.startswith("to do")}


def test_nothing_is_written_and_every_pass_has_a_line(command: CommandLine) -> None:
    finished = command("plan=true")
    assert finished.code == 0, finished.err
    assert list(command.folder.iterdir()) == []
    passes = in_store(finished.out)
    assert set(passes) == {
        "fit", "predict train", "predict test", "predict validation", "ig", "gradsim", "influence", "faithfulness",
        "random_instances/seed0", "random_instances/seed1", "random_instances/seed2",
        "check edited tokens",
    }  # fmt: skip
    assert set(passes.values()) == {"no"}
    assert "GFLOP/s" in finished.out
    assert "to do: 12 of 12 passes" in finished.out
    header = next(line for line in finished.out.splitlines() if line.startswith("pass"))
    column = header.index("where")
    rows = [line for line in finished.out.splitlines() if line.split("  ")[0] in passes]
    assert all(line[column:].startswith("cpu") for line in rows), "the columns are aligned"


def test_what_a_run_has_stored_is_known(command: CommandLine) -> None:
    assert command("method=[ig,gradsim]", "evaluation=faithfulness").code == 0
    before = sorted(command.folder.rglob("*"))
    finished = command("method=[ig,gradsim]", "evaluation=faithfulness", "plan=true")
    assert finished.code == 0, finished.err
    assert set(in_store(finished.out).values()) == {"yes"}
    assert "to do: 0 of" in finished.out
    assert sorted(command.folder.rglob("*")) == before
    other = in_store(command("method=[ig,gradsim]", "method.ig.n_steps=3", "plan=true").out)
    assert other["fit"] == other["predict test"] == other["gradsim"] == "yes"
    assert other["ig"] == other["faithfulness"] == other["check edited tokens"] == "no"


def test_a_configuration_without_weights_is_enough(command: CommandLine) -> None:
    folder = command.folder / "checkpoint"
    LlamaConfig(vocab_size=32000, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    load_tokenizer(str(REPOSITORY / "models" / "tiny")).save_pretrained(folder)
    finished = command("model=llama7b", f"model.path={folder}", "plan=true")
    assert finished.code == 0, finished.err
    assert "llama, 6607.4 M parameters, 32 layers of 4096 with 11008 neurons" in finished.out
    assert "weights not yet read" in finished.out
    assert not list(folder.glob("*.safetensors"))


def test_another_machine_is_planned_for_by_its_data_sheet(command: CommandLine) -> None:
    finished = command("plan=true", "plan_for=t4-16gb")  # whatever the case
    assert finished.code == 0, finished.err
    assert "estimated for one T4-16GB, never measured here: 40% of the 8.1 TFLOP/s" in finished.out
    assert "memory: every pass fits" in finished.out
    header = next(line for line in finished.out.splitlines() if line.startswith("pass"))
    column = header.index("where")
    where = {line.split("  ")[0]: line[column:].split()[0] for line in finished.out.splitlines() if " no " in line}
    assert (where["fit"], where["ig"], where["influence"]) == ("cuda", "cuda", "cpu")
    assert list(command.folder.iterdir()) == []


def test_machines_have_a_source_and_what_does_not_fit_is_named() -> None:
    listed = machines()
    assert all(machine.source and 0 < machine.float32 < machine.half for machine in listed.values())
    card = machine_of("a100-40GB")
    assert card.rate(torch.float32) == pytest.approx(SHARE * 19.5e12)
    lines = [Line(name, 1, "no", 1.0, 0, 0, peak, where) for name, peak, where in
             (("fit", 60 * 10**9, "cuda"), ("ig", 30 * 10**9, "cuda"), ("influence", 60 * 10**9, "cpu"))]  # fmt: skip
    assert card.fitting(lines).startswith("memory: too much for fit:")
    with pytest.raises(UserError, match="expected one of A100-40GB"):
        machine_of("A100")


def test_a_fit_pads_its_batches_and_holds_a_step_beside_its_weights() -> None:
    lm = architecture_of(None, {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 3}, "linear", ["a", "b"],
                         50000, "sdpa", False)  # fmt: skip
    shape = shape_of(lm)
    assert padded_operations(shape, [4, 8, 2], 2) == 2 * shape.forward_operations(8) + shape.forward_operations(2)
    session: Any = SimpleNamespace(data=SimpleNamespace(batch_size=2), sequences=ONE)
    kept = 3 * 4 * shape.trained_parameters
    assert fit_memory(shape, session, [1, 1], "cpu") == kept + 2 * 4 * 50000 * 64  # of the embedding
    assert fit_memory(shape, session, [1, 1], "cuda") == kept + 4 * shape.trained_parameters
    long = fit_memory(shape, session, [1000, 1000], "cpu")
    assert long == kept + 2 * shape.footprint.sequence(1000) > kept + 2 * 4 * 50000 * 64


def test_a_plan_that_no_solver_serves_is_refused(command: CommandLine) -> None:
    finished = command("plan=true", "memory_budget=1KiB")
    assert finished.code == 2
    assert "does not fit the memory budget" in finished.err


def test_operations_are_those_of_the_forward() -> None:
    """Counted on a real forward by torch's own counter, which knows matrix products and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    config = AutoConfig.for_model("gpt_neox", hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
                                  intermediate_size=256, vocab_size=100, num_labels=3)  # fmt: skip
    lm = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    lm.config.pad_token_id = 0
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        lm.base_model(torch.ones(1, 20, dtype=torch.int64))
    assert shape_of(lm).forward_operations(20) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_shapes_come_without_values() -> None:
    settings = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 128}  # fmt: skip
    lm = architecture_of(None, settings, "mlp", ["a", "b"], 50, "sdpa", False)
    assert {parameter.device.type for parameter in lm.parameters()} == {"meta"}
    shape = shape_of(lm)
    assert shape.matmul_parameters == 2 * (4 * 32 * 32 + 2 * 32 * 128)
    assert (shape.footprint.n_layers, shape.footprint.n_neurons, shape.footprint.hidden_size) == (2, 128, 32)


def test_a_smaller_budget_never_needs_more() -> None:
    lm = architecture_of(None, {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 3}, "linear", ["a", "b"],
                         50, "sdpa", False)  # fmt: skip
    need = IntegratedGradients().need(EngineSizes(shape_of(lm).footprint))
    peaks = [need.peak(16, 100, budget) for budget in (2**18, 2**20, 2**22, 2**24, 2**26, 2**30)]
    assert peaks == sorted(peaks)
    assert all(
        peak <= max(budget, need.least(100))
        for peak, budget in zip(peaks, (2**18, 2**20, 2**22, 2**24, 2**26, 2**30), strict=True)
    )


def test_table_totals_count_what_is_missing() -> None:
    lines = [
        Line("fit", 10, "yes", 1e6, 2**30, 2**40, 2**40, "cpu"),
        Line("ig", 10, "no", 90.0, 2**20, 2**21, 2**22, "cuda"),
        Line("own", 10, "no", None, 0, 0, 0, "cuda", "remark"),
    ]
    text = format_plan(lines)
    assert text.splitlines()[-1] == "to do: 2 of 3 passes, about 90 s, 1.0 MiB of disk, at most 4.0 MiB of memory"
    assert "unknown" in text
    assert [time_in_words(t) for t in (0.2, 42.4, 600, 86400)] == ["<1 s", "42 s", "10 min", "24.0 h"]
    assert [bytes_in_words(n) for n in (12, 2048, 150 * 2**20, 3 * 2**40)] == ["12 B", "2.0 KiB", "150 MiB", "3.0 TiB"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to measure peak memory")
@pytest.mark.long
@pytest.mark.parametrize(("name", "budget"), [("ig", 128), ("faithfulness", 128), ("influence", 512)])
def test_peak_memory_is_within_a_quarter_of_the_plan(name: str, budget: int) -> None:
    """In a process of its own, on a decoder of 4 layers × 512 with 32 examples of 128 tokens."""
    command = [sys.executable, "-m", "benchmarks.memory", "--single", "--passes", name, "--budgets", str(budget)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.75 <= found["measured"] / found["planned"] <= 1.25, found


@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_shortened_model_has_the_same_blocks(name: str) -> None:
    backbone = tiny_backbone(name)
    settings = shortened(backbone.config, 2)
    settings["vocab_size"] = 50
    short = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    blocks, all_blocks = (list(Anatomy(lm).blocks) for lm in (short.base_model, backbone))
    assert len(blocks) == 2 < len(all_blocks)
    for block, same in zip(blocks, all_blocks, strict=False):
        sizes = [{key: value.shape for key, value in one.state_dict().items()} for one in (block, same)]
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_what_is_found_is_planned_from_shapes_alone(name: str) -> None:
    lm = tiny_decoder(name)
    planned, real = (shape_of(model).residual for model in (copy.deepcopy(lm).to("meta"), lm))
    assert planned is not None
    assert real is not None
    assert planned.bytes_per_example(9) == real.bytes_per_example(9)
    assert planned.norms_behind == real.norms_behind == (name == "gemma2")
    told = "parts: 3 blocks in layers: {}self_attn.o_proj of 4 heads on 2, and behind it {}mlp.down_proj of "
    behind = ("post_attention_layernorm of ", "post_feedforward_layernorm of ") if name == "gemma2" else ("", "")
    assert parts_told(copy.deepcopy(lm.base_model).to("meta")).startswith(told.format(*behind))


def test_each_kind_of_work_is_measured_once_and_none_that_is_not_asked_for() -> None:
    class Counting:
        calls: ClassVar[list[str]] = []

        def forward(self) -> float:
            self.calls.append("forward")
            return 10.0

        def training(self) -> TrainingRates:
            self.calls.append("training")
            return TrainingRates(operations=5.0, step=0.5, embedding=2.0)

        def whole(self, method: object, n_classes: int) -> WholeWork:
            self.calls.append("whole")
            return WholeWork(2.0, 0.0, 4.0, 0.0, 0.0)

    times = Times(100.0, 1000.0, Counting())  # type: ignore[arg-type]
    assert (times.forward(20.0), times.forward(40.0)) == (2.0, 4.0)
    assert times.fit(50.0, 3, 4, 1) == 10.0 + 6.0 + 6.0
    assert Times(100.0, 1000.0, None, lambda size: size / 8).written(8.0, 2) == 2.0
    assert times.whole("influence", None, 2, WholeWork(2.0, 0.0, 8.0, 300.0, 5000.0)) == 1.0 + 2.0 + 3.0 + 5.0
    assert Counting.calls == ["forward", "training", "whole"]
    unmeasured = Times(100.0, 1000.0, None)
    assert unmeasured.forward(200.0) == unmeasured.fit(200.0, 9, 9, 9) == unmeasured.rows("a", None, 1, 200.0) == 2.0
    assert unmeasured.whole("influence", None, 2, WholeWork(100.0, 0.0, 0.0, 0.0, 100.0)) == 2.0


@pytest.mark.parametrize(
    "arguments",
    [
        ("data=demo", "method=[ig,gradsim,influence]", "method.gradsim.params=all", "method.gradsim.projection=pca",
         "method.influence.params=all", "method.influence.curvature=ekfac"),
        pytest.param(
            ("data=demo_choice", "method=[ig,gradsim,influence]", "method.gradsim.params=all",
             "method.influence.params=all", "method.influence.projection=random", "method.influence.curvature=ggn"),
            marks=pytest.mark.long,
        ),
        ("experiment=neuron_level/training_sentences", "method=[logprob_increase,gradsim]", "evaluation=[]"),
    ],
)  # fmt: skip
def test_every_kind_of_pass_is_timed_for_every_readout(command: CommandLine, arguments: tuple[str, ...]) -> None:
    small = SMALL_DEMO[1:5] if arguments[0].startswith("data=demo") else ()
    finished = command(*arguments, *small, "plan=true", "trainer.accelerator=cpu", base=())
    assert finished.code == 0, finished.err
    assert "every kind of pass timed just now" in finished.out
    assert "unknown" not in finished.out
    assert not list(command.folder.iterdir())


def test_gpt_neo_is_shortened_with_its_list_of_attentions() -> None:
    config = AutoConfig.for_model("gpt_neo", hidden_size=32, num_layers=4, num_heads=4,
                                  attention_types=[[["global", "local"], 2]])  # fmt: skip
    settings = shortened(config, 3)
    assert AutoConfig.for_model(settings.pop("model_type"), **settings).attention_layers == [
        "global",
        "local",
        "global",
    ]
