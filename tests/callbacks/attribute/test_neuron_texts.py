"""A run's index of strongest texts equals a plain loop over the model's own forwards; refusals; the report."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.callbacks.report.report_page import island
from tests.running import SMALL_DEMO, SMALLER_MODEL, CommandLine, Finished
from tests.small_texts import documents
from tests.test_processes import start

DOCUMENTS = documents(12)[:-1]
QUERY = {"prompt": "The capital of France is", "completion": " Paris."}
WINDOW = 24
BASE = ("model=facts", "data=texts", "data.train=docs.jsonl", f"data.max_length={WINDOW}", "trainer.accelerator=cpu",
        "logger=none", "data.queries=questions.jsonl", "fit=false", "evaluation=[]", "method.ig.n_steps=2",
        "method.ig.site=both", "method.ig.top_k=12")  # fmt: skip


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name, rows in (("docs", DOCUMENTS), ("questions", [QUERY])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def activations(run: Finished) -> dict[tuple[str, int, int], list[Tensor]]:
    """(site, layer, unit) → of every document the activation at each token, NaN at special ones; hooks alone."""
    model = AutoModelForCausalLM.from_pretrained(run.folder / "model").eval()
    special = AutoTokenizer.from_pretrained(run.folder / "model").all_special_ids
    seen: dict[tuple[str, int], list[Tensor]] = {}
    for layer, block in enumerate(model.model.layers):
        for site, module in (("ffn", block.mlp.down_proj), ("attn", block.self_attn.o_proj)):
            module.register_forward_pre_hook(lambda m, a, key=(site, layer): seen.setdefault(key, []).append(a[0][0]))
    found: dict[tuple[str, int, int], list[Tensor]] = {}
    for row in datasets.load_from_disk(str(run.folder / "examples" / "train")):
        seen.clear()
        ids = torch.tensor(row["input_ids"])
        with torch.no_grad():
            for start in range(0, len(ids), WINDOW):
                model(ids[None, start : start + WINDOW])
        for (site, layer), parts in seen.items():
            whole = torch.cat(parts)
            whole[torch.isin(ids, torch.tensor(special))] = torch.nan
            for unit in range(whole.shape[1]):
                found.setdefault((site, layer, unit), []).append(whole[:, unit])
    return found


def test_the_index_equals_a_plain_loop_and_is_read_again(command: CommandLine) -> None:
    asked = ("method=[ig,random_neurons,similarity]", "neuron_texts=3")  # similarity has the train split predicted
    run = command(*asked, base=BASE)
    assert run.code == 0, run.err
    stored = list(datasets.load_from_disk(str(run.folder / "neurons" / "train")))
    (listed,) = datasets.load_from_disk(str(run.folder / "scores" / "ig" / "test"))
    wanted = set(zip(listed["site"], listed["layer"], listed["unit"], strict=True))
    assert {(row["site"], row["layer"], row["unit"]) for row in stored} == wanted  # those of the control have no row
    expected, tokens = activations(run), datasets.load_from_disk(str(run.folder / "examples" / "train"))["input_ids"][:]
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    for row in stored:
        each = expected[row["site"], row["layer"], row["unit"]]
        for end, sign in (("top", 1), ("bottom", -1)):
            best = [(sign * values).nan_to_num(nan=-torch.inf).max(0) for values in each]
            ranked = sorted((-float(b.values), document) for document, b in enumerate(best) if float(b.values) > 0)[:3]
            assert row[f"{end}_index"] == [document for _, document in ranked]
            assert row[f"{end}_activation"] == pytest.approx([-sign * value for value, _ in ranked], rel=1e-4, abs=1e-6)
            places = zip(row[f"{end}_index"], row[f"{end}_position"], strict=True)
            for (document, position), token, value in zip(
                places, row[f"{end}_token"], row[f"{end}_activation"], strict=True
            ):
                assert float(each[document][position]) == pytest.approx(value, rel=1e-4, abs=1e-6)
                assert token == tokenizer.decode([tokens[document][position]])
            assert row[f"{end}_marked"] == row[f"{end}_token"]
    said = yaml.safe_load((run.folder / "neurons" / "neurons.yaml").read_text())
    assert (said["texts"], said["neurons"]) == (3, len(wanted))
    units = island((run.folder / "report.html").read_text())["units"]
    shown = {units["key"][int(unit)]: passages for unit, passages in units["passages"].items()}
    assert shown
    for row in stored:
        passages = shown.get(f"{row['site']}.{row['layer']}.{row['unit']}", [])
        assert [passage[3] for passage in passages] == row["top_marked"]
    again = command(*asked, "data.eval_batch_size=1", base=BASE)
    assert f"texts of {len(wanted)} neurons: read from the store" in again.out
    alone = command(*asked, "data.eval_batch_size=1", "paths.store=other", "data.padding_side=left", base=BASE)
    for row, other in zip(stored, datasets.load_from_disk(str(alone.folder / "neurons" / "train")), strict=True):
        assert (row["top_index"], row["bottom_position"]) == (other["top_index"], other["bottom_position"])
        assert row["top_activation"] == pytest.approx(other["top_activation"], rel=1e-4, abs=1e-6)


def test_texts_have_fifty_unless_said_otherwise_and_classes_none(command: CommandLine) -> None:
    said = command("neuron_texts=0", "method=ig", base=BASE)
    assert (said.code, (said.folder / "neurons").exists()) == (0, False), said.err
    asked = ("method=ig", "evaluation=[]", "method.ig.n_steps=2", "method.ig.top_k=5")
    classes = command(*asked, "neuron_texts=2", base=(*SMALL_DEMO, *SMALLER_MODEL))
    assert classes.code == 0, classes.err
    rows = list(datasets.load_from_disk(str(classes.folder / "neurons" / "train")))
    assert {len(row["top_index"]) for row in rows} <= {0, 1, 2}
    assert any(len(row["top_index"]) == 2 for row in rows)
    default = command(*asked, base=(*SMALL_DEMO, *SMALLER_MODEL))
    assert not (default.folder / "neurons").exists()


@pytest.mark.long
def test_two_processes_leave_what_one_leaves(command: CommandLine, repository: Path) -> None:
    """The index, the lists at every token, and what is compared with them."""
    queries = [QUERY, {**QUERY, "completion": " Rome"}]  # one for each process
    (command.folder / "questions.jsonl").write_text("\n".join(map(json.dumps, queries)))
    small = ("method=[ig,na_instances]", "data.eval_batch_size=1", "method.ig.top_k=20", "method.ig.site=ffn")
    arguments = (*(part for part in BASE if part != "trainer.accelerator=cpu"), *small)
    one = command(*arguments, "trainer.accelerator=cpu", "paths.store=store1", base=())
    assert one.code == 0, one.err
    finished = start(repository, command.folder, *arguments, "trainer=ddp_cpu", "paths.store=store2")
    assert finished.returncode == 0, finished.stderr
    two = command.folder / finished.stdout.strip().splitlines()[-1]
    for part in ("neurons/train", "scores/ig/train", "scores/na_instances/test"):
        of_one, of_two = (list(datasets.load_from_disk(str(run / part))) for run in (one.folder, two))
        assert of_one == of_two
