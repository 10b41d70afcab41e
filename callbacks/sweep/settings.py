"""Settings of a sweep's jobs: which jobs are seeds of one, and how a setting is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.sweep.jobs import Job


@dataclass(frozen=True)
class Setting:
    """Jobs that differ in nothing but the seed, the methods and the evaluations.

    Attributes:
        model, data: their names.
        swept: what else was swept, `key=value; …`.
    """

    model: str
    data: str
    swept: str

    def told(self, among: Sequence[Setting]) -> str:
        """What it is called where it has to be told from others; all of it where there are none.

        A key stands by its last part where no other one ends so: `damping=0.1` for `method.influence.damping=0.1`.
        """
        parts = [("model", self.model), ("data", self.data), ("swept", self._brief(among))]
        apart = [value for name, value in parts if len({getattr(one, name) for one in among}) > 1]
        return ", ".join(filter(None, apart)) or ("as shipped" if len(among) > 1 else f"{self.model} × {self.data}")

    def _brief(self, among: Sequence[Setting]) -> str:
        brief = brief_keys(key for one in among for key, _ in one._values())
        return ", ".join(f"{brief[key]}={value}" for key, value in self._values())

    def _values(self) -> list[tuple[str, str]]:
        found = (part.partition("=") for part in self.swept.split("; ") if part)
        return [(key.lstrip("+"), value) for key, _, value in found]


def setting_of(job: Job) -> Setting:
    """The setting that a job is a seed of."""
    return Setting(job.model, job.data, job.swept)


def setting_of_row(row: dict[str, Cell]) -> Setting:
    """The setting that a row of summary.csv is of."""
    return Setting(str(row["model"]), str(row["data"]), str(row["swept"] or ""))


def brief_keys(keys: Iterable[str]) -> dict[str, str]:
    """Keys by their last parts where no other one ends so.

    Example:
        >>> brief_keys(["seed", "method.influence.damping"])
        {'seed': 'seed', 'method.influence.damping': 'damping'}
    """
    known = list(dict.fromkeys(keys))
    ends = Counter(key.rpartition(".")[2] for key in known)
    return {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in known}
