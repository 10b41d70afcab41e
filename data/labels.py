"""Class numbers of the label values in files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed, quoted
from twinlens.data.file_readers import FileRows

NO_LABEL = -1
"""In files and in prepared splits: unlabelled."""
NOTHING_SAID = {"", "nan", "null", "none", "na", "n/a", "<na>"}
"""What stands, in lower case, for no label beside class numbers."""
MOST_IN_LABEL = 500
"""Characters of a label."""
MANY_CLASSES = 20
"""Classes of which a row or two each are no accident of a small file."""
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0)?")
_DIGITS = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Fold:
    """Labels coarser than the model's classes, as in a challenge set whose "non-entailment" joins two of three classes.

    Attributes:
        names: names of the folded classes.
        of_class: the folded class of each of the model's classes, [classes]; every folded class has one at least.
    """

    names: tuple[str, ...]
    of_class: tuple[int, ...]

    def __post_init__(self) -> None:
        if set(self.of_class) != set(range(len(self.names))):
            raise ValueError(f"of_class={self.of_class} does not map onto the classes {self.names}")


@dataclass
class LabelValues:
    """The different label values of some rows, as they are written, for `class_names`.

    Attributes:
        found: (type, writing) → value.
        n_rows: how many rows have a value.
    """

    found: dict[tuple[type, str], Any] = field(default_factory=dict)
    n_rows: int = 0

    def add(self, value: Any, where: Callable[[], str]) -> None:
        """Note the value of one row; `where` names its place.

        Raises:
            UserError: no label, see `check_label`.
        """
        if is_empty(value):
            return
        key = (type(value), str(value))
        if key not in self.found:
            check_label(where(), value)
            self.found[key] = value
        self.n_rows += 1

    @property
    def values(self) -> list[Any]:
        """Each writing once, no empty ones, in the order of the rows."""
        return list(self.found.values())


def is_empty(value: Any) -> bool:
    """Whether a cell says nothing: null, NaN or blank text."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def whole_number(value: Any) -> int | None:
    """The whole number that a value is or spells (`1`, `1.0`, `"1"`, `"1.0"`); None if none, as of `"01"` or true."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else None
    spelled = _WHOLE.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(spelled[1]) if spelled else None


def truth(value: Any) -> bool | None:
    """The truth value that a value is or spells, `true`, `True` and `TRUE` alike; None if none."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def says_no_label(value: Any, names: Sequence[str]) -> bool:
    """Whether a value stands for "no label": −1 unless it is a class, and beside class numbers also null and NaN."""
    if whole_number(value) == NO_LABEL:
        return str(NO_LABEL) not in names
    spelled = all(whole_number(name) is not None or truth(name) is not None for name in names)
    if not names or not (spelled or numbers_alone(names)):
        return False
    return is_empty(value) or (isinstance(value, str) and value.strip().lower() in NOTHING_SAID)


def may_say_no_label(value: Any) -> bool:
    """Whether a value could stand for "no label", whatever the classes turn out to be."""
    return (
        is_empty(value)
        or whole_number(value) == NO_LABEL
        or (isinstance(value, str) and value.strip().lower() in NOTHING_SAID)
    )


def class_names(values: Sequence[Any]) -> list[str]:
    """The classes among label values: numbers in their order, names sorted; −1 is none of at least three.

    Args:
        values: not empty, each writing once.
    """
    said = [value for value in values if not (isinstance(value, str) and value.strip().lower() in NOTHING_SAID)]
    numbers = [number for value in said if (number := whole_number(value)) is not None]
    if said and len(numbers) == len(said):
        others = set(numbers) - {NO_LABEL}
        # −1 and 1 are two classes, −2 … 2 are ratings; but 0, 1 and −1 are two classes and no label
        unlabelled = not others or (min(others) >= 0 and len(others) >= 2)
        return [str(number) for number in sorted(others if unlabelled else set(numbers))]
    if said and all(truth(value) is not None for value in said):
        writings = {truth(value): label_name(value) for value in said}
        if len({label_name(value) for value in said}) == len(writings):
            return sorted(writings.values())
        return [str(answer) for answer in sorted({truth(value) for value in said})]  # type: ignore[type-var]
    names = {label_name(value) for value in values if whole_number(value) != NO_LABEL}
    if len(names) < 2:
        names = {label_name(value) for value in values}
    if all(_DIGITS.fullmatch(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))  # 2 before 10
    return sorted(names)


def class_number(value: Any, names: Sequence[str]) -> int | None:
    """The number of a label's class: by its name, or by the number or truth value that both spell; None if unknown.

    Names that only number the classes (LABEL_0, LABEL_1 …) are spelled by the numbers.
    """
    if (name := label_name(value)) in names:
        return list(names).index(name)
    if numbers_alone(names):
        number = whole_number(value)
        return number if number is not None and 0 <= number < len(names) else None
    for spelled in (whole_number, truth):
        wanted = spelled(value)
        same = [number for number, known in enumerate(names) if wanted is not None and spelled(known) == wanted]
        if len(same) == 1:
            return same[0]
    return None


def refuse_doubtful_classes(names: Sequence[str], n_rows: int, column: str) -> None:
    """Refuse classes that no file was meant to have, unless `data.label_names` lists them.

    Args:
        names: the classes that were found.
        n_rows: rows with a label.
        column: that they stand in, and its file.

    Raises:
        UserError: one class alone, two that differ in case or spaces only, or a class for every row or two.
    """
    if len(names) == 1:
        raise UserError(
            f"{column} holds one class, {quoted(names[0])}, in all {n_rows} rows with a label; expected at "
            "least two: name another column in data.label, or set data.label=null."
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    if several := next((found for found in alike.values() if len(found) > 1), None):
        raise UserError(
            f"{column} holds the labels {' and '.join(map(quoted, several))}, which differ in case or "
            "spaces only; expected one writing of each class: write them alike, or list all classes in "
            "data.label_names."
        )
    if len(names) > MANY_CLASSES and 2 * len(names) > n_rows:
        raise UserError(
            f"{column} holds {len(names)} classes in {n_rows} rows, {quoted(names[0])}, {quoted(names[1])} "
            "…; expected classes that rows share, no numbers to be predicted and no ids: name another column in "
            "data.label, or list all classes in data.label_names."
        )


def merged_labels(values: Sequence[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    """class → its writings, of the classes that are written in several ways."""
    writings: dict[str, list[Any]] = {}
    for value in values:
        number = class_number(value, names)
        if number is not None:
            writings.setdefault(names[number], []).append(value)
    return {name: several for name, several in writings.items() if len(several) > 1}


def check_label(where: str, value: Any) -> None:
    """Refuse what is no label: lists, dates, texts of pages, digits that only look like numbers.

    Raises:
        UserError: naming the place.
    """
    if is_empty(value):
        return
    if not isinstance(value, str | int | float | Decimal) or value in (float("inf"), float("-inf")):
        raise UserError(
            f"{where} has the label {quoted(value)} of the type {type(value).__name__}, expected text or a number: "
            "write it as one of these, or name another column in data.label."
        )
    name = label_name(value)
    if len(name) > MOST_IN_LABEL:
        raise UserError(
            f"{where} has a label of {len(name)} characters, expected at most {MOST_IN_LABEL}: check that data.label "
            "names the label's column."
        )
    if name.lstrip("-").isdigit() and not name.lstrip("-").isdecimal():
        raise UserError(
            f"{where} has the label {name!r}, whose digits are no digits of a number, expected a class number or a "
            "name: write it with the digits 0 to 9."
        )


def label_numbers(
    source: str | FileRows, rows: Sequence[int], values: Sequence[Any], names: Sequence[str], allow_empty: bool = False
) -> list[int]:
    """Class numbers of label values.

    Args:
        source: the file, or its rows, for the message.
        rows: row of each value in its source, [values].
        values: names out of `names`, or what spells the same number or truth value, [values].
        names: the known labels, in class order; where they only number the classes (LABEL_0, LABEL_1 …) the numbers
            themselves are labels as well.
        allow_empty: turn values that say nothing, and −1 where it is no class, into -1.

    Raises:
        UserError: a value that is no known label, with its row and the known labels.
    """
    numbers = []
    known: dict[tuple[type, str], int | None] = {}
    for row, value in zip(rows, values, strict=True):
        if allow_empty and (is_empty(value) or says_no_label(value, names)):
            numbers.append(NO_LABEL)
            continue
        where = f"{source} row {row}" if isinstance(source, str) else source.where(row)
        check_label(where, value)
        key = (type(value), str(value))
        if key not in known:
            known[key] = None if is_empty(value) else class_number(value, names)
        number = known[key]
        if number is None:
            what = "an empty label" if is_empty(value) else f"the unknown label {quoted(value)}"
            remedy = "mend the row or leave it out." if is_empty(value) else _remedy(names, values)
            raise UserError(f"{where} has {what}, expected one of {listed(names)}: {remedy}")
        numbers.append(number)
    return numbers


def numbers_alone(names: Sequence[str]) -> bool:
    """Whether names say nothing but the number of their class, as transformers makes them up: LABEL_0, LABEL_1 …"""
    return bool(names) and all(name == f"LABEL_{number}" for number, name in enumerate(names))


def _remedy(names: Sequence[str], values: Sequence[Any]) -> str:
    """What to do about an unknown label."""
    found = sorted({label_name(value) for value in values if not is_empty(value)})
    if not numbers_alone(names) or len(found) != len(names):
        return "mend the row, or give all labels in class order with data.label_names."
    return (
        f"the checkpoint names none of its classes, so say which is which with data.label_names=[{','.join(found)}], "
        "in the order of the checkpoint's classes."
    )


def label_name(value: Any) -> str:
    """The name of a label value; whole numbers that a reader turned into floats are written as whole numbers."""
    if isinstance(value, float | Decimal) and whole_number(value) is not None:
        value = whole_number(value)
    return str(value).strip()


def parted_by_label(values: Iterable[Any], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """The rows whose value is to name a class, and those whose value says that there is none, in their order."""
    without = [says_no_label(value, names) for value in values]
    return [row for row, no in enumerate(without) if not no], [row for row, no in enumerate(without) if no]


def say_unlabelled(split: str, numbers: Sequence[int], notes: Notes) -> None:
    """Say how many of a split's rows have no label, where there are any."""
    if unlabelled := list(numbers).count(NO_LABEL):
        notes.say(f"{split}: {unlabelled} of {len(numbers)} rows have no label")
