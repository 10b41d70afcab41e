"""Questions: all choices' scores, edits of one sequence or of all, and saved models that reload."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.families import FAMILY_CONFIGS, choice_batch, choice_engine
from tests.models.test_module import ARCHITECTURE, classifier
from tests.oracles_neuron import answer_activations, forward_scores, sequences_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.protocols import NeuronModel
from twinlens.callbacks.run.opening import require_matching_readout
from twinlens.models.backbone import load_config, load_tokenizer
from twinlens.models.choice import scores_choices
from twinlens.models.class_labels import require_trained_classifier
from twinlens.models.module import TextClassifier

LENGTHS = [[6, 9, 7], [4, 4, 11]]


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", FAMILY_CONFIGS)
@pytest.mark.parametrize("choices", ["predicted", "all"])
@pytest.mark.parametrize("padding", ["right", "left"])
def test_states_equal_single_forwards(name: str, choices: str, padding: str) -> None:
    engine = choice_engine(name, choices)  # type: ignore[arg-type]
    batch = choice_batch(LENGTHS, padding)
    states = engine.states(batch)
    n_edited = engine.sequences_per_example
    assert isinstance(engine, NeuronModel)
    assert states.activation.shape[0] == 2 * n_edited
    for row in range(2):
        sequences = sequences_of(batch, row)
        scores = torch.cat([forward_scores(engine.engine, sequence) for sequence in sequences])
        assert close(states.scores[row], scores)
        edited = sequences if choices == "all" else [sequences[int(scores.argmax())]]
        for number, sequence in enumerate(edited):
            assert close(states.activation[row * n_edited + number], answer_activations(engine.engine, sequence))


def test_edits_of_the_predicted_choice_leave_the_other_scores() -> None:
    engine = choice_engine("gpt2")
    states = engine.states(choice_batch(LENGTHS))
    scores = engine.score_edits(states, lambda layer, activation: activation * 0, 4)
    assert scores.shape == (2, 4, 3)
    changed = (scores[:, 0] - states.scores).abs() > 1e-4
    assert changed.nonzero().tolist() == [[row, int(states.scores[row].argmax())] for row in range(2)]
    asked = engine.states(choice_batch(LENGTHS), torch.tensor([0, 1]))
    scores = engine.score_edits(asked, lambda layer, activation: activation * 0, 1)
    assert ((scores[:, 0] - states.scores).abs() > 1e-4).nonzero().tolist() == [[0, 0], [1, 1]]


def test_joint_edits_change_all_scores_and_memory_counts_all_sequences() -> None:
    one, all_of_them = choice_engine("gpt2"), choice_engine("gpt2", "all")
    batch = choice_batch(LENGTHS)
    states = all_of_them.states(batch)
    scores = all_of_them.score_edits(states, lambda layer, activation: activation * 0, 2)
    assert bool(((scores[:, 0] - states.scores).abs() > 1e-4).all())
    for name in ("row", "chunk", "edit", "sequence", "sequence_edit"):
        count = f"bytes_per_{name}"
        assert getattr(all_of_them, count)(states) == 3 * getattr(one, count)(one.states(batch))
    assert all_of_them.bytes_of_states(states) == 3 * one.bytes_of_states(one.states(batch))


# -- the classifier ----------------------------------------------------------------------------------------------


def question_classifier(head: str = "linear", **options: object) -> TextClassifier:
    settings = {"architecture": ARCHITECTURE, "n_choices": 3, **options}
    tokenizer = load_tokenizer("models/tiny")
    return TextClassifier("test", ["A", "B", "C"], tokenizer, head=head, **settings).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_forward_compares_the_choices(head: str) -> None:
    model = question_classifier(head)
    batch = choice_batch(LENGTHS, "left")
    with torch.no_grad():
        assert model.features(batch).shape == (2, 3, 32)
        scores = model(batch)
        engine_scores = model.engine().states(batch).scores
    assert scores.shape == (2, 3)
    assert close(engine_scores, scores)
    loss = model.training_step(batch, 0)
    listwise = -scores.log_softmax(-1)[torch.arange(2), batch["labels"]].mean()
    assert loss.item() == pytest.approx(listwise.item(), abs=1e-6)


def test_saved_model_reloads_to_the_same_score_of_each_sequence(tmp_path: Path) -> None:
    model = question_classifier(choices="all")
    model.save(tmp_path)
    batch = choice_batch(LENGTHS)
    batch["input_ids"][batch["attention_mask"] == 0] = model.tokenizer.pad_token_id
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    again = question_classifier(path=str(tmp_path), seed=99)
    with torch.no_grad():
        flat = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask")}
        logits = reloaded(**flat).logits
        scores = model(batch)
        assert torch.equal(again(batch), scores)
    assert reloaded.config.num_labels == 1
    assert torch.allclose(logits.view(2, 3), scores, atol=1e-6)
    assert model.engine().sequences_per_example == 3
    assert again.engine().sequences_per_example == 1


def test_readouts_that_do_not_match_are_one_sentence(tmp_path: Path) -> None:
    question_classifier().save(tmp_path / "choices")
    classifier().save(tmp_path / "classes")
    of_choices, of_classes = (load_config(str(tmp_path / name)) for name in ("choices", "classes"))
    assert scores_choices(of_choices)
    assert not scores_choices(of_classes)
    require_matching_readout(True, [], 5, ["A", "B", "C", "D", "E"], "p")
    names = require_trained_classifier(of_classes, "p")
    require_matching_readout(False, names, None, names, "p")
    with pytest.raises(UserError, match=r"model\.path=p gives one score per sequence.*the labels \[yes, no\]"):
        require_matching_readout(True, [], None, ["yes", "no"], "p")
    with pytest.raises(UserError, match=r"labels \[yes, no, maybe\].*multiple choice with 5 choices"):
        require_matching_readout(False, names, 5, ["A", "B", "C", "D", "E"], "p")
