"""Runs of prompts on a tiny language model: the filter, stored scores against plain loops, the plan, two processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from tests.oracles_neuron_level import Parts, attention_vector, ffn_score, head_vector, lp, parts_of
from tests.running import CommandLine
from tests.tiny_llama import LLAMA
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel

PROMPTS = ["The capital of France is", "Grass is", "In Spain people speak", "After May comes", "The number of days is"]
BASE = ("trainer.accelerator=cpu", "data=knowledge", "evaluation=[]", "model=local", "explain=answer")


class Case:
    """A tiny model on the disk and prompts whose answers stand at chosen ranks."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.tokenizer = load_tokenizer(str(repository / "models" / "facts"))
        self.model = LanguageModel("tiny", self.tokenizer, architecture=LLAMA, seed=1).eval().requires_grad_(False)
        self.model.save(folder / "model")
        self.folder = folder

    def ids(self, prompt: str) -> list[int]:
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"]

    def scores(self, ids: list[int]) -> torch.Tensor:
        return self.model.lm(torch.tensor([ids])).logits[0, -1].double()

    def answer(self, prompt: str, lowest: int, highest: int) -> str:
        """A word whose first token has a rank in [lowest, highest) and that is written as it is read."""
        order = self.scores(self.ids(prompt)).argsort(descending=True)
        for token in order[lowest:highest].tolist():
            word = self.tokenizer.decode([token])
            if word.startswith(" ") and word.strip().isalpha():
                together = self.ids(prompt + word)
                if together[-1] == token and len(together) == len(self.ids(prompt)) + 1:
                    return word.strip()
        pytest.fail(f"no word at rank {lowest}..{highest} of {prompt!r}")

    def write(self, rows: Sequence[tuple[str, str, str]]) -> Path:
        path = self.folder / "prompts.jsonl"
        names = ("prompt", "answer", "type")
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows), "utf-8")
        return path

    @property
    def arguments(self) -> tuple[str, ...]:
        return (f"model.path={self.folder / 'model'}", f"data.path={self.folder / 'prompts.jsonl'}", "data.bos=false")


@pytest.fixture
def case(tmp_path: Path, repository: Path) -> Case:
    made = Case(tmp_path, repository)
    made.write(
        [
            (PROMPTS[0], made.answer(PROMPTS[0], 0, 10), "a"),
            (PROMPTS[1], made.answer(PROMPTS[1], 200, 400), "b"),
            (PROMPTS[2], "", "b"),
            (PROMPTS[3], made.answer(PROMPTS[3], 0, 10), "c"),
            (PROMPTS[4], made.answer(PROMPTS[4], 200, 400), "a"),
            (PROMPTS[0], "", "c"),
        ]
    )
    return made


def stored(folder: Path, method: str) -> datasets.Dataset:
    return datasets.load_from_disk(str(folder / "scores" / method / "test"))


@torch.no_grad()
def test_only_known_prompts_go_on_and_the_rest_is_counted(command: CommandLine, case: Case) -> None:
    done = command(*case.arguments, "method=[logprob_increase,random_neurons]", base=BASE)
    assert done.code == 0, done.err
    assert "known: 4 of 6 test prompts kept; a 1 of 2 (1 not in the top 10); b 1 of 2 (1 not" in done.out
    rows = datasets.load_from_disk(str(done.folder / "examples" / "test"))
    assert rows["index"][:] == [0, 1, 2, 3]
    assert rows["source_index"][:] == [0, 2, 3, 5]
    assert rows["readout"][:] == ["token"] * 4
    assert "prob" not in rows.column_names
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert (metrics["data/kept"], metrics["data/dropped"], metrics["data/dropped/b/not in the top 10"]) == (4, 2, 1)
    scores, drawn = stored(done.folder, "logprob_increase"), stored(done.folder, "random_neurons/seed0")
    for row, prompt in zip(rows, rows["prompt"][:], strict=True):
        logits = case.scores(case.ids(prompt))
        target = row["label"] if row["label"] >= 0 else int(logits.argmax())
        assert row["prediction"] == int(logits.argmax())
        assert row["target_rank"] == 1 + int((logits > logits[target]).sum())
        expected = float(logits.softmax(-1)[target])
        assert row["target_prob"] == pytest.approx(expected, rel=1e-4)
        for table in (scores, drawn):
            assert table[row["index"]]["target"] == target
            assert table[row["index"]]["target_prob"] == pytest.approx(expected, rel=1e-4)


def oracle(case: Case, parts: Parts, target: int, entry: dict[str, Any], unit_kind: str) -> float:
    anatomy, head = build_anatomy(case.model.backbone), case.model.head
    layer, unit, position = entry["layer"], entry["unit"], entry["position"]
    if unit_kind == "neuron" and entry["site"] == "ffn":
        return ffn_score(anatomy, head, parts, layer, unit, target, "logprob_increase")
    x = parts.entering[layer][-1]
    if unit_kind == "layer" and entry["site"] == "ffn":
        x = x + parts.attention_output[layer][-1]
        added = parts.mlp_output[layer][-1]
    elif unit_kind == "layer":
        added = parts.attention_output[layer][-1]
    elif unit_kind == "head":
        places = range(len(parts.entering[layer])) if position < 0 else [position]
        added = torch.stack([head_vector(anatomy, parts, layer, unit, p) for p in places]).sum(0)
    else:
        added = attention_vector(anatomy, parts, layer, unit // 8, unit % 8, position)
    final = parts.leaving[-1]
    return lp(anatomy, head, x + added, final, target) - lp(anatomy, head, x, final, target)


@torch.no_grad()
def test_stored_scores_equal_the_loops_for_any_batch_and_padding(command: CommandLine, case: Case) -> None:
    methods = ["logprob_increase_attn", "heads", "head_positions", "layers", "query_neurons"]
    asked = (*case.arguments, f"method=[logprob_increase,{','.join(methods)}]", "data.only_known=false")
    asked += (
        "method.logprob_increase.site=both",
        "method.logprob_increase.top_k=10",
        "method.query_neurons.n_values=5",
    )
    done = command(*asked, "data.eval_batch_size=1", base=BASE)
    assert done.code == 0, done.err
    other = command(
        *asked, "data.eval_batch_size=4", "data.padding_side=left", "paths.store=elsewhere", "memory_budget=1MiB",
        base=BASE,
    )  # fmt: skip
    assert other.code == 0, other.err
    rows = datasets.load_from_disk(str(done.folder / "examples" / "test"))
    sites = set()
    for method in ("logprob_increase", *methods):
        table, again = stored(done.folder, method), stored(other.folder, method)
        for row in range(len(table)):
            for name in ("layer", "unit", "position", "site"):
                assert table[row][name] == again[row][name], (method, row, name)
            torch.testing.assert_close(torch.tensor(table[row]["score"]), torch.tensor(again[row]["score"]))
        found = table[1]
        kind, role = found["unit_kind"][0], found["role"][0]
        expected_kind = {"heads": "head", "head_positions": "head", "layers": "layer"}.get(method, "neuron")
        assert (kind, role) == (expected_kind, "query" if method == "query_neurons" else "value")
        if method == "query_neurons":
            continue
        parts = parts_of(build_anatomy(case.model.backbone), torch.tensor(rows[1]["input_ids"]))
        for place in (0, 3):
            entry = {name: found[name][place] for name in ("layer", "unit", "position", "site")}
            sites.add(entry["site"])
            expected = oracle(case, parts, found["target"], entry, kind)
            assert found["score"][place] == pytest.approx(expected, rel=1e-3, abs=1e-6), (method, entry)
    assert sites == {"ffn", "attn"}


@torch.no_grad()
def test_whole_answers_count_by_their_summed_log_probability(command: CommandLine, case: Case) -> None:
    case.write([(PROMPTS[0], "New York City", "a"), (PROMPTS[1], "green", "a")])
    done = command(*case.arguments, "method=[]", "data.only_known=false", "data.answer=full", base=BASE)
    assert done.code == 0, done.err
    lengths = []
    for row in datasets.load_from_disk(str(done.folder / "examples" / "test")):
        ids, total = list(row["input_ids"]), 0.0
        lengths.append(len(row["answer_ids"]))
        for token in row["answer_ids"]:
            total += float(case.scores(ids).log_softmax(-1)[token])
            ids.append(token)
        assert row["target_prob"] == pytest.approx(torch.tensor(total).exp().item(), rel=1e-3)
    assert max(lengths) > 1


@pytest.mark.long
def test_the_plan_knows_prompts_and_their_scores(command: CommandLine, case: Case) -> None:
    evaluations = (
        "interventions", "layer_importance", "head_importance", "importance_sums", "value_interventions",
        "query_layers", "query_interventions", "shared_neurons", "neuron_layers", "segments",
    )  # fmt: skip
    base = [argument for argument in BASE if argument != "evaluation=[]"]
    asked = (*case.arguments, "method=[logprob_increase,heads,ig]", f"evaluation=[{','.join(evaluations)}]")
    planned = command(*asked, "plan=true", base=base)
    assert planned.code == 0, planned.err
    assert "unknown" not in planned.out
    assert "\nfit" not in planned.out
    passes = [line.split("  ")[0] for line in planned.out.splitlines()]
    assert set(evaluations) | {"head_importance, second pass"} <= set(passes)
    assert command(*asked, base=base).code == 0
    assert "to do: 0 of 16 passes" in command(*asked, "plan=true", base=base).out
