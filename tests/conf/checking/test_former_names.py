"""Classes that 0.1.0 called otherwise are found by their names of now, and nothing else is touched."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests.conf.checking.composing import compose, parse
from twinlens.attribution.errors import UserError
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.former_names import (
    CLASSES,
    MODULES,
    OUTPUTS,
    current_name,
    current_output,
    with_current_names,
)

# every class that a configuration file of 0.1.0 named
BEFORE = [
    "attribution.bridge.InstanceNeurons",
    "attribution.bridge.NeuronInstances",
    "attribution.evaluation.accuracy.Accuracy",
    "attribution.evaluation.artifacts.Artifacts",
    "attribution.evaluation.concepts.Concepts",
    "attribution.evaluation.diversity.Diversity",
    "attribution.evaluation.duplicates.Duplicates",
    "attribution.evaluation.faithfulness.Faithfulness",
    "attribution.evaluation.head_importance.HeadImportance",
    "attribution.evaluation.importance_sums.ImportanceSums",
    "attribution.evaluation.interventions.Interventions",
    "attribution.evaluation.known_facts.KnownFacts",
    "attribution.evaluation.layer_importance.LayerImportance",
    "attribution.evaluation.neuron_layers.NeuronLayers",
    "attribution.evaluation.overlap.Overlap",
    "attribution.evaluation.prompt_view.PromptView",
    "attribution.evaluation.query_interventions.QueryInterventions",
    "attribution.evaluation.query_layers.QueryLayers",
    "attribution.evaluation.retraining.Retraining",
    "attribution.evaluation.segments.Segments",
    "attribution.evaluation.shared_neurons.SharedNeurons",
    "attribution.evaluation.uniqueness.Uniqueness",
    "attribution.evaluation.value_interventions.ValueInterventions",
    "attribution.instance.bm25.BM25",
    "attribution.instance.gradsim.GradientSimilarity",
    "attribution.instance.influence.Influence",
    "attribution.instance.random_instances.RandomInstances",
    "attribution.instance.similarity.HiddenSimilarity",
    "attribution.instance.tracin.TracIn",
    "attribution.neuron.ig.IntegratedGradients",
    "attribution.neuron.knowledge_scores.NeuronScore",
    "attribution.neuron.part_scores.HeadScore",
    "attribution.neuron.part_scores.LayerScore",
    "attribution.neuron.query_scores.QueryLayers",
    "attribution.neuron.query_scores.QueryNeurons",
    "attribution.neuron.random_neurons.RandomNeurons",
    "callbacks.sharded.ShardedStrategy",
    "callbacks.sweep.SweepTable",
    "callbacks.wandb_logger.make_wandb_logger",
    "data.averitec.AveritecDataModule",
    "data.cosqa.CosqaDataModule",
    "data.demo.DemoDataModule",
    "data.demo_challenge.DemoChallengeDataModule",
    "data.demo_choice.DemoChoiceDataModule",
    "data.fact_sentences.FactSentencesDataModule",
    "data.knowledge.KnowledgeDataModule",
    "data.mnli.MnliDataModule",
    "data.table.TableDataModule",
    "models.module.TextClassifier",
]


def targets_of_now(repository: Path) -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (repository / "conf").rglob("*.yaml")]
    return {target for text in texts for target in re.findall(r"_target_: (twinlens\.[\w.]+)", text)}


def test_every_class_of_before_is_one_of_now(repository: Path) -> None:
    assert {current_name(target) for target in BEFORE} <= targets_of_now(repository)
    assert all(current_name(target) is None for target in targets_of_now(repository))


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_before_is_one_of_now(repository: Path, module: str) -> None:
    assert (repository / f"{MODULES[module].replace('.', '/')}.py").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "models.my_model.Net", "data.file_readers.Mine", "data.files.Mine", "models.module", "models", "callbacks.", "",
        "data..demo.DemoDataModule", "data.\0.Demo", "torch.nn.Linear", "attribution.neuron.ig.Missing", None, 3,
    ],
)  # fmt: skip
def test_other_names_stay(name: object) -> None:
    assert current_name(name) is None


def test_a_name_is_replaced_wherever_it_stands() -> None:
    old = {"_target_": "models.module.TextClassifier"}
    config = OmegaConf.create(
        {
            "hydra": {"callbacks": {"sweep": {"_target_": "callbacks.sweep.SweepTable"}}},
            "model": {**old, "parts": [{"inner": old}, 3], "note": "models.module.TextClassifier"},
            "again": "${model}",
            "named": {"_target_": "${name}"},
            "name": "data.demo.DemoDataModule",
            "unset": "???",
            "nothing": None,
            "lost": {"_target_": "${no.such.key}"},
        }
    )
    OmegaConf.set_struct(config, True)
    OmegaConf.set_readonly(config, True)
    found, replaced = with_current_names(config)
    assert replaced == {
        "models.module.TextClassifier": "twinlens.models.module.TextClassifier",
        "data.demo.DemoDataModule": "twinlens.data.demo.DemoDataModule",
    }
    assert found.model._target_ == found.again._target_ == "twinlens.models.module.TextClassifier"
    assert found.model.parts[0].inner._target_ == "twinlens.models.module.TextClassifier"
    assert found.model.note == "models.module.TextClassifier"
    assert found.named._target_ == "twinlens.data.demo.DemoDataModule"
    assert found.hydra == config.hydra
    assert config.model._target_ == "models.module.TextClassifier"
    assert with_current_names(found)[0] is found


@pytest.mark.parametrize("options", [(), ("-m",)])
def test_an_override_may_name_a_class_of_before(repository: Path, options: tuple[str, ...]) -> None:
    named = "attribution.neuron.knowledge_scores.NeuronScore"
    values = f"method.log_prob._target_={named}" + (f",{current_name(named)}" if options else "")
    check_command_line([*options, "model=facts", "data=knowledge", "method=log_prob", values], repository / "conf",
                       compose, parse)  # fmt: skip
    with pytest.raises(UserError, match="NeuronScore takes no 'preset'"):  # checked as the class of now
        check_command_line(["method=ig", f"method.ig._target_={named}"], repository / "conf", compose, parse)


def test_hydra_builds_nothing_by_a_name_of_before(repository: Path) -> None:
    override = "hydra.callbacks.sweep_table._target_=callbacks.sweep.SweepTable"
    with pytest.raises(UserError, match=re.escape("expected twinlens.callbacks.sweep.sweep_table.SweepTable")):
        check_command_line([override], repository / "conf", compose, parse)


def test_files_of_before_are_called_otherwise_now() -> None:
    assert current_output("knowledge_table5_12") == "neuron_level_table5_12"
    assert current_output("knowledge_figure2") == "neuron_level_figure2"
    assert current_output("table1") == "table1"


def test_the_docs_have_the_same_tables(repository: Path) -> None:
    text = (repository / "docs" / "former_names.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", text, re.MULTILINE))
    expected = {before: f"twinlens.{now}" for before, now in {**MODULES, **CLASSES}.items()}
    expected |= {f"{before}N": f"{now}N" for before, now in OUTPUTS.items()}
    assert {before: now for before, now in rows.items() if before in expected} == expected


def test_a_configuration_of_before_is_one_line_apart(repository: Path) -> None:
    """Every class of the two kept runs is known, so that nothing of them is left to the user."""
    for config in (repository / "tests" / "callbacks" / "results" / "run_of_0_1_0").glob("*/config.yaml"):
        found, replaced = with_current_names(OmegaConf.create(yaml.safe_load(config.read_text())))
        assert replaced
        assert not re.search(r"_target_: (attribution|callbacks|data|models)\.", OmegaConf.to_yaml(found))
