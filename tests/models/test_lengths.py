"""Lengths that a model reads alike in every batch, and the classes and tokens that it knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from twinlens.attribution.errors import UserError
from twinlens.callbacks.run.readable_texts import refuse_unreadable_texts
from twinlens.models.class_labels import trained_labels
from twinlens.models.own_form import learned_positions, length_of_same_rotation

FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LLAMA: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 16}


def llama(**rope: Any) -> PretrainedConfig:
    return AutoConfig.for_model("llama", **LLAMA, rope_parameters={"rope_theta": 10000.0, **rope})


def test_rotations_that_depend_on_the_batch_have_a_length() -> None:
    assert length_of_same_rotation(llama(rope_type="dynamic", factor=4.0)) == (16, "dynamic")
    longrope = llama(rope_type="longrope", original_max_position_embeddings=8, **FACTORS)
    assert length_of_same_rotation(longrope) == (8, "longrope")
    before = AutoConfig.for_model("llama", **LLAMA, rope_scaling={"type": "dynamic", "factor": 2.0})
    assert length_of_same_rotation(before) == (16, "dynamic")
    by_layer = SimpleNamespace(
        max_position_embeddings=16,
        rope_parameters={"full_attention": {"rope_type": "dynamic"}, "sliding_attention": {"rope_type": "default"}},
    )
    nested: Any = SimpleNamespace(get_text_config=lambda: by_layer)
    assert length_of_same_rotation(nested) == (16, "dynamic")
    for same in ({"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}):
        assert length_of_same_rotation(llama(**same)) is None
    assert length_of_same_rotation(AutoConfig.for_model("gpt2")) is None


def test_only_learned_positions_end() -> None:
    assert learned_positions(AutoConfig.for_model("gpt2", n_positions=16)) == 16
    assert learned_positions(AutoConfig.for_model("opt", max_position_embeddings=20)) == 20
    assert learned_positions(AutoConfig.for_model("gptj", n_positions=24)) == 24
    for model_type in ("llama", "gpt_neox", "bloom", "mistral", "qwen2", "gemma"):
        assert learned_positions(AutoConfig.for_model(model_type)) is None


@pytest.mark.parametrize("nested", [False, True], ids=["texts", "choices"])
def test_a_text_that_the_model_cannot_read_is_named(nested: bool, repository: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(repository / "models" / "tiny")
    ids = [[5, 6, 7], [5, 2047], [8] * 20]
    rows = {
        "source_index": [3, 4, 9],
        "text": ["a", "the second one", "x" * 100],
        "input_ids": [[row, [5]] for row in ids] if nested else ids,
    }
    data = SimpleNamespace(splits={"test": datasets.Dataset.from_dict(rows)}, text_columns=["text"], max_length=2048)
    refuse_unreadable_texts(data, llama(rope_type="default"), tokenizer, 2048, "model=m")
    name = tokenizer.convert_ids_to_tokens(2047)
    with pytest.raises(UserError) as unknown:
        refuse_unreadable_texts(data, llama(rope_type="default"), tokenizer, 2047, "model=m")
    for part in (
        "1 texts of the test split",
        "row 4 ('the second one')",
        repr(name),
        "the model knows 2047 tokens",
        "2048",
    ):
        assert part in str(unknown.value)
    with pytest.raises(
        UserError, match=r"1 texts.*row 9 \('x{60}…'\) has 20 tokens, but model=m has 16 positions.*=16 to"
    ):
        refuse_unreadable_texts(data, AutoConfig.for_model("gpt2", n_positions=16), tokenizer, 2048, "model=m")
    with pytest.raises(
        UserError, match=r"20 tokens, but beyond 16 tokens model=m \(rope_type=dynamic\).*max_length=16"
    ):
        refuse_unreadable_texts(data, llama(rope_type="dynamic", factor=4.0), tokenizer, 2048, "model=m")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id2label": {0: "a", 2: "b"}}, r"numbers its 2 classes 0, 2, expected 0 to 1"),
        ({"id2label": {1: "a", 2: "b"}}, r"numbers its 2 classes 1, 2"),
        ({"id2label": {0: "a", 1: "a"}}, r"'a' twice"),
        ({"id2label": {0: "a", 1: None}}, r"an empty name"),
        (
            {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}},
            r"calls class 0 'a', but label2id gives.*number 1",
        ),
        ({"problem_type": "multi_label_classification"}, r"problem_type=multi_label_classification.*fit=true"),
        ({"problem_type": "regression", "num_labels": 1}, r"problem_type=regression.*fit=true"),
    ],
)
def test_classes_that_cannot_be_paired_with_rows_of_the_head_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trained_labels(AutoConfig.for_model("gpt2", **settings), "model")


def test_names_of_classes_are_read_in_the_order_of_the_head() -> None:
    config = AutoConfig.for_model("gpt2", id2label={1: "b", 0: "a", 2: 7}, label2id={"LABEL_0": 0})
    assert trained_labels(config, "model") == ["a", "b", "7"]
