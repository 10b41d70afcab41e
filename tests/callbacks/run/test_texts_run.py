"""One command from texts to lists of both lenses: as the model is, generated, fine-tuned; and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.adapters import needs_peft
from tests.running import CommandLine, Finished
from tests.small_texts import documents

DOCUMENTS = documents(12)
QUERIES = [
    {"prompt": "The capital of France is", "completion": " Paris.", "foil": " Rome."},
    {"prompt": "In most years the month after May is", "completion": " June.", "foil": " July."},
]
METHODS = "method=[gradsim_cosine,influence_ekfac,similarity,bm25,ig,logprob_increase]"
BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", "data.max_length=48", "trainer.accelerator=cpu",
        "logger=none")  # fmt: skip
SMALL = ("evaluation=[accuracy,faithfulness,interventions,layer_importance]", "method.ig.n_steps=3",
         "evaluation.faithfulness.control_seeds=[0]", "evaluation.interventions.control_seeds=[0]")  # fmt: skip
ASKED = ("data.queries=questions.jsonl", "fit=false")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, rows in (("docs", DOCUMENTS), ("questions", QUERIES)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def table(run: Finished, *place: str) -> datasets.Dataset:
    assert run.code == 0, run.err
    return datasets.load_from_disk(str(run.folder.joinpath(*place)))


def test_both_lenses_explain_completions(command: CommandLine) -> None:
    per_module = ("method.gradsim_cosine.per=module", "method.gradsim_cosine.projection_dim=4")
    run = command(*ASKED, METHODS, "explain_against=foil", *SMALL, *per_module, base=BASE)
    assert run.code == 0, run.err
    for line in (
        "layers: a language model learns below its readout, so that params=head is read so: method.gradsim_cosine",
        "explain (instance lens): completion against foil",
        "explain (neuron lens): completion against foil",
        "accuracy: skipped: needs data with classes or choices",
        "layer_importance: skipped: needs one next token, and completions are explained",
    ):
        assert line in run.out
    documents = table(run, "examples", "train")
    assert (documents["windows"][0] > 1, len(documents)) == (True, len(DOCUMENTS))
    asked = table(run, "examples", "test")
    assert [np.exp(row["target_log_prob"]) for row in asked] == pytest.approx(asked["target_prob"][:], rel=1e-4)
    for name in ("gradsim_cosine", "influence_ekfac"):
        lists = table(run, "scores", name, "test")
        assert [sorted(row["top_index"]) for row in lists] == [list(range(len(DOCUMENTS)))] * 2  # each document once
        assert lists["target"][:] == [row["answer_ids"][0] for row in asked]
        assert lists["target_against"][:] == [row["foil_ids"][0] for row in asked]
    shared = table(run, "scores", "gradsim_cosine", "test")
    names = yaml.safe_load((run.folder / "scores" / "gradsim_cosine" / "method.yaml").read_text())["modules"]
    for row in shared:
        for end in ("top", "bottom"):
            parts = np.array(row[f"{end}_module"])
            assert parts.shape == (len(DOCUMENTS), len(names))
            np.testing.assert_allclose(parts.sum(1), row[f"{end}_score"], atol=1e-5)
    (first, *_), last = table(run, "scores", "similarity", "test"), documents[1]
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model").eval()

    def state(ids: list[int], counts: list[bool]) -> torch.Tensor:
        with torch.no_grad():
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, :-1]
        return hidden[torch.tensor(counts[1:])].mean(0)

    ids, answer = asked["input_ids"][0], asked["answer_ids"][0]
    query = state(ids + answer, [False] * len(ids) + [True] * len(answer))
    alike = torch.cosine_similarity(query, state(last["input_ids"], last["counts"]), dim=0)
    assert dict(zip(first["top_index"], first["top_score"], strict=True))[1] == pytest.approx(float(alike), abs=1e-5)
    for name in ("ig", "logprob_increase"):
        for row, own in zip(table(run, "scores", name, "test"), asked, strict=True):
            shares = np.array(row["token"])
            assert shares.shape == (100, len(own["answer_ids"]) + len(own["foil_ids"]))
            np.testing.assert_allclose(shares.sum(1), row["score"], rtol=1e-4, atol=1e-5)
            assert row["target_prob"] == pytest.approx(own["target_prob"], rel=1e-3)
        said = yaml.safe_load((run.folder / "scores" / name / "method.yaml").read_text())
        assert (said["target"], said["target_against"], said["unit"][:5]) == ("completion", "foil", "nats:")


def test_what_the_model_goes_on_with_is_kept_and_explained(command: CommandLine) -> None:
    asked = ("data.prompt='The capital of France is'", "data.generate=3", "fit=false", "method=[gradsim,ig]",
             "method.gradsim.projection_dim=4", "evaluation=[]", "data.show=1")  # fmt: skip
    run = command(*asked, base=BASE)
    said = "generated: completions of 1 of 1 test queries, at most 3 tokens each; the first is ' called Paris"
    assert said in run.out, run.out
    (row,) = table(run, "examples", "test")
    assert row["completion"].startswith(" called Paris")
    assert row["label"] == row["answer_ids"][0] == row["prediction"]
    planned = command(*asked, "plan=true", base=BASE)
    (line,) = [line for line in planned.out.splitlines() if line.startswith("generate on test")]
    assert " yes " in line, planned.out + planned.err
    again = command(*asked, base=BASE)
    assert "generate on test" not in again.out
    assert table(again, "scores", "ig", "test")["score"][:] == table(run, "scores", "ig", "test")["score"][:]


TABLE2 = ("experiment=neuron_level/table2", *ASKED, "evaluation.interventions.control_seeds=[0]")


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param("method=[logprob_increase,inverse_rank,coefficient]", id="three"),
        pytest.param("method.ig.n_steps=3", id="all", marks=pytest.mark.long),
    ],
)
def test_table_2_of_the_second_paper_asks_about_completions(command: CommandLine, methods: str) -> None:
    run = command(*TABLE2, methods, base=BASE)
    assert run.code == 0, run.err
    assert "explain (neuron lens): completion" in run.out
    rows = list(csv.DictReader((run.folder / "results.csv").open()))
    assert {row["metric"] for row in rows} == {"mrr", "prob", "logp"}
    assert {"original", "inverse_rank", "coefficient", "random_neurons"} <= {row["method"] for row in rows}
    said = yaml.safe_load((run.folder / "scores" / "inverse_rank" / "method.yaml").read_text())
    assert said["unit"].endswith("summed over the completion's tokens")
    for row in table(run, "scores", "inverse_rank", "test"):
        np.testing.assert_allclose(np.nansum(np.array(row["token"]), 1), row["score"], rtol=1e-4)
    original = next(row for row in rows if (row["method"], row["metric"], row["group"]) == ("original", "logp", ""))
    asked = table(run, "examples", "test")
    assert float(original["value"]) == pytest.approx(np.mean(asked["target_log_prob"][:]), abs=1e-3)


@needs_peft
def test_a_fine_tune_on_chats_is_chosen_by_perplexity_and_explained_in_what_it_trained(
    command: CommandLine, tmp_path: Path, repository: Path
) -> None:
    folder = shutil.copytree(repository / "models" / "facts", tmp_path / "chatty")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    chat = {"messages": [{"role": "user", "content": "Grass is"}, {"role": "assistant", "content": "green."}]}
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, [*DOCUMENTS[1:], chat])))
    run = command(
        "model=local", "model.path=chatty", "data.show=9", "model.batch_size=2",
        "data.queries=questions.jsonl", "fit=true", "model.adapter=lora", "data.validation_fraction=0.34",
        "trainer.max_epochs=2", "method=influence_ekfac", "evaluation=[]", base=BASE[1:],
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "validation/perplexity" in run.out
    (shown,) = [line for line in run.out.splitlines() if "user: Grass is" in line.replace("[", "").replace("]", "")]
    assert "[user" not in shown
    assert shown.split(" tokens count: ")[1].count("[") > 1
    fitted = json.loads(((run.folder / "model").resolve().parent / "fit.json").read_text())
    assert fitted["best_validation_perplexity"] > 1
    said = yaml.safe_load((run.folder / "scores" / "influence_ekfac" / "method.yaml").read_text())
    assert (said["params"], said["fisher"]) == ("*lora*", "empirical")
    assert (run.folder / "model" / "adapter_model.safetensors").is_file()


def test_a_fit_on_documents_stops_when_their_perplexity_rises(command: CommandLine) -> None:
    run = command(
        "fit=true", "data.queries=questions.jsonl", "data.validation_fraction=0.34", "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1", "trainer.max_epochs=9", "model.learning_rate=0.05", "model.batch_size=1",
        "method=bm25", "evaluation=[]", base=BASE,
    )  # fmt: skip
    assert run.code == 0, run.err
    fitted = json.loads(((run.folder / "model").resolve().parent / "fit.json").read_text())
    assert fitted["epochs"] < 9
    assert fitted["best_validation_perplexity"] > 1


@pytest.mark.long
def test_tracin_sums_over_the_kept_epochs(command: CommandLine) -> None:
    """One layer, nothing projected: Σ η ⟨∇φ, ∇L⟩ of plain autograd under the weights of every epoch."""
    layer = "model.layers.2.self_attn.q_proj"
    run = command(
        "data.queries=questions.jsonl", "fit=true", "trainer.max_epochs=2", "method=tracin", "evaluation=[]",
        f"method.tracin.params={layer}", "method.tracin.projection=random", "method.tracin.projection_dim=128",
        base=BASE,
    )  # fmt: skip
    lists = table(run, "scores", "tracin", "test")
    said = yaml.safe_load((run.folder / "scores" / "tracin" / "method.yaml").read_text())
    documents, asked = table(run, "examples", "train"), table(run, "examples", "test")
    expected = np.zeros(3)
    for number, rate in enumerate(said["learning_rates"], start=1):
        folder = (run.folder / "model").resolve().parent / "epochs" / str(number)
        model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
        weight = model.get_submodule(layer).weight.requires_grad_(True)

        def gradient(ids: list[int], counts: list[bool], model: Any = model, weight: Any = weight) -> torch.Tensor:
            tokens = torch.tensor([ids])
            losses = cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")
            return torch.autograd.grad((losses * torch.tensor(counts[1:])).sum(), weight)[0]

        ids, answer = asked["input_ids"][0], asked["answer_ids"][0]
        query = gradient(ids + answer, [False] * len(ids) + [True] * len(answer))
        for place, row in enumerate((1, 2, 5)):
            own = gradient(documents["input_ids"][row], documents["counts"][row])
            expected[place] += rate * float((query * own).sum())
    found = dict(zip(lists["top_index"][0], lists["top_score"][0], strict=True))
    np.testing.assert_allclose([found[row] for row in (1, 2, 5)], expected, rtol=1e-3, atol=1e-8)


@pytest.mark.long
def test_whole_answers_of_knowledge_are_explained(command: CommandLine) -> None:
    asked = ("model=facts", "data=knowledge", "data.limit.test=3", "data.only_known=false", "data.types=[month]",
             "method=ig", "method.ig.n_steps=3", "evaluation=[]", "fit=false", "trainer.accelerator=cpu")  # fmt: skip
    first = table(command(*asked, "explain=answer", base=()), "scores", "ig", "test")
    run = command(*asked, "data.answer=full", base=())
    whole = table(run, "scores", "ig", "test")
    assert ("token" in whole.column_names, "token" in first.column_names) == (True, False)
    lengths = [len(ids) for ids in table(run, "examples", "test")["answer_ids"][:]]
    assert [len(row["token"][0]) for row in whole] == lengths


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("method=logprob_increase_attn", *ASKED), "method=logprob_increase_attn scores one next token"),
        (("method=influence_hessian", *ASKED), "method=influence_hessian reads the readout's inputs at one token"),
        (("method=influence", *ASKED), "method=influence takes the expectation of its curvature over the labels"),
        (("method=ig", "explain_against=foil", "fit=false", "data.prompt=a", "data.completion=b"),
         "explain_against=foil needs a foil of every query, but 1 of 1 have none (first: data.prompt)"),
        (("method=ig", "explain_against=runner_up", *ASKED), "explain_against=runner_up is one token"),
        (("method=ig", "model.adapter=lora", *ASKED), "model.adapter=lora trains new matrices"),
        (("method=gradsim", "method.gradsim.params=all", "method.gradsim.per=module", *ASKED),
         "per=module keeps rows to share scores out, but projection=none"),
    ],
)  # fmt: skip
def test_what_is_refused(command: CommandLine, arguments: tuple[str, ...], expected: str) -> None:
    run = command(*arguments, base=BASE)
    assert (run.code, expected in run.err) == (2, True), run.err


def test_completions_are_refused_of_data_without_any(command: CommandLine) -> None:
    run = command("explain=completion", "method=ig")
    assert (run.code, "asks for whole completions, and these data have none" in run.err) == (2, True)
