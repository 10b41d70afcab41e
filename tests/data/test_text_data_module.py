"""Behaviour that all data modules share: columns, limit, select, report, fingerprint, batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer

from twinlens.attribution.errors import UserError
from twinlens.data.collate import PaddingCollator
from twinlens.data.sampling import length_sorted_batches, token_lengths
from twinlens.data.table import TableDataModule
from twinlens.data.text_data_module import TextDataModule

ROWS = [
    {
        "premise": f"Row {row} " + "and so on " * (row * 7 % 5),
        "hypothesis": f"It is {row}.",
        "label": ["yes", "no"][row % 2],
    }
    for row in range(12)
]


def write(folder: Path, split: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def module(folder: Path, tokenizer: Any, **options: Any) -> TextDataModule:
    if not list(folder.iterdir()):
        for split, rows in (("train", ROWS), ("validation", ROWS[:4]), ("test", ROWS[4:9])):
            write(folder, split, rows)
    result = TableDataModule(path=str(folder), text=["premise", "hypothesis"], **options)
    result.prepare(tokenizer)
    return result


def test_columns_and_prompt(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer)
    assert list(data.splits) == ["train", "validation", "test"]
    assert data.label_names == ["no", "yes"]
    row = data.splits["test"][2]
    assert list(row) == ["index", "source_index", "premise", "hypothesis", "label", "input_ids"]
    assert (row["index"], row["source_index"], row["label"]) == (2, 2, 1)
    text = f"Premise : {ROWS[6]['premise']}/ Hypothesis : {ROWS[6]['hypothesis']}/ Answer :"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["input_ids"] == [tokenizer.bos_token_id, *ids]


def test_template_and_bos_are_options(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer, template="{hypothesis} <- {premise}", bos=False)
    assert tokenizer.decode(data.splits["train"][0]["input_ids"]) == "It is 0. <- Row 0 "


def test_select_counts_rows_of_the_split_and_limit_comes_after(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer, select={"test": [3, 1, 0], "train": None}, limit={"test": 2, "train": 5})
    test = data.splits["test"]
    assert (test["index"][:], test["source_index"][:]) == ([0, 1], [3, 1])
    assert test["hypothesis"][:] == ["It is 7.", "It is 5."]
    assert data.splits["train"]["source_index"][:] == [0, 1, 2, 3, 4]
    assert len(data.splits["validation"]) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": {"test": [5]}}, r"data\.select\.test names row 5, expected rows from 0 to 4"),
        ({"select": {"test": [-1]}}, r"data\.select\.test names row -1"),
        ({"select": {"test": [2, 3, 2]}}, r"data\.select\.test names row 2 twice"),
        ({"limit": {"test": 0}}, r"data\.limit\.test=0, expected at least 1"),
        ({"limit": {"dev": 3}}, r"data\.limit\.dev names no split, expected one of train, validation, test"),
        (
            {"template": "refrence"},
            r"data\.template='refrence' is no template of data=table, expected reference or a format",
        ),
        ({"max_length": 0}, r"data\.max_length=0, expected at least 1"),
        ({"batch_size": 0}, r"data\.batch_size=0, expected at least 1"),
        ({"padding_side": "top"}, r"data\.padding_side='top', expected right or left"),
    ],
)
def test_options_out_of_range(tmp_path: Path, tokenizer: Any, options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        module(tmp_path, tokenizer, **options)


def test_limit_of_an_absent_split(tmp_path: Path, tokenizer: Any):
    write(tmp_path, "test", ROWS)
    limited = module(tmp_path, tokenizer, limit={"train": 3, "validation": 3, "test": 4})
    assert "no effect of data.limit.train and data.limit.validation: there is no such split, only test" in [
        *limited.notes.lines
    ]
    assert len(limited.splits["test"]) == 4
    with pytest.raises(UserError, match=r"data\.select\.train names rows, but data=table has only the splits test"):
        module(tmp_path, tokenizer, select={"train": [3]})
    with pytest.raises(UserError, match=r"has no train split \(there is: test\), expected labelled rows"):
        module(tmp_path, tokenizer).train_dataloader()


def test_report_counts_and_continues(tmp_path: Path, tokenizer: Any):
    empty = {"premise": "", "hypothesis": "alone", "label": "yes"}
    long = {"premise": "p", "hypothesis": "word " * 60, "label": "no"}
    claim = {"premise": "word " * 60, "hypothesis": "", "label": "no"}
    write(tmp_path, "train", [ROWS[0], empty, long, ROWS[0], claim])
    write(tmp_path, "test", [ROWS[1], ROWS[0]])
    report = module(tmp_path, tokenizer, max_length=40).report
    assert report == {
        "empty_field": {"count": 2, "indices": {"train": [1, 4]}},
        "cut_text": {"count": 2, "indices": {"train": [2, 4]}},
        "cut_prompt": {"count": 1, "indices": {"train": [4]}},
        "duplicate_text": {"count": 2, "indices": {"train": [3], "test": [1]}},
        "no_gold_label": {"count": 0, "indices": {}},
    }


def test_report_lists_twenty_rows_and_counts_all(tmp_path: Path, tokenizer: Any):
    write(tmp_path, "train", [ROWS[0], {**ROWS[0], "label": "no"}] * 15)
    assert module(tmp_path, tokenizer).report["duplicate_text"] == {
        "count": 29,
        "indices": {"train": list(range(1, 21))},
    }


def test_an_example_without_text_is_refused(tmp_path: Path, tokenizer: Any):
    write(tmp_path, "train", [ROWS[0], {"premise": " ", "hypothesis": None, "label": "no"}])
    with pytest.raises(UserError, match="Row 1 of the source of the train split of data=table has no token at all"):
        module(tmp_path, tokenizer)


def test_prepare_again_does_nothing(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer)
    before = data.splits
    data.prepare(tokenizer)
    assert data.splits is before


def test_fingerprint_follows_content_alone(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer)
    prints = {split: data.fingerprint(split) for split in data.splits}
    assert len(set(prints.values())) == 3
    same = module(tmp_path, tokenizer, batch_size=3, eval_batch_size=5, seed=4, padding_side="left")
    assert {split: same.fingerprint(split) for split in same.splits} == prints
    fewer = module(tmp_path, tokenizer, limit={"test": 4})
    assert fewer.fingerprint("train") == prints["train"]
    assert fewer.fingerprint("test") != prints["test"]
    assert module(tmp_path, tokenizer, template="{premise} {hypothesis}").fingerprint("test") != prints["test"]
    assert module(tmp_path, tokenizer, label_names=["yes", "no"]).fingerprint("test") != prints["test"]
    write(tmp_path, "test", [{**ROWS[4], "label": "no" if ROWS[4]["label"] == "yes" else "yes"}, *ROWS[5:9]])
    assert module(tmp_path, tokenizer).fingerprint("test") != prints["test"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_pads_and_masks(side: str):
    rows = [{"index": 7, "label": -1, "input_ids": [5, 0, 6]}, {"index": 2, "label": 1, "input_ids": [4]}]
    batch = PaddingCollator(0, side)(rows)
    assert {name: values.dtype for name, values in batch.items()} == dict.fromkeys(batch, torch.int64)
    assert batch["index"].tolist() == [7, 2]
    assert batch["labels"].tolist() == [-1, 1]
    assert batch["input_ids"].tolist() == [[5, 0, 6], [4, 0, 0] if side == "right" else [0, 0, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0] if side == "right" else [0, 0, 1]]


@pytest.mark.parametrize(("batch_size", "rows_per_shard"), [(1, 1), (4, 5), (5, 4), (32, 1000), (3, 12)])
def test_length_sorted_batches(tmp_path: Path, tokenizer: Any, batch_size: int, rows_per_shard: int):
    train = module(tmp_path, tokenizer).splits["train"]
    lengths = token_lengths(train)
    assert lengths == [len(ids) for ids in train["input_ids"]]
    assert len(set(lengths)) > 1
    shards = length_sorted_batches(train, batch_size, rows_per_shard)
    for number, shard in enumerate(shards):
        rows = [row for batch in shard for row in batch]
        start = number * rows_per_shard
        assert sorted(rows) == list(range(start, min(start + rows_per_shard, len(train))))
        assert [lengths[row] for row in rows] == sorted((lengths[row] for row in rows), reverse=True)
        assert all(1 <= len(batch) <= batch_size for batch in shard)
    assert sum(len(batch) for shard in shards for batch in shard) == len(train)


def test_order_is_restored_by_index(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer)
    batches = [batch for shard in length_sorted_batches(data.splits["train"], 5, 8) for batch in shard]
    restored: dict[int, list[int]] = {}
    for expected, batch in zip(batches, data.predict_dataloader_for("train", batches), strict=True):
        assert batch["index"].tolist() == expected
        for index, ids, mask in zip(batch["index"], batch["input_ids"], batch["attention_mask"], strict=True):
            restored[int(index)] = ids[mask.bool()].tolist()
    assert [restored[row] for row in range(12)] == data.splits["train"]["input_ids"][:]


def epoch_order(data: TextDataModule, epoch: int) -> list[int]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [int(index) for batch in loader for index in batch["index"]]


def test_training_order_depends_on_seed_and_epoch_alone(tmp_path: Path, tokenizer: Any):
    first = module(tmp_path, tokenizer, seed=1, batch_size=4)
    assert sorted(epoch_order(first, 0)) == list(range(12))
    assert epoch_order(first, 0) == epoch_order(module(tmp_path, tokenizer, seed=1, batch_size=3), 0)
    orders = [epoch_order(first, 0), epoch_order(first, 1), epoch_order(module(tmp_path, tokenizer, seed=2), 0)]
    assert len(set(map(tuple, orders))) == 3


def test_validation_keeps_its_order(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer, eval_batch_size=3)
    assert [batch["index"].tolist() for batch in data.val_dataloader()] == [[0, 1, 2], [3]]
    # the number that fits is not known before the fit: its batches, which need more memory, fit
    data = module(tmp_path, tokenizer, eval_batch_size="auto", batch_size=2)
    assert [batch["index"].tolist() for batch in data.val_dataloader()] == [[0, 1], [2, 3]]


def test_a_tokenizer_without_a_pad_token_serves(tmp_path: Path, shared_data: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "stories260k" / "hf")
    assert tokenizer.pad_token_id is None
    data = module(tmp_path, tokenizer, batch_size=12)
    (batch,) = data.train_dataloader()
    lengths = token_lengths(data.splits["train"])
    assert batch["attention_mask"].sum(1).tolist() == [lengths[int(index)] for index in batch["index"]]


class OrderRecorder(LightningModule):
    """Learns nothing; writes down which rows came in which epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.orders: dict[int, list[int]] = {}

    def training_step(self, batch: dict[str, torch.Tensor]) -> None:
        self.orders.setdefault(self.current_epoch, []).extend(batch["index"].tolist())

    def configure_optimizers(self) -> None:
        return None


def test_lightning_moves_the_order_from_epoch_to_epoch(tmp_path: Path, tokenizer: Any):
    data = module(tmp_path, tokenizer, seed=1, batch_size=4)
    recorder = OrderRecorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(recorder, datamodule=data)
    assert recorder.orders == {epoch: epoch_order(data, epoch) for epoch in range(3)}
