"""The evaluation stage over stored scores: who is given what, folds, pairs, concepts, choices, and what is skipped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.evaluation.accuracy import Accuracy
from twinlens.attribution.evaluation.artifacts import Artifacts
from twinlens.attribution.evaluation.concepts import Concepts
from twinlens.attribution.evaluation.diversity import Diversity
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.overlap import Overlap
from twinlens.attribution.evaluation.retraining import Retraining
from twinlens.attribution.evaluation.uniqueness import Uniqueness
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.random_instances import RandomInstances
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.readouts import READOUTS
from twinlens.callbacks.attribute.stage import score_name
from twinlens.callbacks.evaluate.evaluation_inputs import reference, train_facts
from twinlens.callbacks.evaluate.stage import Asked, evaluate_stage, evaluations_in_order
from twinlens.callbacks.passes.explain import Explain
from twinlens.callbacks.passes.session import Predictions

BRIDGE = InstanceNeurons("gradsim", top_k=2)
METHODS: dict[str, Any] = {
    "gradsim": GradientSimilarity(top_k=3),
    "random_instances": RandomInstances([0, 1], top_k=3),
    "ig": IntegratedGradients(top_k=2),
}


def fake_session(folder: Path, **of_data: Any) -> Any:
    """Four train and two test examples with stored scores of `METHODS` and of a bridge."""
    train = {
        "premise": ["a b", "a b c d", "x y", "no"],
        "hypothesis": ["a b", "c", "z", "no"],
        "concept": ["dog", "cat", "cat", "sea"],
        "label": [0, 1, 2, 0],
        "prediction": [0, 1, 1, 0],
        "prob": [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3]],
        "input_ids": [[1, 2], [1, 2, 3, 4], [5], [6]],
    }
    test = {
        "premise": ["p q", "p q"],
        "hypothesis": ["q p.", "r"],
        "concept": ["dog", "cow"],
        "label": [1, 1],
        "prediction": [0, 2],
    }
    splits = {"train": Dataset.from_dict(train), "test": Dataset.from_dict(test)}
    scores = {}
    for name, runs in {
        "gradsim": [[[0, 1, 2], [1, 0, 3]]],
        "random_instances": [[[3, 2, 1], [0, 1, 2]], [[2, 0, 1], [0, 3, 2]]],
    }.items():
        for seed, top in enumerate(runs):
            place = folder / f"{name}{seed}"
            flat = {
                "top_index": top,
                "top_score": [[0.0] * 3] * 2,
                "bottom_index": top,
                "bottom_score": [[0.0] * 3] * 2,
            }
            Dataset.from_dict({"index": [0, 1], **flat}).save_to_disk(str(place / "test"))
            summary = {"index": [0, 1, 2, 3], "mean": [0.1, 0.4, 0.3, 0.2 + seed], "votes": [2, 2, 1, 1]}
            Dataset.from_dict(summary).save_to_disk(str(place / "train_summary"))
            scores[score_name(name, None if name == "gradsim" else seed), "test"] = place
    for name, units in {"ig": [[1, 2], [3]], "gradsim_neurons": [[2, 2], [3, 4]]}.items():
        layers = [[0] * len(row) for row in units]
        sites = [["ffn"] * len(row) for row in units]
        Dataset.from_dict({"layer": layers, "unit": units, "site": sites}).save_to_disk(str(folder / name / "test"))
        scores[name, "test"] = folder / name
    features = torch.arange(8.0).reshape(4, 2)
    defaults = {
        "label_names": ["entailment", "neutral", "contradiction"],
        "splits": splits,
        "plant_columns": [],
        "folds": {},
        "pair_columns": ("premise", "hypothesis"),
        "entailment_name": "entailment",
    }
    return SimpleNamespace(
        data=SimpleNamespace(**{**defaults, **of_data}),
        split="test",
        readout=READOUTS["classification"],
        explain=Explain(),
        predictions={name: Predictions(rows, features, name) for name, rows in splits.items()},
        scores=scores,
    )


def results(session: Any, name: str, evaluation: Any, methods: Any = METHODS) -> dict[tuple[Any, ...], float]:
    found = evaluate_stage(Asked(session, name, evaluation, {}, methods))
    return {(r.method, r.metric, r.k, r.group): r.value for r in found}


HANS = SimpleNamespace(names=("entailment", "non-entailment"), of_class=(0, 1, 1))


def test_a_folded_split_is_counted_in_its_own_classes(tmp_path: Path) -> None:
    session = fake_session(tmp_path, folds={"test": HANS})
    assert results(session, "accuracy", Accuracy())["", "accuracy", None, ""] == 0.5
    assert reference(session).fold.tolist() == [0, 1, 1]
    assert results(fake_session(tmp_path / "plain"), "accuracy", Accuracy())["", "accuracy", None, ""] == 0


def test_accuracy_is_broken_down_by_label_and_case_of_the_challenge_set(tmp_path: Path) -> None:
    session = fake_session(tmp_path, folds={"test": HANS})
    session.data.splits["test"] = session.data.splits["test"].add_column("subcase", ["passive", "swap"])
    found = results(session, "accuracy", Accuracy())
    # both tests are not entailed, so that this label is all of them; the second is right
    assert {group: value for (*_, group), value in found.items() if group} == {
        "subcase=passive": 0.0, "subcase=swap": 1.0,
    }  # fmt: skip
    plain = fake_session(tmp_path / "plain")
    plain.data.splits["test"] = plain.data.splits["test"].add_column("subcase", ["same", "same"])
    assert {group for *_, group in results(plain, "accuracy", Accuracy())} == {""}


def test_artifacts_of_a_challenge_set_and_of_the_data_themselves(tmp_path: Path) -> None:
    for folds, group in (({"test": HANS}, "challenge"), ({}, "own")):
        found = results(fake_session(tmp_path / group, folds=folds), "artifacts", Artifacts(top=(1, 3)))
        assert found == {  # the first test alone is mispredicted as entailment; Jaccard of train: 1, 1/4, 0, 1
            ("gradsim", "lexical_overlap", 1, group): 1,
            ("random_instances", "lexical_overlap", 1, group): (1 + 0) / 2,
            ("gradsim", "lexical_overlap", 3, group): pytest.approx(1.25 / 3),
            ("random_instances", "lexical_overlap", 3, group): pytest.approx((1.25 + 1.25) / 6),
        }


def test_concepts_of_data_and_methods(tmp_path: Path) -> None:
    found = results(fake_session(tmp_path), "concepts", Concepts(top=1))
    assert found["", "concepts_train", None, ""] == 3
    assert found["", "concept_coverage", None, ""] == 50
    assert found["gradsim", "concepts_retrieved", 1, ""] == 2
    assert found["gradsim", "concept_match", 1, ""] == 50


def test_overlap_compares_stored_lists_and_rankings(tmp_path: Path) -> None:
    evaluation = Overlap(fractions=(50,), top=(2,), neurons=(2,))
    found = results(
        fake_session(tmp_path),
        "overlap",
        evaluation,
        {**METHODS, "gradsim_neurons": BRIDGE},
    )
    assert found == {
        # gradsim ranks 1, 2 first; the seeds 1, 2 and 3, 1
        ("gradsim", "instance_overlap", 50, ""): 75,
        ("gradsim", "instance_overlap_per_test", 2, ""): pytest.approx((0 + 50 + 100 + 50) / 4),
        ("gradsim_neurons", "only_na", 2, ""): pytest.approx((50 + 0) / 2),
        ("gradsim_neurons", "only_ia", 2, ""): pytest.approx((0 + 50) / 2),
        ("gradsim_neurons", "common", 2, ""): pytest.approx((50 + 50) / 2),
    }


def test_diversity_leaves_methods_with_seeds_to_the_random_subsets(tmp_path: Path) -> None:
    found = results(fake_session(tmp_path), "diversity", Diversity(fractions=(50,), groups=("least",)))
    assert {key[0] for key in found} == {"gradsim"}  # rows 0 and 3
    assert found["gradsim", "vocabulary", 50, "least"] == 3
    assert found["gradsim", "input_length", 50, "least"] == 1.5
    assert found["gradsim", "loss", 50, "least"] == pytest.approx(-torch.tensor([0.5, 0.4]).log().mean().item())


def test_of_several_sequences_the_predicted_one_is_described(tmp_path: Path) -> None:
    session = fake_session(tmp_path)
    nested = session.data.splits["train"].remove_columns("input_ids")
    nested = nested.add_column("input_ids", [[[1], [1, 2, 3], [2, 2]]] * 4)
    session.data.splits["train"] = nested
    features = torch.arange(4 * 3 * 2.0).reshape(4, 3, 2)
    session.predictions["train"] = Predictions(nested, features, "train")
    facts = train_facts(session)
    assert facts.length.tolist() == [2.0] * 4
    assert sorted(facts.tokens[0]) == [1, 1, 2, 2, 2, 3]
    assert torch.equal(facts.hidden, torch.stack([features[0, 0], features[1, 1], features[2, 1], features[3, 0]]))


@pytest.mark.parametrize(
    ("evaluation", "methods", "of_data", "needs"),
    [
        (Artifacts(), METHODS, {"pair_columns": None}, "data whose examples are pairs of texts"),
        (Artifacts(), {"ig": METHODS["ig"]}, {}, "at least one instance method"),
        (Uniqueness(), {"ig": METHODS["ig"]}, {}, "at least one instance method"),
        (Faithfulness(), {"gradsim": METHODS["gradsim"]}, {}, "at least one neuron method"),
        (Overlap(), {"gradsim": METHODS["gradsim"]}, {}, "two instance methods"),
        (Retraining(), METHODS, {}, "a model that this run trains"),
        (Diversity(), {"random_instances": METHODS["random_instances"]}, {}, "at least one instance method"),
    ],
)
def test_what_does_not_apply_is_skipped_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluation: Any, methods: Any, of_data: Any, needs: str
) -> None:
    assert evaluate_stage(Asked(fake_session(tmp_path, **of_data), "mine", evaluation, {}, methods)) == []
    assert capsys.readouterr().out.startswith(f"mine: skipped: needs {needs}")


def test_artifacts_without_any_misprediction_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = fake_session(tmp_path)
    right = session.data.splits["test"].remove_columns("prediction").add_column("prediction", [1, 1])
    session.predictions["test"] = Predictions(right, torch.empty(0), "test")
    assert evaluate_stage(Asked(session, "artifacts", Artifacts(), {}, METHODS)) == []
    assert "mispredicted as entailment" in capsys.readouterr().out


def test_evaluations_that_read_others_come_after_them() -> None:
    ordered = evaluations_in_order({"diversity": Diversity(), "retraining": Retraining((5,)), "accuracy": Accuracy()})
    assert list(ordered) == ["retraining", "accuracy", "diversity"]
    assert ordered["diversity"].fractions == (5,)
