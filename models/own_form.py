"""Form of the texts that a checkpoint reads, how long they may be, and the ids it knows, as its files say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import Adapter
from twinlens.models.encoders import first_position, is_encoder

INPUT_ENTRY = "twinlens_input"
"""Entry of config.json with the template and the length that a classifier was trained with here."""
UNLIMITED = 10**9
"""transformers writes a larger model_max_length where a tokenizer states none."""
EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})
"""Last names of token embeddings."""


def trained_form(config: PretrainedConfig) -> Mapping[str, Any]:
    """`template` and `max_length` that a classifier was trained with here; empty for one from elsewhere.

    Raises:
        UserError: the entry is not as a run writes it.
    """
    entry = getattr(config, INPUT_ENTRY, None)
    if entry is None:
        return {}
    if isinstance(entry, Mapping):
        template, length = entry.get("template"), entry.get("max_length")
        is_length = length is None or (isinstance(length, int) and not isinstance(length, bool) and length > 0)
        if is_length and (template is None or isinstance(template, str)):
            return entry
    raise UserError(
        f"{INPUT_ENTRY} in config.json of {config._name_or_path or 'the checkpoint'} is {entry!r}; expected template, "
        "a text, and max_length, a whole number above 0, as a run writes them: mend the file, or take the entry out."
    )


def learned_positions(config: PretrainedConfig) -> int | None:
    """Positions that a model has and cannot go beyond; None where they are computed for any length."""
    text: Any = config.get_text_config()
    if getattr(text, "rope_parameters", None) or getattr(text, "alibi", False):
        return None
    positions = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)
    return positions - first_position(text) if positions and is_encoder(text) else positions


def stated_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest text that configuration or tokenizer speak of; 0 where neither does."""
    text: Any = config.get_text_config()
    stated = [getattr(text, name, None) for name in ("max_position_embeddings", "max_seq_len", "seq_length")]
    stated.append(tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None)
    return max((length for length in stated if isinstance(length, int)), default=0)


def length_of_same_rotation(config: PretrainedConfig) -> tuple[int, str] | None:
    """Up to which length a text is rotated alike in every batch, and the type of rotation that changes beyond.

    transformers rotates all texts of a batch by frequencies of the longest one; None where they never change.
    """
    text: Any = config.get_text_config()
    limits = []
    for parameters in _rotations(getattr(text, "rope_parameters", None)):
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind == "dynamic":
            limits.append((text.max_position_embeddings, kind))
        elif kind == "longrope":
            original = parameters.get("original_max_position_embeddings")
            original = original or getattr(text, "original_max_position_embeddings", None)
            limits.append((original or text.max_position_embeddings, kind))
    return min(limits, default=None)


def _rotations(parameters: Any) -> Iterator[Mapping[str, Any]]:
    """Settings of rotary positions: one for all blocks, or one for each kind of block."""
    if isinstance(parameters, Mapping):
        inner = [value for value in parameters.values() if isinstance(value, Mapping)]
        yield from inner or [parameters]


def known_tokens(config: PretrainedConfig, adapter: Adapter | None) -> int:
    """Size of the vocabulary, with what an adapter was trained to add to it."""
    size = getattr(config.get_text_config(), "vocab_size", None) or UNLIMITED
    shapes = {} if adapter is None else adapter.shapes
    added = [
        shape[0] for name, shape in shapes.items() if name.split(".")[-2] in EMBEDDINGS and name.endswith("weight")
    ]
    return max([size, *added])


def reading_with(tokenizer: PreTrainedTokenizerBase, bos: bool) -> PreTrainedTokenizerBase:
    """A copy that adds the beginning-of-sequence token where `bos`, and nothing else: `tokenizer(text)` then is what
    the classifier was trained on."""
    changed: Any = copy.deepcopy(tokenizer)
    if tokenizer.cls_token_id is not None:  # an encoder is trained on what its tokenizer puts around a text
        return changed
    begins = bos and tokenizer.bos_token_id is not None
    described = json.loads(changed.backend_tokenizer.to_str())
    before = described["post_processor"]
    kept = [part for part in _processors(before) if part["type"] == "ByteLevel"]  # shifts offsets, adds nothing
    first, special = (
        (f"{tokenizer.bos_token} ", [(tokenizer.bos_token, tokenizer.bos_token_id)]) if begins else ("", [])
    )
    adds = TemplateProcessing(single=f"{first}$A", pair=f"{first}$A $B", special_tokens=special)
    described["post_processor"] = {"type": "Sequence", "processors": [*kept, json.loads(adds.__getstate__())]}
    changed.backend_tokenizer.post_processor = Tokenizer.from_str(json.dumps(described)).post_processor
    # classes that build their own post-processor when they are loaded go by these
    changed.init_kwargs |= {"add_bos_token": begins, "add_eos_token": False}
    return changed


def _processors(described: Any) -> list[Any]:
    if described is None:
        return []
    return described["processors"] if described["type"] == "Sequence" else [described]
