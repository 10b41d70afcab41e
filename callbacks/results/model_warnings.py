"""Warnings about data and model, said as soon as the splits are predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from twinlens.callbacks.passes.example_columns import FOLDED_PREDICTION
from twinlens.callbacks.results.indexed_rows import Rows, read_tokens
from twinlens.callbacks.results.run_warning import Facts, RunWarning, Values

ENOUGH = 10
"""Examples below which a pattern over all of them may be chance: for two classes, one run of 512 has ten alike."""
NORMAL_95 = 1.96
"""Standard errors on either side of a 95 % interval."""
MOST_CUT = 0.5
MOST_REPEATED = 0.2
MOST_SEEN = 0.1
MOST_CONTRADICTING = 0.02


def predicted_alike(prediction: np.ndarray, label: np.ndarray) -> int | None:
    """The class that all examples are predicted to be, where their labels do not agree as well; else None.

    Args:
        prediction: [examples].
        label: gold classes, −1 where unknown, [examples].
    """
    known = label[label >= 0]
    if len(prediction) < ENOUGH or len(np.unique(prediction)) > 1 or (len(known) and len(np.unique(known)) == 1):
        return None
    return int(prediction[0])


def no_better_than_majority(prediction: np.ndarray, label: np.ndarray) -> tuple[float, int, float] | None:
    """Accuracy, most frequent label and its share, where the accuracy is not above the share; else None.

    The two are compared example by example: said where the mean difference is within 1.96 of its standard errors.

    Args:
        prediction: [examples].
        label: gold classes, −1 where unknown, [examples].
    """
    prediction, label = prediction[label >= 0], label[label >= 0]
    if len(label) < ENOUGH:
        return None
    most = int(np.bincount(label).argmax())
    right, trivial = prediction == label, label == most
    gain = right.astype(float) - trivial
    if gain.mean() > NORMAL_95 * gain.std(ddof=1) / len(gain) ** 0.5:
        return None
    return float(right.mean()), most, float(trivial.mean())


def classes_without(label: np.ndarray, names: Mapping[int, str]) -> list[str]:
    """Names of the classes that no example is labelled with; none where no example has a label."""
    there = set(label[label >= 0].tolist())
    return [name for number, name in names.items() if number not in there] if there else []


def repeated(keys: Sequence[Hashable]) -> int:
    """How many of the texts occur more than once."""
    return sum(count for count in Counter(keys).values() if count > 1)


def contradicting(keys: Sequence[Hashable], labels: Sequence[int | None]) -> int:
    """How many of the texts occur with another label as well; those without a label contradict nothing."""
    of_text: dict[Hashable, set[int]] = {}
    for key, label in zip(keys, labels, strict=True):
        if label is not None and label >= 0:
            of_text.setdefault(key, set()).add(label)
    known = (key for key, label in zip(keys, labels, strict=True) if label is not None and label >= 0)
    return sum(len(of_text[key]) > 1 for key in known)


def _answers(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Prediction, in classes of the labels, and gold label, [examples] each."""
    name = FOLDED_PREDICTION if FOLDED_PREDICTION in rows.dataset.column_names else "prediction"
    label = np.array([-1 if cell is None else cell for cell in rows.dataset["label"][:]], dtype=np.int64)
    return rows.column(name).astype(np.int64), label


def _of_tokens(facts: Facts) -> bool:
    """Whether the model is asked for its next token, so that its classes are a vocabulary."""
    return "target_prob" in facts.files.examples(facts.files.split).dataset.column_names


def _has_train(facts: Facts) -> bool:
    return (facts.files.path / "examples" / "train").is_dir()


def _fitted(facts: Facts) -> bool:
    return facts.files.config.get("fit", True) is not False and _has_train(facts) and not _of_tokens(facts)


def _one_class(facts: Facts) -> Iterator[Values]:
    if _of_tokens(facts):
        return
    split = facts.files.split
    prediction, label = _answers(facts.files.examples(split))
    number = predicted_alike(prediction, label)
    if number is not None:
        names = facts.files.gold_names(split)
        yield {"label": names.get(number, number), "n": len(prediction), "split": split}


def _not_above_majority(facts: Facts) -> Iterator[Values]:
    if not _of_tokens(facts):
        split = facts.files.split
        prediction, label = _answers(facts.files.examples(split))
        if predicted_alike(prediction, label) is None:
            yield from _compared(facts, split, prediction, label)


def _not_learned(facts: Facts) -> Iterator[Values]:
    if _fitted(facts):
        yield from _compared(facts, "train", *_answers(facts.files.examples("train")))


def _compared(facts: Facts, split: str, prediction: np.ndarray, label: np.ndarray) -> Iterator[Values]:
    found = no_better_than_majority(prediction, label)
    if found is not None and len(facts.files.gold_names(split)) != 1:
        accuracy, most, share = found
        label_name = facts.files.gold_names(split).get(most, most)
        yield {
            "split": split,
            "accuracy": f"{accuracy:.3f}",
            "label": label_name,
            "share": f"{share:.3f}",
            "n": int((label >= 0).sum()),
        }


def _label_without_training(facts: Facts) -> Iterator[Values]:
    if _fitted(facts):
        _, label = _answers(facts.files.examples("train"))
        missing = classes_without(label, facts.files.gold_names("train"))
        if missing:
            yield {"labels": ", ".join(missing), "n": int((label >= 0).sum())}


def _no_known_answer(facts: Facts) -> Iterator[Values]:
    if _of_tokens(facts):
        prediction, label = _answers(facts.files.examples(facts.files.split))
        asked = label >= 0
        if int(asked.sum()) >= ENOUGH and not bool((prediction == label)[asked].any()):
            yield {"n": int(asked.sum()), "split": facts.files.split}


def _most_texts_cut(facts: Facts) -> Iterator[Values]:
    if facts.cut_texts > MOST_CUT * facts.n_examples:
        yield {"k": facts.cut_texts, "n": facts.n_examples}


def _repeated_train_texts(facts: Facts) -> Iterator[Values]:
    if _has_train(facts):
        keys = facts.train_tokens
        if len(keys) >= ENOUGH and (k := repeated(keys)) > MOST_REPEATED * len(keys):
            yield {"k": k, "n": len(keys)}


def _contradicting_train_labels(facts: Facts) -> Iterator[Values]:
    if _has_train(facts) and "label" in (rows := facts.files.examples("train")).dataset.column_names:
        keys = facts.train_tokens
        k = contradicting(keys, rows.dataset["label"][:])
        if len(keys) >= ENOUGH and k > MOST_CONTRADICTING * len(keys):
            yield {"k": k, "n": len(keys)}


def _tests_seen_in_train(facts: Facts) -> Iterator[Values]:
    split = facts.files.split
    if _has_train(facts) and split != "train":
        seen, asked = set(facts.train_tokens), read_tokens(facts.files.examples(split))
        k = sum(key in seen for key in asked)
        if len(asked) >= ENOUGH and k > MOST_SEEN * len(asked):
            yield {"k": k, "n": len(asked), "split": split}


MODEL_WARNINGS = (
    RunWarning(
        "one_class",
        "predict",
        "the model predicts {label} for all {n} {split} examples",
        f"every prediction of the explained split is one class, of {ENOUGH} examples or more (fewer may agree by "
        "chance) whose labels are not all one class",
        "what explains one prediction then explains all of them, whatever the text says",
        "raise trainer.max_epochs or change model.learning_rate (with fit=false see whether the classifier is of this "
        "task), and look at the balance of the labels",
        _one_class,
    ),
    RunWarning(
        "not_above_majority",
        "predict",
        "accuracy on {split} is {accuracy}, not reliably above the {share} of always answering {label} ({n} examples)",
        f"the gain over the most frequent label, example by example, is within {NORMAL_95} of its standard errors (95 "
        f"%), of {ENOUGH} labelled examples or more",
        "a model that has not learned the task has no reasons for its answers that could be found",
        "train longer, explain more examples, or check that the order of the labels is the model's",
        _not_above_majority,
    ),
    RunWarning(
        "not_learned",
        "predict",
        "after the fit, accuracy on {split} is {accuracy}, not reliably above the {share} of always answering "
        "{label} ({n} examples)",
        "as the line above, for the examples that the model was trained on",
        "the fit has failed: influence and gradients are those of a model that does not know its own training set",
        "raise trainer.max_epochs, or change model.learning_rate",
        _not_learned,
    ),
    RunWarning(
        "label_without_training",
        "predict",
        "no train example has the label {labels} ({n} have another)",
        "a class of the model is the label of no train example, after a fit",
        "the model cannot learn this class, and no training instance speaks for it",
        "give a train split with every label",
        _label_without_training,
    ),
    RunWarning(
        "no_known_answer",
        "predict",
        "the model's next token is the answer to none of the {n} {split} prompts",
        f"no answer ranks first, of {ENOUGH} prompts with an answer or more",
        "neurons that raise an answer which the model does not give carry no knowledge",
        "check that prompts end where the answer begins, or use another model",
        _no_known_answer,
    ),
    RunWarning(
        "most_texts_cut",
        "predict",
        "{k} of {n} texts are cut at the longest length",
        f"more than {MOST_CUT:.0%} of all splits' texts are cut: the usual text is then not read whole",
        "what was cut can neither be predicted from nor attributed to",
        "raise data.max_length",
        _most_texts_cut,
    ),
    RunWarning(
        "repeated_train_texts",
        "predict",
        "{k} of {n} train examples read the same tokens as another one",
        f"more than {MOST_REPEATED:.0%} of the train split, of {ENOUGH} or more: lists of ten then hold two copies",
        "copies share their place in every list, so that the lists show fewer texts than they seem to",
        "remove the copies, or look at the evaluation uniqueness before counting instances",
        _repeated_train_texts,
    ),
    RunWarning(
        "contradicting_train_labels",
        "predict",
        "{k} of {n} train examples read the same tokens as one with another label",
        f"more than {MOST_CONTRADICTING:.0%} of the train split, of {ENOUGH} or more",
        "no model can be right on both, and what one of them speaks for the other speaks against",
        "look at these rows, and mend their labels or raise data.max_length where texts differ behind the cut",
        _contradicting_train_labels,
    ),
    RunWarning(
        "tests_seen_in_train",
        "predict",
        "{k} of {n} {split} examples read the same tokens as a train example",
        f"more than {MOST_SEEN:.0%} of the explained split, of {ENOUGH} examples or more: more than its usual error",
        "accuracy then measures memory, and the copy stands on top of every list",
        "remove these examples from one of the two splits",
        _tests_seen_in_train,
    ),
)
"""In the order in which they are said."""
