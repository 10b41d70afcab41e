"""A tokenizer whose description contradicts itself is refused in one sentence wherever texts are read."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from twinlens.attribution.errors import UserError
from twinlens.data.applied_tokenizer import tokenised
from twinlens.data.input_form import own_special_tokens


def test_an_unknown_token_that_is_not_there(tokenizer: Any) -> None:
    described = Tokenizer(models.BPE({"b": 0}, [], unk_token="<unk>"))
    described.pre_tokenizer = pre_tokenizers.Whitespace()
    broken = PreTrainedTokenizerFast(tokenizer_object=described)
    for read in (lambda: tokenised(broken, ["a c"]), lambda: own_special_tokens(broken)):
        with pytest.raises(UserError, match=r"cannot read texts \(.*<unk>.*model\.tokenizer_path"):
            read()
    assert tokenised(tokenizer, "the river") == tokenizer("the river")


def test_interrupts_and_lack_of_memory_go_on(tokenizer: Any) -> None:
    for error in (KeyboardInterrupt, MemoryError):

        def interrupted(*texts: Any, raised: type[BaseException] = error) -> None:
            raise raised

        with pytest.raises(error):
            tokenised(interrupted, "a")
