"""The record of a decoder's parts: what is read back says and computes the same, block by block."""

from __future__ import annotations

import json

import pytest
import torch

from tests.combinations import half_long
from tests.decoders import tiny_decoder
from tests.families import ALL_MODELS, tiny_backbone
from twinlens.models.anatomy_check import build_anatomy
from twinlens.models.structure import remember, structure_of
from twinlens.models.structure_record import plain_of, structure_from

OTHERS = ("gemma2", "phi3", "olmo2", "cohere", "granite", "mixtral")


@pytest.mark.parametrize("name", half_long([*ALL_MODELS, *OTHERS]))
def test_what_is_read_back_is_what_was_found(name: str) -> None:
    backbone = tiny_backbone(name) if name in ALL_MODELS else tiny_decoder(name).base_model
    found = structure_of(backbone)
    assert found is not None
    again = structure_from(json.loads(json.dumps(plain_of(found))))
    assert str(again) == str(found)
    assert again.told() == found.told()


def test_a_remembered_structure_serves_as_one_that_was_found() -> None:
    first, second = tiny_backbone("bloom"), tiny_backbone("bloom")
    expected = build_anatomy(first)
    remember(second, structure_from(plain_of(expected.structure)))
    anatomy = build_anatomy(second)
    assert anatomy.structure is structure_of(second)
    given = torch.arange(3.0 * anatomy.n_heads * anatomy.head_dim)
    for mine, theirs in zip(anatomy.blocks, expected.blocks, strict=True):
        assert torch.equal(anatomy.head_values(mine, given), expected.head_values(theirs, given))
    remember(second, None)
    assert str(structure_of(second)) == str(anatomy.structure)
