"""Rows of each split that a run uses: the settings `data.limit` and `data.select`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from twinlens.attribution.errors import UserError

SPLITS = ("train", "validation", "test")


class RowChoice:
    """Settings that say which rows of each split are used.

    Args:
        limit: split → number of rows, the first ones; None: all.
        select: split → row numbers of the split, applied before `limit`; None: all.

    Raises:
        UserError: a name that is no split.
    """

    def __init__(self, limit: Mapping[str, int | None], select: Mapping[str, Sequence[int] | None]) -> None:
        self.limit, self.select = dict(limit), dict(select)
        for option, split, _ in self._settings():
            if split not in SPLITS:
                raise UserError(
                    f"data.{option}.{split} names no split, expected one of {', '.join(SPLITS)}: use one of these."
                )

    def without_effect(self, name: str, present: Collection[str]) -> list[str]:
        """Say which limits are of splits that the data do not have, as `debug=fdr` sets them for all.

        Raises:
            UserError: chosen rows of such a split, naming the setting and the splits that `name` has.
        """
        for split, rows in self.select.items():
            if rows is not None and split not in present:
                raise UserError(
                    f"data.select.{split} names rows, but data={name} has only the splits {', '.join(present)}: set it "
                    "to null."
                )
        absent = [split for split, n in self.limit.items() if n is not None and split not in present]
        limits = " and ".join(f"data.limit.{split}" for split in absent)
        return [f"no effect of {limits}: there is no such split, only {', '.join(present)}"] if limits else []

    def needed(self, split: str) -> int | None:
        """The number of rows that are looked at, counted from the split's first one; None: all."""
        select, limit = self.select.get(split), self.limit.get(split)
        if select is not None:
            return max(select, default=0) + 1 if min(select, default=0) >= 0 else None
        return None if limit is None or limit < 1 else limit

    def used(self, name: str, split: str, n: int) -> list[int]:
        """The row numbers that are used, of the `n` rows of a split of the data `name`.

        Raises:
            UserError: an empty split, a selected row outside the split or named twice, a limit below 1.
        """
        if n == 0:
            raise UserError(f"The {split} split of data={name} is empty, expected at least one row: check data.path.")
        rows, select, limit = list(range(n)), self.select.get(split), self.limit.get(split)
        if select is not None:
            wrong = [row for row in select if not 0 <= row < n]
            if wrong:
                raise UserError(
                    f"data.select.{split} names row {wrong[0]}, expected rows from 0 to {n - 1}: "
                    f"the {split} split has {n} rows."
                )
            if len(set(select)) < len(select):
                twice = next(row for row in select if list(select).count(row) > 1)
                raise UserError(
                    f"data.select.{split} names row {twice} twice, expected each row once: remove one of them."
                )
            rows = list(select)
        if limit is not None and limit < 1:
            raise UserError(f"data.limit.{split}={limit}, expected at least 1: use null for the whole split.")
        return rows if limit is None else rows[:limit]

    def _settings(self) -> list[tuple[str, str, Any]]:
        """(option, split, value) of every setting."""
        settings = (("limit", self.limit), ("select", self.select))
        return [(option, split, value) for option, values in settings for split, value in values.items()]
