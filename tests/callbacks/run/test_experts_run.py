"""Mixtures of experts from the fit to the report: lists, files and pages that name the expert, and their gradients."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import yaml

from tests.callbacks.report.report_page import island
from tests.running import SMALL_DEMO, CommandLine

SETTINGS = {
    "model_type": "qwen2_moe", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24, "max_position_embeddings": 2048, "initializer_range": 0.2,
}  # fmt: skip
MODEL = (
    "model.model_type=qwen2_moe",
    "model.architecture=null",
    f"model.architecture={{{', '.join(f'{name}: {value}' for name, value in SETTINGS.items())}}}",
    "model.max_epochs=1",
)
EVERY = (
    "method=[ig,logprob_increase,ablation,gradsim_cosine,influence_ekfac,na_instances,gradsim]",
    "method.ig.n_steps=2",
    "method.gradsim_cosine.params=all",
    "method.gradsim_cosine.projection=random",
    "method.gradsim_cosine.projection_dim=4",
    "method.influence_ekfac.params=all",
    "evaluation=[accuracy,faithfulness,overlap]",
    "evaluation.faithfulness.control_seeds=[0]",
    "neuron_texts=2",
    "data.limit.train=16",
    "data.limit.test=4",
)
FEW = ("method=[ig,gradsim]", "method.ig.n_steps=2", "evaluation=[accuracy]", "data.limit.train=8", "data.limit.test=2")


@pytest.mark.parametrize(
    "asked", [pytest.param(FEW, id="few"), pytest.param(EVERY, id="every", marks=pytest.mark.long)]
)
def test_from_the_fit_to_the_report(command: CommandLine, asked: tuple[str, ...]) -> None:
    run = command(*MODEL, *SMALL_DEMO, *asked, base=())
    assert run.code == 0, run.err
    names = [name for name in ("ig", "logprob_increase", "ablation") if name in asked[0]]
    for name in names:
        folder: Path = run.folder / "scores" / name
        said = yaml.safe_load((folder / "method.yaml").read_text())
        assert said["experts"] == {"routed": 4, "units": 16, "shared": 24}
        assert "router" in said["coefficient"]
        for row in datasets.load_from_disk(str(folder / "test")):
            assert set(row["expert"]) == {*sorted(set(row["expert"]) - {4}), 4}
            by_layer = {
                (layer, expert) for layer, expert in zip(row["layer"], row["expert"], strict=True) if expert < 4
            }
            assert len(by_layer) == 2 * 2, "two layers, two experts of the token"
            addresses = zip(row["unit"], row["expert"], row["expert_unit"], strict=True)
            assert all(unit == 16 * expert + own for unit, expert, own in addresses)
    names = island((run.folder / "report.html").read_text(encoding="utf-8"))["units"]["name"]
    assert any(" · expert " in name for name in names)
    assert any(" · shared expert · unit " in name for name in names)
    assert "params cover" in run.out or "all" not in "".join(asked)
    if asked is EVERY:
        planned = command(*MODEL, *SMALL_DEMO, *asked, "plan=true", base=())
        assert planned.code == 0, planned.err
        texts = datasets.load_from_disk(str(run.folder / "neurons" / "train"))
        assert {"expert", "expert_unit"} <= set(texts.column_names)
        methods = yaml.safe_load((run.folder / "scores" / "influence_ekfac" / "method.yaml").read_text())
        assert any("experts.down_proj.3" in name for name in str(methods).split("'"))
