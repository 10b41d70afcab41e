"""Prompts that accept several answers: which one is the target, which ones count as another's, what is kept."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from tests.tiny_llama import LLAMA
from twinlens.attribution.evaluation.neuron_level.known_prompts import other_answers
from twinlens.callbacks.passes.predict_pass import TrainerFactory
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.predict.known_prompts import known_stage
from twinlens.callbacks.predict.stage import examples_stage
from twinlens.callbacks.store.store import Store
from twinlens.data.knowledge import KnowledgeDataModule
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def model(repository: Path) -> LanguageModel:
    tokenizer = load_tokenizer(str(repository / "models" / "facts"))
    return LanguageModel("tiny", tokenizer, architecture=LLAMA, seed=1).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def words(model: LanguageModel) -> list[tuple[str, int, int]]:
    """Words of one token that go on from the prompt, the most probable first: (word, token, rank)."""
    tokenizer, found = model.tokenizer, []
    ids = [tokenizer.bos_token_id, *tokenizer(PROMPT, add_special_tokens=False)["input_ids"]]
    order = model.lm(torch.tensor([ids])).logits[0, -1].argsort(descending=True).tolist()
    for rank, token in enumerate(order, 1):
        word = tokenizer.decode([token])
        together = tokenizer(PROMPT + word, add_special_tokens=False)["input_ids"]
        if word.startswith(" ") and word.strip().isalpha() and together == [*ids[1:], token]:
            found.append((word.strip(), token, rank))
    return found


def predicted(tmp_path: Path, model: LanguageModel, rows: list[dict[str, Any]], **options: Any) -> tuple[Session, Path]:
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": PROMPT, "type": "a", **row}) for row in rows), "utf-8")
    data = KnowledgeDataModule(path=str(file), eval_batch_size=2, **options)
    data.prepare(model.tokenizer)
    trainers = TrainerFactory(partial(Trainer, accelerator="cpu", devices=1))
    session = Session(tmp_path / "run", Store(tmp_path / "store", False), trainers, data, "test", 2**30, 0)
    session.model, session.weights = model, "w"
    return session, examples_stage(session, "test")


def test_the_target_is_the_accepted_answer_that_the_model_finds_the_most_probable(
    tmp_path: Path, model: LanguageModel, words: list[tuple[str, int, int]]
) -> None:
    (best, best_id, best_rank), (second, second_id, _), *_, (last, last_id, _) = words
    rows = [
        {"answers": [last, best, second]},
        {"answers": [second]},
        {"answer": last},
        {"answers": [last, last]},
        {"answer_id": best_id},
    ]
    session, path = predicted(tmp_path, model, rows)
    found = session.predictions["test"].dataset
    assert found["label"][:] == [best_id, second_id, last_id, last_id, best_id]
    assert found["answer"][:4] == [best, second, last, last]
    assert found["answer_ids"][:] == [[token] for token in found["label"][:]]
    assert found["target_rank"][0] == best_rank
    assert any("3 of 5 rows list the answers" in line for line in session.data.notes.lines)
    # what a prompt accepts itself never stands above its target: of the first row it is the best of its type
    assert best_rank <= 10
    metrics = known_stage(session, "test", path)
    kept = session.predictions["test"].dataset
    assert kept["source_index"][:] == [0, 4]
    assert (metrics["data/kept"], metrics["data/dropped"]) == (2, 3)
    reasons = {name.rpartition("/")[2] for name in metrics if name.startswith("data/dropped/a/")}
    assert reasons <= {"not in the top 10", "below another answer of its type"}


def test_accepted_answers_of_one_prompt_do_not_count_against_each_other(
    tmp_path: Path, model: LanguageModel, words: list[tuple[str, int, int]]
) -> None:
    """With data.answer=full the whole answer's probability is that of the chosen one."""
    (best, best_id, _), (second, second_id, _) = words[:2]
    whole = f"{best} {second}"
    session, _ = predicted(tmp_path, model, [{"answers": [second, whole]}, {"answer": second}], answer="full")
    found = session.predictions["test"].dataset
    assert found["label"][:] == [best_id, second_id]
    assert found["answer"][0] == whole
    assert len(found["answer_ids"][0]) == 2
    ids = session.data.splits["test"]["input_ids"][0]
    logits = model.lm(torch.tensor([[*ids, best_id]])).logits[0, -2:].log_softmax(-1)
    expected = float((logits[0, best_id] + logits[1, found["answer_ids"][0][1]]).exp())
    assert found["target_prob"][0] == pytest.approx(expected, rel=1e-4)
    answers = other_answers(["a", "a"], [[second_id, best_id], [second_id]])
    assert answers["a"].tolist() == sorted({best_id, second_id})


def test_what_is_accepted_counts_in_the_fingerprint(
    tmp_path: Path, model: LanguageModel, words: list[tuple[str, int, int]]
) -> None:
    def fingerprint(*answers: str) -> str:
        rows = [{"answers": list(answers)}, {"answer": words[3][0]}]
        (tmp_path / "_".join(answers)).mkdir()
        return predicted(tmp_path / "_".join(answers), model, rows)[0].data.fingerprint("test")

    first, second, third = (word for word, *_ in words[:3])
    assert len({fingerprint(first), fingerprint(first, second), fingerprint(first, third)}) == 3
