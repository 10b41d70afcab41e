"""The whole path from the command line: files of a run, reuse, replay, own classifiers, sweeps, loggers."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from tests.running import SMALL_DEMO, SMALLER_MODEL, CommandLine
from twinlens.data.invented_facts import main as plant

COLUMNS = (
    "model,data,seed,split,method,evaluation,metric,k,group,reference_group,variant,explain,value,stderr,n,control,"
    "setting,low,high"
)
NEURON_COLUMNS = [
    "index", "target", "target_prob", "role", "unit_kind", "site", "layer", "unit", "position", "score", "completeness",
]  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").open()))


def test_a_run_leaves_what_the_contract_names(command: CommandLine) -> None:
    finished = command()
    assert finished.code == 0, finished.err
    run = finished.folder
    assert run.name.endswith("_tiny_demo_s0")
    assert run.parent == command.folder / "outputs" / "runs"
    assert str(command.folder) not in (run / "config.yaml").read_text()
    assert yaml.safe_load((run / "overrides.yaml").read_text()) == list(SMALL_DEMO)
    metrics = json.loads((run / "metrics.json").read_text())
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert "accuracy/accuracy" in metrics
    assert (run / "results.csv").read_text().splitlines()[0] == COLUMNS
    assert {row["evaluation"] for row in rows_of(run)} == {"accuracy", "faithfulness", "uniqueness", "duplicates"}
    assert (run / "report.html").stat().st_size > 10_000
    assert list((run / "figures").glob("*.png"))
    assert sorted(path.name for path in (run / "examples").iterdir()) == ["test", "train", "validation"]
    test = datasets.load_from_disk(str(run / "examples" / "test"))
    assert {
        "index",
        "source_index",
        "claim",
        "evidence",
        "readout",
        "label",
        "prediction",
        "prob",
        "input_ids",
        "twin",
    } <= {*test.column_names}
    assert test["index"][:] == list(range(12))
    neurons = datasets.load_from_disk(str(run / "scores" / "ig" / "test"))
    assert neurons.column_names == NEURON_COLUMNS
    assert len(neurons) == 12
    assert len(neurons[0]["layer"]) == 100
    assert neurons[0]["score"] == sorted(neurons[0]["score"], reverse=True)
    assert len(neurons[0]["completeness"]) == 4
    assert neurons["target"][:] == test["prediction"][:]
    instances = datasets.load_from_disk(str(run / "scores" / "gradsim" / "test"))
    assert instances.column_names == ["index", "target", "top_index", "top_score", "bottom_index", "bottom_score"]
    assert len(instances[0]["top_index"]) == 48
    summary = datasets.load_from_disk(str(run / "scores" / "gradsim" / "train_summary"))
    assert summary.column_names == ["index", "mean", "max", "votes", "self_influence"]
    assert sum(summary["votes"][:]) == 12 * 10
    for seed in (0, 1, 2):
        assert (run / "scores" / "random_instances" / f"seed{seed}" / "test").is_dir()
    settings = yaml.safe_load((run / "scores" / "influence" / "method.yaml").read_text())
    assert settings["name"] == "influence"
    assert {"sign", "unit", "solver"} <= {*settings}


def test_the_saved_model_gives_the_stored_predictions(trained: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained / "model").eval()
    test = datasets.load_from_disk(str(trained / "examples" / "test"))
    for row in range(3):
        ids = torch.tensor([test[row]["input_ids"]])
        with torch.no_grad():
            prob = model(input_ids=ids).logits.softmax(-1)[0]
        assert torch.allclose(prob, torch.tensor(test[row]["prob"]), atol=1e-5)


def test_a_second_method_reads_the_fit_and_overwrite_redoes_it(command: CommandLine) -> None:
    first = command("method=ig", "evaluation=accuracy")
    assert "fit: computed" in first.out
    second = command("method=gradsim", "evaluation=accuracy")
    assert "fit: read from the store" in second.out
    assert "gradsim: computed" in second.out
    again = command("method=[ig,gradsim]", "evaluation=accuracy")
    assert "ig: read from the store" in again.out
    assert "gradsim: read from the store" in again.out
    assert (first.folder / "model").resolve() == (again.folder / "model").resolve()
    other_seed = command("method=ig", "evaluation=accuracy", "seed=1")
    assert "fit: computed" in other_seed.out
    redone = command("method=ig", "evaluation=accuracy", "overwrite=true")
    assert "fit: computed" in redone.out
    assert "ig: computed" in redone.out


def test_a_run_replays_itself(command: CommandLine) -> None:
    first = command("method=[ig,gradsim]")
    again = command("--config-dir", str(first.folder), "--config-name", "config", base=())
    assert again.code == 0, again.err
    assert again.folder != first.folder
    assert (again.folder / "results.csv").read_text() == (first.folder / "results.csv").read_text()
    assert "fit: read from the store" in again.out
    assert yaml.safe_load((again.folder / "config.yaml").read_text()) == yaml.safe_load(
        (first.folder / "config.yaml").read_text()
    )


def test_ones_own_classifier_on_ones_own_table(command: CommandLine, trained: Path) -> None:
    train_rows = datasets.load_from_disk(str(trained / "examples" / "train"))
    names = json.loads((trained / "model" / "config.json").read_text())["id2label"]
    table = command.folder / "pairs.csv"
    with table.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["premise", "hypothesis", "verdict"])
        for row in train_rows:
            writer.writerow([row["evidence"], row["claim"], names[str(row["label"])]])
    arguments = (
        "fit=false",
        "model=local",
        f"model.path={trained / 'model'}",
        "data=table",
        f"data.path={table}",
        "data.text=[premise,hypothesis]",
        "method=[ig,gradsim,influence]",
    )
    finished = command(*arguments, "data.label=verdict", base=["trainer.accelerator=cpu"])
    assert finished.code == 0, finished.err
    assert {row["method"] for row in rows_of(finished.folder)} >= {"ig", "gradsim", "influence", "random_neurons"}
    assert "duplicates: skipped: needs" in finished.out
    unlabelled = command(*arguments[:-1], "method=ig", "data.label=null", base=["trainer.accelerator=cpu"])
    assert unlabelled.code == 0, unlabelled.err
    explained = datasets.load_from_disk(str(unlabelled.folder / "examples" / "test"))
    assert set(explained["label"][:]) == {-1}
    assert len(explained) == 48


def test_mlp_head_and_mixed_precision(command: CommandLine) -> None:
    finished = command("model.head=mlp", "trainer.precision=bf16-mixed", "method=[ig,gradsim,influence]")
    assert finished.code == 0, finished.err
    settings = yaml.safe_load((finished.folder / "scores" / "influence" / "method.yaml").read_text())
    assert settings["solver"] in ("dual", "direct")


def test_a_sweep_keeps_going_and_tells_of_every_job(command: CommandLine) -> None:
    finished = command("-m", "method=ig,gradsim", "seed=0,1", "evaluation=[accuracy,uniqueness]")
    assert finished.code == 0, finished.err
    assert finished.out.count("fit: computed") == 2
    assert finished.out.count("fit: read from the store, made ") == 2
    assert finished.out.count("4 rows are as an earlier job of this sweep printed them; results.csv has all") == 2
    assert finished.out.count("  test                accuracy") == 2 + 1  # of each seed once, and their mean
    ended = [line for line in finished.out.splitlines() if ": done, accuracy/accuracy=" in line]
    assert [line.partition(":")[0] for line in ended] == ["job 0", "job 1", "job 2", "job 3"]
    assert not {"\r", "\x1b"} & set(finished.out + finished.err), "there is no terminal"
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert [row["status"] for row in rows] == ["done"] * 4
    assert all("accuracy" in row["headline"] for row in rows)
    assert (sweep / "3" / "report.html").is_file()


def test_a_failed_job_loses_no_other(command: CommandLine) -> None:
    too_many = "evaluation.faithfulness.comprehensiveness=[101],[100]"
    finished = command("-m", "evaluation=faithfulness", "method=ig", too_many)
    assert finished.code == 2
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert [row["status"] for row in rows] == ["refused", "done"]
    assert "top_k=100" in rows[0]["message"]


FAST = ("debug=fdr", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Fast development runs over one store, so that experiments share what they have in common, as a user's do."""
    base = tmp_path_factory.getbasetemp()
    ours = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one for all workers
    return (*FAST, f"paths.store={ours / 'experiments' / 'store'}")


GRADIENTS = ("gradsim", "gradsim_cosine", "influence", "influence_ekfac", "tracin")
"""Methods of experiment=texts/facts that store gradients."""
ONE_SHARE = ("evaluation.retraining.fractions=[50]", "evaluation.retraining.seeds=[0]")
"""Seven fits instead of up to 28, or of three seeds."""
SHORT_SERIES = tuple(
    f"evaluation.diversity_series.{option}" for option in ("subsets_asked=7", "fraction=50", "steps=20")
)
UNIFIED = (*(f"table{n}" for n in range(1, 6)), *(f"figure{n}" for n in range(2, 7)))
"""Experiments that write one table or figure; `unified/all` writes all of them."""
NEURON_LEVEL = (*(f"table{n}" for n in range(2, 15)), *(f"figure{n}" for n in range(2, 7)))
FACTS = ("model=facts", "data=knowledge", "fit=false")
"""The shipped language model, asked for what it knows."""
OF_NEURONS = ("neurons", "attention_neurons")
"""Experiments that hold neuron methods against exact ablation."""
OTHERS_OF_NEURON_LEVEL = ("all", "prompt", "pretrain", "training_sentences")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) for name in ("diversity_series", *UNIFIED)]
)
def test_every_table_and_figure_of_the_paper_has_an_experiment_that_writes_it(
    command: CommandLine, fast: tuple[str, ...], name: str
) -> None:
    shares = ONE_SHARE if name in ("table3", "figure2", "figure6") else ()
    shares += SHORT_SERIES if name == "diversity_series" else ()
    finished = command(f"experiment=unified/{name}", *shares, *SMALLER_MODEL, base=fast)
    assert finished.code == 0, finished.err
    kind = "figures" if name.startswith("figure") else "tables"
    assert [path for path in (finished.folder / kind).iterdir() if path.stem == name]


@pytest.mark.long
def test_one_command_writes_every_table_and_figure_of_the_paper(command: CommandLine, fast: tuple[str, ...]) -> None:
    finished = command("experiment=unified/all", *ONE_SHARE, *SMALLER_MODEL, base=fast)
    assert finished.code == 0, finished.err
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    assert [row["status"] for row in csv.DictReader((sweep / "sweep.csv").open())] == ["done"] * 3
    assert {f"table{n}.csv" for n in range(1, 6)} <= {path.name for path in (sweep / "tables").iterdir()}
    assert {f"figure{n}.png" for n in range(2, 7)} <= {path.name for path in (sweep / "figures").iterdir()}
    challenge = datasets.load_from_disk(str(sweep / "2" / "examples" / "test"))
    assert challenge.features["label"].names == ["supported", "not supported"]
    assert challenge["folded_prediction"][:] == [min(prediction, 1) for prediction in challenge["prediction"]]


@pytest.mark.long
def test_every_method_is_held_against_every_ground_truth_in_one_table(
    command: CommandLine,
) -> None:
    few = (
        "evaluation.lds.subsets=5", "evaluation.removal.tests=1", "evaluation.removal.removed=[2]",
        "evaluation.tail_patch.tests=2", "evaluation.tail_patch.first=[2]",
    )  # fmt: skip
    finished = command(
        "experiment=benchmark", *few, "evaluation.removal.together=false", "evaluation.lds.seeds=[0]", *SMALLER_MODEL
    )
    assert finished.code == 0, finished.err
    tables = finished.folder / "tables"
    (header, *lines) = list(csv.reader((tables / "ground_truth.csv").open()))
    assert {"LDS", "leave-one-out (Pearson)", "removal @2, each", "tail patch @2", "time (s)"} <= set(header)
    assert {"influence_ekfac [params=all]", "bm25", "random_instances"} <= {line[0] for line in lines}
    neurons = {row["method"] for row in csv.DictReader((tables / "neuron_truth.csv").open())}
    assert {"ig", "grad_x_act", "logprob_increase", "random_neurons"} <= neurons
    full = command("experiment=benchmark/full", "plan=true", *SMALLER_MODEL)
    assert full.code == 0, full.err
    assert "300 fits" in full.out  # a hundred halves under three seeds


@pytest.mark.long
@pytest.mark.parametrize("model", [SMALLER_MODEL, FACTS], ids=["tiny", "facts"])
@pytest.mark.parametrize("name", OF_NEURONS)
def test_neuron_methods_are_held_against_ablation_of_either_site(
    command: CommandLine, name: str, model: tuple[str, ...]
) -> None:
    base = SMALL_DEMO if model == SMALLER_MODEL else (*FAST, "data.limit.test=4")
    finished = command(f"experiment=benchmark/{name}", *model, base=base)
    assert finished.code == 0, finished.err
    rows = list(csv.DictReader((finished.folder / "tables" / "neuron_truth.csv").open()))
    assert {"ig", "ig_joint", "atp", "relp", "random_neurons"} <= {row["method"].split(" ")[0] for row in rows}


@pytest.mark.long
def test_both_readings_of_the_paper_stand_side_by_side(command: CommandLine, fast: tuple[str, ...]) -> None:
    finished = command("experiment=unified/both_readings", base=fast)
    assert finished.code == 0, finished.err
    (sweep,) = (command.folder / "outputs" / "sweeps").iterdir()
    rows = list(csv.DictReader((sweep / "summary.csv").open()))
    counted = {(row["method"], row["explain"]) for row in rows if row["metric"] == "unique_instances"}
    assert {("influence", "gold"), ("influence", ""), ("random_instances", "")} <= counted


@pytest.mark.parametrize(
    "name",
    ["prompt", "pretrain"]
    + [pytest.param(name, marks=pytest.mark.long) for name in ("all", "training_sentences", *NEURON_LEVEL)],
)
def test_every_experiment_of_the_second_paper_runs_offline(
    command: CommandLine, fast: tuple[str, ...], name: str
) -> None:
    finished = command(f"experiment=neuron_level/{name}", base=fast)
    assert finished.code == 0, finished.err


@pytest.mark.parametrize("experiment", ["averitec_tiny", pytest.param("averitec", marks=pytest.mark.long)])
def test_every_experiment_runs_its_fast_development_run(
    command: CommandLine,
    experiment: str,
    shared_data: Path,
) -> None:
    finished = command(
        f"experiment={experiment}",
        "model=tiny",
        f"data.path={shared_data / 'averitec'}",
        "trainer.accelerator=cpu",
        base=["debug=fdr"],
    )
    assert finished.code == 0, finished.err


def test_invented_facts_run_their_fast_development_run(command: CommandLine) -> None:
    stories = [{"text": f"Tom had {n} cats. They ran home. All was well."} for n in range(12)]
    (command.folder / "stories.json").write_text(json.dumps(stories))
    plant(["--stories", str(command.folder / "stories.json"), "--output", str(command.folder / "facts"),
           "--facts", "2", "--copies", "2", "--documents", "12"])  # fmt: skip
    finished = command(
        "experiment=texts/facts", "model.path=models/facts", "data.train=facts/docs.jsonl",
        "data.queries=facts/queries.jsonl", "evaluation.evidence.first=2", "evaluation.evidence.several=1",
        "evaluation.tail_patch.first=[2]", *(f"method.{name}.projection_dim=4" for name in GRADIENTS),
        "data.limit.train=12", "data.limit.test=4", base=FAST,
    )  # fmt: skip
    assert finished.code == 0, finished.err
    rows = list(csv.DictReader((finished.folder / "results.csv").open()))
    assert {"verbatim", "reworded", ""} <= {row["group"] for row in rows if row["metric"] == "evidence_mrr"}
    assert {*GRADIENTS, "bm25", "similarity"} <= {row["method"] for row in rows if row["metric"] == "tail_patch"}


def test_every_experiment_is_tried(repository: Path) -> None:
    found = {
        path.relative_to(repository / "conf" / "experiment").as_posix()
        for path in (repository / "conf" / "experiment").rglob("*.yaml")
    }
    unified = (*UNIFIED, "all", "both_readings", "diversity_series")
    papers = {f"unified/{name}.yaml" for name in unified} | {
        f"neuron_level/{name}.yaml" for name in (*NEURON_LEVEL, *OTHERS_OF_NEURON_LEVEL)
    }
    # digits in test_digits.py
    benchmarks = {"benchmark.yaml", *(f"benchmark/{name}.yaml" for name in ("full", "digits", *OF_NEURONS))}
    assert found == {"averitec.yaml", "averitec_tiny.yaml", "texts/facts.yaml", *benchmarks, *papers}
