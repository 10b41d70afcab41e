"""Inputs of instance methods that stand in a row: head inputs, those of kept checkpoints, texts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class HeadInputs:
    """One split, as instance attribution over the head reads it.

    Attributes:
        features: head input at the answer position, [examples, hidden], or [examples, choices, hidden] for multiple
            choice, where an example's logits are the head's outputs on all its sequences, [examples, classes].
        labels: class whose loss is differentiated, [examples], int64; a folded class where there is a `fold`. Of a test
            it is what is explained: its loss is −φ of `twinlens.attribution.targets.Targets`.
        head: the classification head, [..., hidden] → [..., outputs]; `nn.Linear` layers with element-wise functions
            between them.
        fold: class → folded class, [classes], int64. With it the loss is −log Σ p_c over the classes c of the label.
        against: of tests, the class whose loss is taken off the label's, [examples], int64; None: none is.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.inputs import HeadInputs
        >>> inputs = HeadInputs(torch.randn(5, 8), torch.tensor([0, 2, 1, 0, 2]), torch.nn.Linear(8, 3))
        >>> len(inputs), inputs.sequences
        (5, 1)
        >>> inputs.rows(1, 3).labels, inputs.at(torch.tensor([4, 0])).labels
        (tensor([2, 1]), tensor([2, 0]))
    """

    features: Tensor
    labels: Tensor
    head: nn.Module
    fold: Tensor | None = None
    against: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    @property
    def sequences(self) -> int:
        """Sequences per example: 1, or the number of choices."""
        return self.features.shape[1] if self.features.dim() == 3 else 1

    def rows(self, start: int, stop: int) -> HeadInputs:
        """A contiguous part of the examples."""
        against = None if self.against is None else self.against[start:stop]
        return HeadInputs(self.features[start:stop], self.labels[start:stop], self.head, self.fold, against)

    def at(self, index: Tensor) -> HeadInputs:
        """The examples with the row numbers `index`, [rows]."""
        features, own = self.features[index.to(self.features.device)], index.to(self.labels.device)
        against = None if self.against is None else self.against[own]
        return HeadInputs(features, self.labels[own], self.head, self.fold, against)


@dataclass(frozen=True)
class CheckpointInputs:
    """One split, as instance attribution along the training reads it.

    Attributes:
        steps: the split's head inputs under each kept checkpoint, in the order of training, with the learning rate
            that the checkpoint was reached with. All have the same examples.

    Example:
        >>> from twinlens.attribution.example_models import example_head_inputs
        >>> from twinlens.attribution.instance.inputs import CheckpointInputs
        >>> train, _ = example_head_inputs()
        >>> inputs = CheckpointInputs(((train, 1e-3), (train, 5e-4)))  # two epochs, each with its learning rate
        >>> len(inputs), len(inputs.rows(0, 2))
        (4, 2)
    """

    steps: tuple[tuple[HeadInputs, float], ...]

    def __len__(self) -> int:
        return len(self.steps[0][0])

    def rows(self, start: int, stop: int) -> CheckpointInputs:
        """A contiguous part of the examples."""
        return CheckpointInputs(tuple((inputs.rows(start, stop), rate) for inputs, rate in self.steps))


@dataclass(frozen=True)
class TextInputs:
    """One split, as lexical instance attribution reads it.

    Attributes:
        texts: the text of each example; one whole question with its choices for multiple choice.

    Example:
        >>> from twinlens.attribution.instance.inputs import TextInputs
        >>> inputs = TextInputs(["one", "two", "three"])
        >>> len(inputs), inputs.rows(1, 3).texts
        (3, ['two', 'three'])
    """

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> TextInputs:
        """A contiguous part of the examples."""
        return TextInputs(self.texts[start:stop])
