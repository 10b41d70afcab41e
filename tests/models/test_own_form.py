"""A classifier that is used as it is: the logits are those of plain transformers over its own tokenizer's ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast

from tests.families import ALL_MODELS, save_classifier_of
from twinlens.attribution.errors import UserError
from twinlens.callbacks.run.opening import own_form
from twinlens.data.table import TableDataModule
from twinlens.models.backbone import load_config, load_tokenizer
from twinlens.models.module import TextClassifier
from twinlens.models.own_form import learned_positions, trained_form

TINY = "models/tiny"
TEXTS = [
    "the river is long",
    "yes",
    "the bridge over the river was built by the old man",
    "no end<eos>",
    "two ends<eos><eos>",
    "the end of it all, said the man",
]
PAD, BOS, EOS = 0, 1, 2
KINDS: dict[str, tuple[str, int | None, str]] = {
    "nothing added": ("$A", PAD, "right"),
    "bos": ("<bos> $A", PAD, "right"),
    "eos": ("$A <eos>", PAD, "right"),
    "bos and eos": ("<bos> $A <eos>", PAD, "left"),
    "padding is eos": ("<bos> $A <eos>", EOS, "right"),
    "padding is eos, from the left": ("$A <eos>", EOS, "left"),
    "no padding": ("$A <eos>", None, "right"),
}
"""What the tokenizer adds, the id that the model takes for padding, the side it pads on."""

EVERYWHERE = ("bos and eos", "padding is eos", "no padding")
"""The kinds that every family is read with; the others differ before a model sees anything."""


def write_tokenizer(folder: Path, adds: str, pad: int | None, side: str) -> None:
    """The shipped tokenizer with another post-processor and padding, in a folder that holds a model."""
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(TINY)
    special = [("<bos>", BOS), ("<eos>", EOS)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=adds, pair=f"{adds} $B", special_tokens=special
    )
    tokenizer.pad_token = None if pad is None else {PAD: "<pad>", EOS: "<eos>"}[pad]
    tokenizer.padding_side = side
    tokenizer.save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token_id": pad}))


def read_as_it_is(folder: Path, texts: list[str], tmp_path: Path, **options: object) -> tuple[TextClassifier, Any]:
    """The classifier and prepared data of these texts, all in the test split."""
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = TableDataModule(path=str(file), text=["text"], label=None, eval_batch_size=len(texts), **options)
    checkpoint, tokenizer = load_config(str(folder)), load_tokenizer(str(folder), as_it_is=True)
    data.prepare(tokenizer, own_form(checkpoint, tokenizer), learned_positions(checkpoint))
    return TextClassifier("own", ["no", "yes"], tokenizer, path=str(folder), as_it_is=True).eval(), data


def batch_of(data: Any, rows: list[int]) -> Any:
    return next(iter(data.predict_dataloader_for("test", [rows])))


@torch.no_grad()
def plain_logits(folder: Path, texts: list[str]) -> torch.Tensor:
    """Logits [texts, classes] of transformers alone, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


@pytest.mark.parametrize("name", ALL_MODELS)
def test_logits_are_those_of_plain_transformers(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_classifier_of(name, folder, vocab_size=2048)
    for kind in KINDS if name in ("gpt2", "llama") else EVERYWHERE:
        adds, pad, side = KINDS[kind]
        write_tokenizer(folder, adds, pad, side)
        model, data = read_as_it_is(folder, TEXTS, tmp_path, template="{text}", padding_side=side)
        expected = plain_logits(folder, TEXTS)
        with torch.no_grad():
            alone = torch.cat([model(batch_of(data, [row])) for row in range(len(TEXTS))])
            together = model(batch_of(data, list(range(len(TEXTS)))))
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together, expected, atol=1e-4, rtol=1e-4)
        engine = model.engine().states(batch_of(data, list(range(len(TEXTS))))).scores
        torch.testing.assert_close(engine, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.01


def told(data: Any) -> list[str]:
    """The lines on the form of the texts."""
    return [line for line in data.notes.lines if line.startswith("form: ")]


def test_one_text_column_is_read_as_it_stands_and_the_form_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_classifier_of("llama", folder, vocab_size=2048)
    write_tokenizer(folder, "<bos> $A <eos>", EOS, "right")
    model, data = read_as_it_is(folder, TEXTS, tmp_path)
    with torch.no_grad():
        alone = torch.cat([model(batch_of(data, [row])) for row in range(len(TEXTS))])
    torch.testing.assert_close(alone, plain_logits(folder, TEXTS), atol=1e-5, rtol=1e-5)
    assert told(data) == [
        "form: <bos> + '{text}' + <eos>, at most 512 tokens",
        "form: 6 of 6 texts end with <eos>, which the checkpoint takes for padding: read before it",
    ]


def test_what_the_user_says_holds_and_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_classifier_of("llama", folder, vocab_size=2048)
    write_tokenizer(folder, "$A <eos>", PAD, "right")
    _, data = read_as_it_is(folder, TEXTS[:3], tmp_path, template="<bos>{text} Answer :", bos=True, max_length=6)
    assert [ids[:2].count(BOS) for ids in data.splits["test"]["input_ids"]] == [1, 1, 1]
    assert all(ids[-1] == EOS and len(ids) <= 6 for ids in data.splits["test"]["input_ids"])
    assert told(data) == [
        "form: <bos> + '<bos>{text} Answer :' + <eos>, at most 6 tokens",
        "form: 3 texts are shown as '<bos>{text} Answer :' (data.template), the checkpoint: reads '{text}'",
        "form: 3 texts get <bos> and <eos>, its own tokenizer adds <eos> (data.bos)",
        "form: 2 of 3 texts are cut to 6 tokens (data.max_length)",
        "form: 3 of 3 texts begin with <bos> themselves: no second one is put before them",
    ]


def test_no_text_is_cut_but_where_learned_positions_end(tmp_path: Path) -> None:
    long = " ".join(["river"] * 80)
    for name, limit in (("llama", None), ("gpt2", 64), ("bloom", None)):
        folder = tmp_path / name
        save_classifier_of(name, folder, vocab_size=2048)
        write_tokenizer(folder, "$A", PAD, "right")
        _, data = read_as_it_is(folder, [long], tmp_path)
        whole = AutoTokenizer.from_pretrained(folder)(long)["input_ids"]
        assert len(whole) > 64
        assert data.splits["test"][0]["input_ids"] == whole[:limit]
        cut = "form: 1 of 1 texts are cut to 64 tokens (data.max_length)"
        assert (cut in told(data)) == (limit is not None)


@pytest.mark.parametrize("bos", [True, False])
def test_a_classifier_trained_here_is_read_as_it_was_trained(bos: bool, tmp_path: Path) -> None:
    architecture = {"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    reads = {"template": "Text : {text}/ Answer :", "max_length": 40, "bos": bos}
    settings: dict[str, Any] = {"architecture": {**architecture, "intermediate_size": 64}, "reads": reads}
    TextClassifier("fitted", ["no", "yes"], load_tokenizer(TINY), **settings).save(tmp_path / "model")
    _, data = read_as_it_is(tmp_path / "model", TEXTS, tmp_path)
    assert data.reads == reads
    own = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = [own(f"Text : {text}/ Answer :")["input_ids"] for text in TEXTS]
    assert data.splits["test"]["input_ids"][:] == ids
    assert all((row[0] == BOS) == bos for row in ids)
    special = f"form: {sum('<' in text for text in TEXTS)} of {len(TEXTS)} texts hold special tokens written out"
    form, written = told(data)
    assert "'Text : {text}/ Answer :', at most 40 tokens" in form
    assert written == f"{special}: the model reads them as such"


@pytest.mark.parametrize(
    "entry", [[], "long", {"max_length": "long"}, {"max_length": -1}, {"max_length": True}, {"template": 3}]
)
def test_a_form_that_no_run_writes_is_refused(entry: object) -> None:
    with pytest.raises(UserError, match=r"twinlens_input in config.json.*take the entry out"):
        trained_form(GPT2Config(twinlens_input=entry))


def test_a_form_that_a_run_writes_is_read() -> None:
    written = {"template": "Text : {text}", "max_length": 9}
    assert trained_form(GPT2Config(twinlens_input=written)) == written
    assert trained_form(GPT2Config()) == {}
