"""Training sentences, and words of them, that taught a language model a fact."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.running import CommandLine, Finished
from twinlens.data.facts import facts as all_facts
from twinlens.data.facts import sentences

LAYER = "model.layers.2.self_attn.q_proj"
SMALL = ("experiment=neuron_level/training_sentences", "data.limit.train=40", "data.limit.validation=6",
         "evaluation=[]", "trainer.accelerator=cpu", "logger=none")  # fmt: skip
EXACT = ("method=gradsim", f"method.gradsim.params={LAYER}", "method.gradsim.projection=random",
         "method.gradsim.projection_dim=128", "method.gradsim.top_k=1000")  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Runs over one store: what several tests ask for is computed once."""
    return (*SMALL, f"paths.store={tmp_path_factory.mktemp('sentences') / 'store'}")


def scores_of(finished: Finished, position: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert finished.code == 0, finished.err
    rows = datasets.load_from_disk(str(finished.folder / "scores" / "gradsim" / "validation")).with_format("numpy")
    return rows["top_index"][:], rows["top_score"][:], rows["top_position"][:] if position else rows["index"][:]


def test_scores_are_products_of_the_losses_gradients(command: CommandLine, small: tuple[str, ...], repository) -> None:  # type: ignore[no-untyped-def]
    run = command(*EXACT, base=small)
    index, score, _ = scores_of(run)
    model = AutoModelForCausalLM.from_pretrained(repository / "models" / "facts").eval().requires_grad_(False)
    weight = model.get_submodule(LAYER).weight.requires_grad_(True)
    train, prompts = (
        datasets.load_from_disk(str(run.folder / "examples" / split)) for split in ("train", "validation")
    )

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, weight)[0].double()

    prompt = gradient(
        -model(torch.tensor([prompts[2]["input_ids"]])).logits[0, -1].log_softmax(-1)[prompts[2]["label"]]
    )
    for place in (0, 17, 39):
        ids = torch.tensor([train[int(index[2, place])]["input_ids"]])
        loss = cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        assert abs(float((prompt * gradient(loss)).sum()) - score[2, place]) < 1e-4 * np.abs(score[2]).max()


def by_row(finished: Finished) -> np.ndarray:
    """Scores of all train rows in their order, [tests, train]."""
    index, score, _ = scores_of(finished)
    return np.take_along_axis(score, index.argsort(1), 1)


def test_whole_gradients_are_those_of_the_texts_too(command: CommandLine, small: tuple[str, ...]) -> None:
    """Without a projection the losses are the same; `labels` says nothing of a text, whatever it is."""
    whole = (*EXACT[:2], "method.gradsim.projection=none", EXACT[-1])
    projected = by_row(command(*EXACT, base=small))
    run = command(*whole, base=small)
    found = by_row(run)
    np.testing.assert_allclose(found, projected, atol=1e-4 * np.abs(projected).max())
    asked = datasets.load_from_disk(str(run.folder / "examples" / "validation"))
    known = [row["index"] for row in asked if row["prediction"] == row["label"]]
    assert known
    predicted = by_row(command(*whole, "method.gradsim.labels=predicted", base=small))
    np.testing.assert_allclose(predicted[known], found[known], atol=1e-6 * np.abs(found).max())
    run = command("method=influence", f"method.influence.params={LAYER}", "method.influence.curvature=ekfac",
                  "method.influence.fisher=empirical", base=small)  # fmt: skip
    assert run.code == 0, run.err
    refused = command("method=influence", f"method.influence.params={LAYER}", "method.influence.curvature=kfac",
                      "method.influence.fisher=expectation", base=small)  # fmt: skip
    assert (refused.code, "fisher=empirical" in refused.err) == (2, True)


def test_scores_of_tokens_add_up_to_their_sentence(command: CommandLine, small: tuple[str, ...]) -> None:
    index, score, _ = scores_of(command(*EXACT, base=small))
    run = command(*EXACT, "method.gradsim.per=token", base=small)
    documents, shares, positions = scores_of(run, position=True)
    tokens = datasets.load_from_disk(str(run.folder / "scores" / "gradsim" / "train_tokens"))
    train = datasets.load_from_disk(str(run.folder / "examples" / "train"))
    asked = datasets.load_from_disk(str(run.folder / "examples" / "validation"))
    assert all(row["answer"].startswith(row["label_token"]) and row["label_token"] for row in asked)
    assert all((row["prediction"] == row["label"]) == (row["prediction_token"] == row["label_token"]) for row in asked)
    assert len(tokens) == sum(map(len, train["input_ids"][:])) == documents.shape[1]
    assert "".join(row["text"] for row in tokens if row["document"] == 3) == f"<bos> {train[3]['prompt']}"
    for test in range(len(index)):
        summed, whole = np.zeros(40), np.zeros(40)
        np.add.at(summed, documents[test], shares[test])
        whole[index[test]] = score[test]
        np.testing.assert_allclose(summed, whole, atol=1e-4 * np.abs(whole).max())
        assert len(set(zip(documents[test], positions[test], strict=True))) == len(tokens)
    summary = datasets.load_from_disk(str(run.folder / "scores" / "gradsim" / "train_summary"))
    assert summary["index"][:] == list(range(40))


def test_sentences_of_the_same_fact_rank_high(command: CommandLine, small: tuple[str, ...]) -> None:
    """All are of one kind, capitals; chance would give each of a dozen facts the same share of the ten best."""
    run = command(base=(*small, "data.limit.train=432", "data.limit.validation=12"))
    assert run.code == 0, run.err
    rows = datasets.load_from_disk(str(run.folder / "scores" / "gradsim_cosine" / "validation")).with_format("numpy")
    facts = [fact for fact, _ in sentences(all_facts(), 3, 0)][:432]
    order = list(dict.fromkeys(facts))
    stated = np.array([order.index(fact) for fact in facts])
    best = rows["top_index"][:][:, :10]
    shares = (stated[best] == np.arange(12)[:, None]).mean(1)
    assert shares.mean() > 3 * (stated < 12).mean() / 12


def test_what_rows_of_a_language_model_cannot_be_is_refused(command: CommandLine, small: tuple[str, ...]) -> None:
    layers = ("method.influence.params=all", "method.influence.projection=random")
    whole = command("method=influence", *layers, base=small)
    assert whole.code == 2
    assert "curvature=datainf" in whole.err
    classes = ("method=gradsim", "method.gradsim.params=all", "method.gradsim.projection=random")
    demo = ("data=demo", "model=tiny", "debug=fdr", "data.n_train=60", "data.n_validation=10", "data.n_test=20",
            "data.n_twins=2", "trainer.accelerator=cpu")  # fmt: skip
    tokens = command(*classes, "method.gradsim.per=token", base=demo)
    assert tokens.code == 2
    assert "per=token names tokens of training texts" in tokens.err
