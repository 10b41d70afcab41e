"""Readouts, one class each: what turns a hidden state into scores of classes, of choices, or of the next token.

Data say in `readout` which one their labels number, engines which one their scores are of; all else asks the object.
A leaf: `models`, `data` and `callbacks` import it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor


class ReadoutKind:
    """A kind of readout; what is said here is that of classes.

    Attributes:
        name: the word for it, in data, engines and the column `readout`.
        of_vocabulary: scores number the tokens of a vocabulary, so that a model brings its own head.
        of_sequences: an example has several sequences, each with a score of its own.
        model: what a model with it is called.

    Example:
        >>> import torch
        >>> from twinlens.attribution.readouts import READOUTS, ReadoutKind
        >>> readout: ReadoutKind = READOUTS["classification"]
        >>> readout.outputs(["negative", "positive"]), readout.shown(1, ["negative", "positive"], None)
        (2, 'positive')
        >>> readout.explained(label=torch.tensor([0]), prediction=torch.tensor([1]))
        tensor([1])
    """

    name: ClassVar[str] = "classification"
    of_vocabulary: ClassVar[bool] = False
    of_sequences: ClassVar[bool] = False
    model: ClassVar[str] = "classifier"

    def sequences(self, n_choices: int | None) -> int:
        """Sequences of an example."""
        return 1

    def fits(self, splits: Any) -> bool:
        """Whether data with these splits have something for a model to be fitted on."""
        return True

    def outputs(self, label_names: Sequence[str]) -> int | None:
        """Scores of an example; None: as many as the model's own head gives."""
        return len(label_names)

    def arguments(
        self, label_names: Sequence[str], n_choices: int | None, choices: str, reads: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the class that wraps the model is told of data and run; `reads`: the form of the texts."""
        return {"label_names": list(label_names), "n_choices": n_choices, "choices": choices, "reads": dict(reads)}

    def explained(self, label: Tensor, prediction: Tensor) -> Tensor:
        """What is explained where nobody says, [examples]."""
        return prediction

    def labels(self, label: Tensor, prediction: Tensor) -> Tensor:
        """The labels that gold losses are of, [examples]; −1: none."""
        return label

    def has_text_losses(self, split: str) -> bool:
        """Whether a row of the split has the losses of a whole text, as in training, and not that of its label."""
        return False

    def shown(self, output: int, label_names: Sequence[str], tokenizer: Any) -> str:
        """What an output is called."""
        return label_names[output]


class ChoiceReadout(ReadoutKind):
    """One score per choice of a question, softmax over the choices.

    Example:
        >>> from twinlens.attribution.readouts import ChoiceReadout, choice_names
        >>> readout = ChoiceReadout()
        >>> readout.sequences(n_choices=4), readout.shown(2, choice_names(4), None)
        (4, 'C')
    """

    name = "choice"
    of_sequences = True

    def sequences(self, n_choices: int | None) -> int:
        """One for each choice."""
        assert n_choices is not None, "data with choices say how many"
        return n_choices


class TokenReadout(ReadoutKind):
    """The next token of a language model, whose labels are the first tokens of answers.

    Example:
        >>> import torch
        >>> from twinlens.attribution.readouts import TokenReadout
        >>> readout = TokenReadout()
        >>> readout.of_vocabulary
        True
        >>> readout.explained(label=torch.tensor([7, -1]), prediction=torch.tensor([3, 5]))  # the second has no answer
        tensor([7, 5])
    """

    name = "token"
    of_vocabulary = True
    model = "language model"

    def fits(self, splits: Any) -> bool:
        """Prompts alone are asked, not learned from."""
        return "train" in splits

    def outputs(self, label_names: Sequence[str]) -> None:
        """The vocabulary."""
        return None

    def arguments(
        self, label_names: Sequence[str], n_choices: int | None, choices: str, reads: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Nothing: the model has its own outputs."""
        return {}

    def explained(self, label: Tensor, prediction: Tensor) -> Tensor:
        """The answer's token where there is one."""
        return torch.where(label < 0, prediction, label)

    def labels(self, label: Tensor, prediction: Tensor) -> Tensor:
        """Of a prompt without answer the predicted token."""
        return torch.where(label < 0, prediction, label)

    def has_text_losses(self, split: str) -> bool:
        """Those of the train split."""
        return split == "train"

    def shown(self, output: int, label_names: Sequence[str], tokenizer: Any) -> str:
        """The token as it is written."""
        return str(tokenizer.decode([output]))


READOUTS: dict[str, ReadoutKind] = {kind.name: kind for kind in (ReadoutKind(), ChoiceReadout(), TokenReadout())}


def choice_names(n_choices: int) -> list[str]:
    """A, B, C …, the label names of questions with that many choices."""
    return [chr(ord("A") + number) for number in range(n_choices)]
