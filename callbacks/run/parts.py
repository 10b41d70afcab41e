"""Everything a run is made of, built before its first stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method
from twinlens.callbacks.attribute.dispatch import form_of
from twinlens.callbacks.fit.stage import MakeModel


@dataclass(frozen=True)
class Parts:
    """What the configuration describes, built or ready to be built.

    Attributes:
        settings: the whole configuration as plain values.
        make_model: builds the classifier or language model; keyword `path` replaces the checkpoint.
        make_callbacks: builds the callbacks of the fit.
        methods, evaluations: by name.
        loggers: of the fit and the final results.
    """

    settings: Mapping[str, Any]
    make_model: MakeModel
    make_callbacks: Callable[[], list[Callback]]
    methods: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    loggers: Sequence[Logger]


def splits_needed(splits: Mapping[str, Any], explained: str, methods: Mapping[str, Any]) -> list[str]:
    """Splits to predict: the explained one, validation for its accuracy, train for instance methods and bridges.

    Raises:
        UserError: a split that the data do not have.
    """
    need_train = [name for name, method in methods.items() if needs_train(method)]
    for split, reason in ((explained, f"attribute_split={explained}"), ("train", f"method={need_train}")):
        if split not in splits and (split != "train" or need_train):
            raise UserError(
                f"{reason} needs a {split} split, but the data have only {', '.join(splits)}; expected that split: "
                "add it to data.path or choose otherwise."
            )
    wanted = ["train"] if need_train else []
    wanted += [explained, *(["validation"] if "validation" in splits else [])]
    return list(dict.fromkeys(wanted))


def needs_train(method: Method) -> bool:
    """Whether a method reads the train split, itself or through the lists of another."""
    return form_of(method).needs_train or any(source.of_train for source in method.sources)


def keeps_epochs(methods: Mapping[str, Any]) -> bool:
    """Whether a method reads the weights of every epoch of the fit."""
    return any(form_of(method).needs_epochs for method in methods.values())
