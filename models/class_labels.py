"""The classes that a checkpoint's config.json names, and the kind of problem that its head answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from twinlens.attribution.errors import UserError
from twinlens.models.checkpoint_files import readable, resolve
from twinlens.models.heads import head_of

ONE_LABEL = "single_label_classification"
"""transformers' name of the only problem whose probabilities are a softmax over the classes."""


def refuse_unreadable_labels(path: str) -> None:
    """Refuse an `id2label` in config.json that is no map from class numbers to names, or of another number of classes
    than `num_labels`: transformers would fill in names of its own.

    Raises:
        UserError: naming what stands there, or a config.json that cannot be read.
    """
    with readable(path):
        written: Any = PretrainedConfig.get_config_dict(resolve(path))[0]
        names, told = written.get("id2label"), written.get("num_labels")
    if names is None:
        return
    if not isinstance(names, Mapping) or not all(str(number).strip().lstrip("-").isdecimal() for number in names):
        raise UserError(
            f"model.path={path}: id2label in config.json is {str(names)[:80]}, expected the number of each class and "
            'its name, as in {"0": "no", "1": "yes"}: mend config.json.'
        )

    if told is not None and told != len(names):
        raise UserError(
            f"model.path={path}: config.json says num_labels={told}, but id2label names {len(names)} classes; expected "
            "as many: mend config.json."
        )


def trained_labels(config: PretrainedConfig, path: str) -> list[str]:
    """Label names of a trained head with one label per text, or the one name of a score per sequence.

    Raises:
        UserError: a head of another `problem_type`, or classes whose numbers and names do not pair up.
    """
    problem = getattr(config, "problem_type", None)
    if problem not in (None, ONE_LABEL):
        reading = {
            "multi_label_classification": "gives every class a probability of its own (a sigmoid each)",
            "regression": "gives numbers, no probabilities",
        }.get(str(problem), "is of a kind that transformers does not know")
        raise UserError(
            f"the classifier in model.path={path} {reading}: problem_type={problem} in config.json; expected "
            f"{ONE_LABEL}, one label per text with a softmax over the classes: choose such a classifier, or train it "
            "on these data (fit=true)."
        )
    names: Any = config.id2label
    numbers = sorted(names)
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"model.path={path}: id2label in config.json numbers its {len(numbers)} classes "
            f"{', '.join(map(str, numbers))}, expected 0 to {len(numbers) - 1}, the rows of the head: mend id2label "
            "(and label2id) in config.json."
        )
    labels = ["" if names[number] is None else str(names[number]).strip() for number in numbers]
    repeated = next((label for label in labels if labels.count(label) > 1 or not label), None)
    if repeated is not None:
        raise UserError(
            f"model.path={path}: id2label in config.json has "
            f"{f'{repeated!r} twice' if repeated else 'an empty name'} among its classes, expected a name of its own "
            "for each: mend id2label in config.json."
        )
    _refuse_contradiction(config.label2id, labels, path)
    return labels


def _refuse_contradiction(numbers: Any, labels: list[str], path: str) -> None:
    """A label2id that gives one of the names another number; one left over from other names says nothing."""
    for name, number in numbers.items() if isinstance(numbers, Mapping) else ():
        if name in labels and str(number) != str(labels.index(name)):
            raise UserError(
                f"model.path={path}: in config.json id2label calls class {labels.index(name)} {name!r}, but label2id "
                f"gives that name the number {number}; expected the same pairs in both: mend config.json."
            )


def require_trained_classifier(config: PretrainedConfig, path: str) -> list[str]:
    """Label names of a checkpoint that is used as it is (fit=false), in the order of its head.

    Raises:
        UserError: it has no head, one for another problem than one label per text, or classes that are not numbered.
    """
    if head_of(config) is None:
        raise UserError(
            f"fit=false uses the classifier in model.path={path} as it is, but its architecture "
            f"({', '.join(config.architectures or ['unknown'])}) has no classification head; expected "
            "…ForSequenceClassification: train it first (fit=true) or point model.path to a trained classifier."
        )
    return trained_labels(config, path)
