"""Encoders from the fit to the report, both lenses, and as they are."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.encoders import ENCODERS, framing_tokenizer, save_encoder
from tests.running import SMALL_DEMO, CommandLine, Finished

METHODS = (
    "method=[ig,gradsim,gradsim_cosine,na_instances]",
    "method.ig.n_steps=2",
    "method.gradsim_cosine.params=all",
    "method.gradsim_cosine.projection=random",
    "method.gradsim_cosine.projection_dim=4",
    "evaluation=[accuracy,faithfulness]",
    "evaluation.faithfulness.control_seeds=[0]",
    "neuron_texts=2",
)
LIMITS = ("data.limit.train=16", "data.limit.test=4")
KINDS = [pytest.param(kind, marks=[] if kind == "bert" else [pytest.mark.long]) for kind in ENCODERS]


def probabilities(run: Finished, model: Path) -> torch.Tensor:
    """Of the run's test texts, as transformers gives them for its token ids."""
    stock = AutoModelForSequenceClassification.from_pretrained(model).eval()
    rows = datasets.load_from_disk(str(run.folder / "examples" / "test"))
    with torch.no_grad():
        return torch.cat([stock(torch.tensor([row["input_ids"]])).logits.softmax(-1) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_fit_to_the_report(command: CommandLine, tmp_path: Path, kind: str) -> None:
    save_encoder(kind, tmp_path / "checkpoint", max_position_embeddings=160)
    local = ("model=local", "model.path=checkpoint", *METHODS, *SMALL_DEMO, *LIMITS)
    run = command(*local, base=())
    assert run.code == 0, run.err
    rows = datasets.load_from_disk(str(run.folder / "examples" / "test"))
    tokenizer = framing_tokenizer()
    assert {(row["input_ids"][0], row["input_ids"][-1]) for row in rows} == {
        (tokenizer.cls_token_id, tokenizer.sep_token_id)
    }
    torch.testing.assert_close(
        torch.tensor(rows["prob"][:]), probabilities(run, run.folder / "model"), rtol=0, atol=1e-5
    )
    for name in ("ig", "gradsim", "gradsim_cosine", "na_instances"):
        assert len(datasets.load_from_disk(str(run.folder / "scores" / name / "test"))) == len(rows)
    neurons = datasets.load_from_disk(str(run.folder / "neurons" / "train"))
    words = {token for tokens in neurons["top_token"] for token in tokens}
    assert words
    assert not words & {"[CLS]", "[SEP]"}
    assert "comprehensiveness" in (run.folder / "results.csv").read_text()
    assert (run.folder / "report.html").is_file()
    planned = command(*local, "plan=true", base=())
    assert planned.code == 0, planned.err

    asked = ("model=local", f"model.path={run.folder / 'model'}", "fit=false", "method=gradsim", "evaluation=accuracy")
    again = command(*asked, *SMALL_DEMO[1:], *LIMITS, base=())
    assert again.code == 0, again.err
    same = datasets.load_from_disk(str(again.folder / "examples" / "test"))
    torch.testing.assert_close(torch.tensor(same["prob"][:]), torch.tensor(rows["prob"][:]), rtol=0, atol=1e-5)


def test_a_classifier_from_elsewhere_has_transformers_own_probabilities(command: CommandLine, tmp_path: Path) -> None:
    """Trained nowhere here: plain texts, its own form."""
    save_encoder("roberta", tmp_path / "checkpoint", max_position_embeddings=96)
    lines = [f"text,label\nthe number is {number},{'yes' if number % 2 else 'no'}\n" for number in range(1)]
    lines += [f"the number is {number},{'yes' if number % 2 else 'no'}\n" for number in range(1, 9)]
    (tmp_path / "rows.csv").write_text("".join(lines))
    run = command(
        "model=local", "model.path=checkpoint", "fit=false", "data=table", "data.path=rows.csv", "data.text=[text]",
        "data.label=label", "method=gradsim", "evaluation=accuracy", "trainer.accelerator=cpu", base=(),
    )  # fmt: skip
    assert run.code == 0, run.err
    rows = datasets.load_from_disk(str(run.folder / "examples" / "test"))
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "checkpoint").eval()
    with torch.no_grad():
        expected = [
            stock(**framing_tokenizer()(row["text"], return_tensors="pt")).logits.softmax(-1)[0] for row in rows
        ]
    torch.testing.assert_close(torch.tensor(rows["prob"][:]), torch.stack(expected), rtol=0, atol=1e-5)
