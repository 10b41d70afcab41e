"""Target of a run, read from `explain` and `explain_against`: words for each lens, then outputs of each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from twinlens.attribution.completions import Completions
from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Lens
from twinlens.attribution.readouts import ReadoutKind
from twinlens.attribution.targets import Targets
from twinlens.callbacks.passes.example_columns import RUNNER_UP

TargetWord = Literal["predicted", "gold", "answer", "completion"]
AgainstWord = Literal["runner_up", "predicted", "gold", "foil"]
COMPLETION: Literal["completion"] = "completion"
FOIL: Literal["foil"] = "foil"
LENSES: tuple[Lens, ...] = get_args(Lens)
CLASS = "class:"
"""Before the name of a class that is also one of the words."""
WORD = "word:"
"""Before one of the words that is also the name of a class."""


@dataclass(frozen=True)
class Asked:
    """What one lens explains, for all examples of a split.

    Attributes:
        target: `predicted`, `gold`, `answer` (gold where there is one, else predicted), `completion` (all tokens that
            follow, of a prompt without any the predicted one), or the number of an output.
        against: what the target is set apart from: `runner_up` (the likeliest other output), `predicted`, `gold`,
            `foil` (another completion), or the number of an output; None: nothing.
        target_name, against_name: the same in words, outputs by their names.
        labelled: whether every example has to have a label, beside those whose target or against is one.
    """

    target: TargetWord | int = "predicted"
    against: AgainstWord | int | None = None
    target_name: str = "predicted"
    against_name: str = ""
    labelled: bool = False

    @property
    def told(self) -> str:
        """In words, for results and messages."""
        return self.target_name + (f" against {self.against_name}" if self.against is not None else "")

    @property
    def identity(self) -> dict[str, Any]:
        """What scores depend on, plain values."""
        return {"target": self.target, **({} if self.against is None else {"against": self.against})}

    @property
    def described(self) -> dict[str, str]:
        """For method.yaml."""
        return {"target": self.target_name, **({} if self.against is None else {"target_against": self.against_name})}

    @property
    def needs_labels(self) -> bool:
        """Whether every example has to have a label."""
        return self.labelled or "gold" in (self.target, self.against)


@dataclass(frozen=True)
class Explain:
    """What a run explains, by lens."""

    instance: Asked = Asked()
    neuron: Asked = Asked()

    def of(self, lens: Lens) -> Asked:
        """Of a lens."""
        return self.instance if lens == "instance" else self.neuron


@dataclass(frozen=True)
class Names:
    """Names of what can be explained.

    Attributes:
        readout: of the data.
        labels: names of classes or choices; empty for a vocabulary.
        tokenizer: of the model; read for a vocabulary alone.
        completions: whether what follows a prompt is explained whole, and not its first token alone.
    """

    readout: ReadoutKind
    labels: Sequence[str]
    tokenizer: Any
    completions: bool = False

    @property
    def known(self) -> str:
        """What can be named, for messages."""
        if self.readout.of_vocabulary:
            return 'a token as it is written (" Paris") or its number'
        return f"one of {', '.join(self.labels)}"

    def number(self, setting: str, value: str | int) -> int:
        """The output that is meant.

        Raises:
            UserError: no output has that name.
        """
        if self.readout.of_vocabulary:
            return self._token(setting, value)
        name = str(value).removeprefix(CLASS)
        if name in self.labels:
            return list(self.labels).index(name)
        raise UserError(
            f"{setting}={value} names no {'choice' if self.readout.of_sequences else 'class'} of the data; expected "
            f"predicted, gold or {self.known}: write one of these."
        )

    def _token(self, setting: str, value: str | int) -> int:
        if isinstance(value, int):
            if 0 <= value < len(self.tokenizer):
                return value
            raise UserError(
                f"{setting}={value} is no token: the vocabulary has the numbers 0 to {len(self.tokenizer) - 1}; "
                "expected one of these, or the token as it is written: correct it."
            )
        text = value.removeprefix(CLASS)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) == 1:
            return int(ids[0])
        pieces = ", ".join(repr(self.tokenizer.decode([number])) for number in ids) or "none"
        raise UserError(
            f"{setting}={text!r} is {len(ids)} tokens ({pieces}), and one token is explained; expected predicted, "
            f"gold, answer, or {self.known}: name one token."
        )


def read_explain(explain: Any, against: Any, names: Names) -> Explain:
    """What the settings `explain` and `explain_against` ask for.

    Args:
        explain: a word, a class or a token; or one of these for each lens.
        against: a word, a class or a token; None: nothing.

    Raises:
        UserError: what cannot be explained of these data, with what can.
    """
    if isinstance(explain, Mapping):
        unknown = [str(lens) for lens in explain if lens not in LENSES]
        if unknown or set(explain) != set(LENSES):
            raise UserError(
                f"explain={dict(explain)} has the lenses {', '.join(map(str, explain)) or 'none'}; expected both of "
                f"{' and '.join(LENSES)}, or one word for both: write e.g. "
                "explain='{instance: gold, neuron: predicted}'."
            )
        return Explain(
            **{str(lens): _asked(f"explain.{lens}", value, against, names) for lens, value in explain.items()}
        )
    asked = _asked("explain", explain, against, names)
    return Explain(asked, asked)


def resolve(asked: Asked, column: Any, fold: Tensor | None, readout: ReadoutKind, rows: Any = None) -> Targets:
    """Outputs of a split's examples.

    Args:
        asked: of a lens.
        column: gives a column of the split's predictions, [examples, …].
        fold: class → folded class of the split's labels, [classes]; None: labels are the model's classes.
        rows: the split's predictions as a dataset, read for completions.
    """
    target = _outputs(asked.target, column, readout)
    folded = fold if asked.target == "gold" else None
    if asked.target == COMPLETION:
        found = completions_of(rows, target, asked.against == FOIL)
        foil = None if found.foils is None else torch.tensor([ids[0] for ids in found.foils], dtype=torch.int64)
        return Targets(target, foil, None, found)
    if asked.against is None:
        return Targets(target, None, folded)
    if asked.against == RUNNER_UP:
        return Targets(target, _runner_up(target, column, readout))
    return Targets(target, _outputs(asked.against, column, readout))


def completions_of(rows: Any, first: Tensor, foils: bool) -> Completions:
    """Tokens of what follows each prompt of a predicted split; of one without a completion the token `first`.

    Args:
        rows: with `answer_ids`, and with `foil_ids` where foils are asked for.
        first: [examples].
        foils: whether completions are set apart from them; a row without one, as documents are, has the same token.
    """
    names = rows.column_names
    given = rows["answer_ids"][:] if "answer_ids" in names else [[]] * len(first)
    tokens = [list(ids) or [token] for ids, token in zip(given, first.tolist(), strict=True)]
    if not foils:
        return Completions(tokens)
    others = rows["foil_ids"][:] if "foil_ids" in names else [[]] * len(first)
    return Completions(tokens, [list(ids) or own for ids, own in zip(others, tokens, strict=True)])


def _asked(setting: str, value: Any, against: Any, names: Names) -> Asked:
    target = _word_or_number(setting, value, get_args(TargetWord), names)
    if target == "answer" and not names.readout.of_vocabulary:
        raise UserError(
            f"{setting}=answer is for data that ask for the next token, and these have {', '.join(names.labels)}; "
            "expected predicted, gold or a class: write gold for each example's label."
        )
    apart = None if against is None else _word_or_number("explain_against", against, get_args(AgainstWord), names)
    if names.completions and not isinstance(target, int):
        return _completion(setting, value, apart, labelled=target == "gold")
    if target == COMPLETION or apart == FOIL:
        said = f"{setting}={value}" if target == COMPLETION else f"explain_against={against}"
        raise UserError(
            f"{said} asks for whole completions, and these data have none; expected data=texts, or data=knowledge with "
            "data.answer=full: choose one of these or write another target."
        )
    if apart == target:
        raise UserError(
            f"{setting}={value} and explain_against={against} are the same, so that nothing is left to explain; "
            "expected two that differ: set explain_against=runner_up, another class, or null."
        )
    if apart is not None and not names.readout.of_vocabulary and len(names.labels) < 2:
        raise UserError(
            f"explain_against={against} needs another output than the target, and the data have {len(names.labels)}; "
            "expected two or more: set explain_against=null."
        )
    return Asked(target, apart, _name(value), "" if against is None else _name(against))


def _completion(setting: str, value: Any, apart: Any, labelled: bool) -> Asked:
    """What the words for a prompt's answer mean where completions are explained whole."""
    if apart is not None and apart != FOIL:
        raise UserError(
            f"explain_against={apart} is one token, and {setting}={value} explains a completion of these data, all of "
            "its tokens together; expected another completion: set explain_against=foil with a foil in every query, "
            "or null."
        )
    return Asked(COMPLETION, apart, COMPLETION, FOIL if apart else "", labelled)


def _word_or_number(setting: str, value: Any, words: Sequence[str], names: Names) -> Any:
    if value is None or isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        said = "null" if value is None else value
        raise UserError(
            f"{setting}={said!r} says nothing that can be explained; expected {', '.join(words)} or {names.known}: "
            f"write e.g. {setting}={words[0]}."
        )
    if value in words and value in names.labels:
        raise UserError(
            f"{setting}={value} is a word of its own and the name of a class of these data; expected no doubt: write "
            f"{setting}={CLASS}{value} for the class, {setting}={WORD}{value} for the word."
        )
    word = value.removeprefix(WORD) if isinstance(value, str) else value
    return word if word in words else names.number(setting, value)


def _name(value: str | int) -> str:
    return str(value).removeprefix(CLASS).removeprefix(WORD)


def _outputs(asked: str | int, column: Any, readout: ReadoutKind) -> Tensor:
    predicted: Tensor = column("prediction")
    if asked == "predicted":
        return predicted
    if asked == "gold":
        return column("label")
    if asked == "answer":
        return readout.explained(column("label"), predicted)
    if asked == COMPLETION:  # its first token
        return readout.explained(column("label"), predicted)
    return torch.full_like(predicted, int(asked))


def _runner_up(target: Tensor, column: Any, readout: ReadoutKind) -> Tensor:
    """The likeliest output that is not the target, [examples]."""
    if readout.of_vocabulary:
        predicted = column("prediction")
        return torch.where(predicted == target, column(RUNNER_UP), predicted)
    prob: Tensor = column("prob").clone()
    return prob.scatter(1, target[:, None], -1.0).argmax(1)
