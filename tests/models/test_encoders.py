"""Encoders of six types: their own probabilities, neurons of the classification token and gradients, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from tests.encoders import ENCODERS, framing_tokenizer, save_encoder, tiny_encoder
from tests.models_table import PAGE, encoder_rows_on
from tests.served_encoders import CELLS, Encoder
from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import NeuronModel
from twinlens.models.backbone import architecture_of
from twinlens.models.encoder_anatomy import encoder_anatomy, require_encoder_parts
from twinlens.models.encoders import require_classification_token
from twinlens.models.module import TextClassifier


@pytest.fixture(scope="module", params=list(ENCODERS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp(request.param)
    save_encoder(request.param, folder)
    return Encoder(request.param, folder)


@pytest.mark.parametrize("cell", list(CELLS))
def test_what_is_served_equals_plain_loops(encoder: Encoder, cell: str) -> None:
    """Both paddings, one text and four at a time; the page says the same."""
    place = list(CELLS).index(cell)
    assert CELLS[cell](encoder) == encoder_rows_on(PAGE)[encoder.kind][place] == "yes"


def test_parts_are_found_without_values(encoder: Encoder) -> None:
    """A plan, and a refusal before the fit, look at a small twin."""
    lm = architecture_of(str(encoder.folder), None, "linear", ["no", "yes"], 259, "sdpa", False)
    assert next(lm.parameters()).is_meta
    assert sum(1 for _ in lm.score.parameters()) >= 2
    require_encoder_parts(lm.base_model)
    assert isinstance(encoder.model().engine(), NeuronModel)


def test_what_an_encoder_cannot_serve_is_refused(tmp_path: Path) -> None:
    save_encoder("bert", tmp_path)
    bert = Encoder("bert", tmp_path)
    with pytest.raises(UserError, match="the bert model is an encoder"):
        bert.model().residual_engine()
    with pytest.raises(UserError, match=r"model\.head=mlp .* brings its own"):
        TextClassifier("local", ["no", "yes", "perhaps"], framing_tokenizer(), str(tmp_path), head="mlp")
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path).config
    with pytest.raises(UserError, match="puts no classification token there"):
        require_classification_token(config, framing_tokenizer(frames=False), "model.path=DIR")
    save_encoder("modernbert", tmp_path / "mean", classifier_pooling="mean")
    with pytest.raises(UserError, match="does not read its first token"):
        Encoder("modernbert", tmp_path / "mean").model()


@pytest.mark.parametrize("kind", ["bert", pytest.param("distilbert", marks=pytest.mark.long)])
def test_neurons_of_an_encoder_in_bfloat16_are_found_and_wrong_ones_are_not(kind: str) -> None:
    backbone = tiny_encoder(kind).bfloat16().base_model
    anatomy = encoder_anatomy(backbone)
    assert anatomy.n_neurons == 48
    down = anatomy.down_projection(anatomy.blocks[1])
    handle = down.register_forward_hook(lambda module, args, output: 1.2 * output)
    with pytest.raises(UserError, match="fails in layer 1"):
        encoder_anatomy(backbone)
    handle.remove()
